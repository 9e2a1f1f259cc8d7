"""What all parts of the store share: how records are named, read and changed."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import aerospike
from aerospike import exception as client_errors
from aerospike_helpers.expressions import base as exp

from beanspiked.engine.aerospike.store.aerospike.calls import READ_POLICY, Caller
from beanspiked.engine.aerospike.store.formats import NEWEST, SetAside
from beanspiked.engine.aerospike.store.seam import Fenced

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from beanspiked.engine.aerospike.store.aerospike.calls import Key

__all__ = ["Records", "numbered"]

Result = TypeVar("Result")


class Records:
    """The records of a namespace whose sets begin with a prefix.

    Args:
        client: A connected client of the `aerospike` package; None before there is one: everything then fails with Busy.
        namespace: Where to keep everything.
        prefix: What the names of all sets and indexes begin with; records outside them are never touched.
        newest: The newest format that is read and written.

    Attributes:
        caller: What calls the client.
    """

    def __init__(self, client: Any, namespace: str, prefix: str = "bsd_", newest: int = NEWEST) -> None:
        self.caller: Caller = Caller(client)
        self.newest: int = newest
        self._namespace = namespace
        self._prefix = prefix
        self._aside = SetAside()
        self._known = exp.Or(exp.Not(exp.BinExists("f")), exp.LE(exp.IntBin("f"), newest))

    def _set(self, name: str) -> str:
        return self._prefix + name

    def key(self, name: str, key: int | str) -> Key:
        """Return the key of a record of a set."""
        return self._namespace, self._set(name), key

    async def get(self, key: Key) -> dict[str, Any] | None:
        """Read a whole record; None if it is not there."""
        try:
            bins: dict[str, Any] = await self.caller.call(lambda: self.caller.client.get(key, READ_POLICY)[2])
        except Fenced:
            return None
        return bins

    async def change(self, key: Key, ops: list[Any], guard: Any = None) -> list[tuple[str, Any]]:
        """Change a record; return the results of the operations.

        Raises:
            Fenced: It is not there.
            Refused: The guard does not hold.
        """
        results: list[tuple[str, Any]] = await self.caller.call(partial(self.caller.operate, key, ops, guard))
        return results

    async def make(self, key: Key, ops: list[Any], guard: Any = None) -> None:
        """Change a record, or make it. Raises Refused if it is there and the guard does not hold."""
        await self.caller.call(partial(self.caller.make, key, ops, aerospike.POLICY_EXISTS_IGNORE, guard))

    def begin(self, key: Key, begun: list[Any], ops: list[Any], guard: Any = None) -> Any:
        """Change a record; where it is missing, make it first. For worker threads.

        Args:
            key: The record.
            begun: What makes it.
            ops: The change.
            guard: A condition for the change.
        """
        try:
            return self.caller.operate(key, ops, guard)
        except client_errors.RecordNotFound:
            with contextlib.suppress(client_errors.RecordExistsError):
                self.caller.make(key, begun, aerospike.POLICY_EXISTS_CREATE)
            return self.caller.operate(key, ops, guard)

    async def look(
        self, kind: str, numbers: Sequence[int], keys: list[Key], reads: list[Any], decode: Callable[..., Result | None]
    ) -> list[Result | None]:
        """Read parts of records in one call; None for those that are not there or are left alone.

        Args:
            kind: What the records are of, for the log.
            numbers: Of what number each is.
            keys: Their keys.
            reads: What to read of each.
            decode: Called with number, bins and newest format.
        """
        if not keys:
            return []
        found = await self.caller.call(partial(self.caller.read_all, keys, reads))
        return [
            None if bins is None else self._aside.read(f"{kind} {number}", partial(decode, number, bins, self.newest))
            for number, bins in zip(numbers, found, strict=True)
        ]


def numbered(number: int) -> Any:
    """Return a guard: the record is that of a number."""
    return exp.Eq(exp.IntBin("no"), number)
