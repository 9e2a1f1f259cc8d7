"""The base of all parts of the store: names, reads and changes records."""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import aerospike
from aerospike import exception as client_errors
from aerospike_helpers.expressions import base as exp

from beanspiked.engine.aerospike.store.aerospike.calls import (
    CODE_EXISTS,
    CODE_NOT_FOUND,
    READ_POLICY,
    Caller,
    code_of,
    meaning,
)
from beanspiked.engine.aerospike.store.aerospike.conditions import NUMBER, Template
from beanspiked.engine.aerospike.store.aerospike.pace import Lull, Pace
from beanspiked.engine.aerospike.store.aerospike.together import Together
from beanspiked.engine.aerospike.store.formats import NEWEST, SetAside
from beanspiked.engine.aerospike.store.keys import RING_BITS
from beanspiked.engine.aerospike.store.seam import Damaged, Fenced, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from beanspiked.engine.aerospike.store.aerospike.calls import Key

__all__ = ["Records", "lower"]

Result = TypeVar("Result")


class Records:
    """The records of a namespace whose sets begin with a prefix.

    Args:
        client: A connected client of the `aerospike` package; None before there is one, and then everything fails with Busy.
        namespace: The namespace of all records.
        prefix: The beginning of the names of all sets and indexes. The store never changes records of other sets.
        newest: The newest format that this front-end reads and writes.

    Attributes:
        caller: Calls the client.
        pace: How quickly the store answers.
    """

    def __init__(self, client: Any, namespace: str, prefix: str = "bsd_", newest: int = NEWEST) -> None:
        self.caller: Caller = Caller(client)
        self.pace: Pace = Pace(time.monotonic)
        self.newest: int = newest
        self._namespace = namespace
        self._prefix = prefix
        self._lull = Lull()
        self._together = Together(self.caller, self.pace)
        self._aside = SetAside()
        # By set, whether the record that was claimed last was new: such records come in long runs.
        self._claims_new: dict[str, bool] = {}
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

    async def change(
        self, key: Key, ops: list[Any], guard: Any = None, exists: int = aerospike.POLICY_EXISTS_UPDATE
    ) -> list[tuple[str, Any]]:
        """Change a record; return the results of the operations.

        Raises:
            Fenced: The record is missing, and `exists` does not allow the store to make it.
            Refused: The guard does not hold, or the record is there and `exists` does not allow that.
        """
        await self.caller.ready()
        here = await self._change_here(key, ops, guard, exists)
        if here is not None:
            return here
        results: list[tuple[str, Any]] = await self.caller.call(partial(self.caller.make, key, ops, exists, guard))
        return results

    async def alter(
        self, key: Key, ops: list[Any], guard: Any = None, exists: int = aerospike.POLICY_EXISTS_UPDATE
    ) -> dict[str, Any]:
        """Change a record, perhaps in one call with others that wait; return the last result of each bin. Raises as `change` does."""
        await self.caller.ready()
        results = await self._change_here(key, ops, guard, exists)
        return await self._together.write(key, ops, exists, guard) if results is None else dict(results)

    async def _change_here(self, key: Key, ops: list[Any], guard: Any, exists: int) -> list[tuple[str, Any]] | None:
        """Change a record from the event loop while the store is quick and the turn has few calls; None if a thread has to.

        See Changes.
        """
        if not (self._lull.here() and self.pace.quick() and self.caller.steady()):
            return None
        began = self.pace.now()
        results: list[tuple[str, Any]] | None = None
        try:
            # With the next try a thread learns why the node filtered it out.
            with contextlib.suppress(client_errors.FilteredOut):
                results = self.caller.make_here(key, ops, exists, guard)
        except client_errors.AerospikeError as error:
            raise meaning(error) from error
        finally:
            self.pace.answered(began)
            # However many calls follow each other, everything else runs between them.
            await asyncio.sleep(0)
        return results

    async def make(self, key: Key, ops: list[Any], guard: Any = None) -> None:
        """Change a record, or make it. Raises Refused if the record is there and the guard does not hold."""
        await self.alter(key, ops, guard, aerospike.POLICY_EXISTS_IGNORE)

    async def begin(self, key: Key, begun: list[Any], ops: list[Any], guard: Any = None) -> dict[str, Any]:
        """Change a record; where it is missing, make it first. Return the last result of each bin.

        Args:
            key: The record.
            begun: The operations that make it.
            ops: The change.
            guard: A condition for the change.
        """
        try:
            return await self.alter(key, ops, guard)
        except Fenced as error:
            if code_of(error) != CODE_NOT_FOUND:
                raise
        try:
            await self.alter(key, begun, exists=aerospike.POLICY_EXISTS_CREATE)
        except Refused as error:
            if code_of(error) != CODE_EXISTS:
                raise
        return await self.alter(key, ops, guard)

    async def claim(self, key: Key, number: int, free: Template, made: list[Any], again: list[Any]) -> None:
        """Make a record, or use a free one again under a higher number. Raises Refused if it is not free or has a higher number.

        Args:
            key: The record.
            number: Its number from now on.
            free: Holds for a record that is free; see `lower`.
            made: The operations that make it.
            again: Those that make it anew.
        """
        first = self._claims_new.get(key[1], number >> RING_BITS <= 1)
        try:
            if first:
                await self.alter(key, made, exists=aerospike.POLICY_EXISTS_CREATE)
            else:
                await self.alter(key, again, free.of(number))
        except (Fenced, Refused) as error:
            if code_of(error) != (CODE_EXISTS if first else CODE_NOT_FOUND):
                raise
        else:
            return
        self._claims_new[key[1]] = not first
        if first:
            await self.alter(key, again, free.of(number))
        else:
            await self.alter(key, made, exists=aerospike.POLICY_EXISTS_CREATE)

    async def look(
        self, kind: str, numbers: Sequence[int], keys: list[Key], reads: list[Any], decode: Callable[..., Result | None]
    ) -> list[Result | None]:
        """Read parts of records in one call; None for records that are missing or set aside.

        Args:
            kind: The kind of the records, for the log.
            numbers: The number of each.
            keys: Their keys.
            reads: The reads of each record.
            decode: Called with number, bins and newest format.
        """
        if not keys:
            return []
        found = await self.caller.call(partial(self.caller.read_all, keys, reads))
        return [
            None
            if bins is None
            else self._aside.read(f"{kind} {number}", partial(_decoded, decode, number, bins, self.newest))
            for number, bins in zip(numbers, found, strict=True)
        ]


def _decoded(decode: Callable[..., Result | None], number: int, bins: Mapping[str, Any], newest: int) -> Result | None:
    """Decode what was read of a record. Raises Damaged, also where the reads did not fit, so that there is nothing."""
    if not bins:
        raise Damaged("bins are missing or of a wrong type")
    return decode(number, bins, newest)


def lower(free: Any) -> Template:
    """Return the condition under which a record is claimed: it is free, and its number is lower."""
    return Template(exp.And(free, exp.LT(exp.IntBin("no"), NUMBER)))
