"""Bodies that are too large for their segments, in records of their own."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from aerospike_helpers.expressions import base as exp
from aerospike_helpers.operations import operations

from beanspiked.engine.aerospike.store import formats as decoding
from beanspiked.engine.aerospike.store.aerospike.calls import QUERY_POLICY, REMOVE_POLICY, WRITE_POLICY
from beanspiked.engine.aerospike.store.aerospike.records import Records
from beanspiked.engine.aerospike.store.seam import FIRST, Damaged, Fenced, Newer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from beanspiked.engine.aerospike.store.aerospike.calls import Key

__all__ = ["Bodies"]

# How long a body has to be missing before it is lost, in seconds. A node that was frozen for long may be asked before it knows that it was
# left out, and has none of the later bodies. Within this time the nodes' answers tell that it is back, and reads wait until all agree.
LOST_AFTER: Final = 1.5
BODY_READS: Final = [operations.read("f"), operations.read("body")]


class Bodies(Records):
    """The part of the store that has the bodies; see SegmentStore for the methods."""

    # The query of `old_bodies` that has not ended yet.
    _query: Any = None

    def _body_key(self, number: int, body_number: int) -> Key:
        return self.key("body", f"{number}-{body_number}")

    async def write_body(self, number: int, body_number: int, body: bytes, form: int = FIRST) -> None:
        """See SegmentStore."""
        key = self._body_key(number, body_number)
        bins = {"f": form, "no": number, "nr": body_number, "body": body}
        await self.caller.call(lambda: self.caller.client.put(key, bins, policy=WRITE_POLICY))

    async def read_bodies(self, names: Sequence[tuple[int, int]], *, sure: bool = False) -> list[bytes | None]:
        """See SegmentStore."""
        keys = [self._body_key(*name) for name in names]
        found = await self.caller.read_many(keys, BODY_READS)
        if sure and None in found:
            await asyncio.sleep(LOST_AFTER)
            found = await self.caller.read_many(keys, BODY_READS)
        return [
            None if bins is None else self._body(f"body {body_number} of segment {number}", bins)
            for (number, body_number), bins in zip(names, found, strict=True)
        ]

    def _body(self, what: str, bins: Mapping[str, Any]) -> bytes | None:
        """Return a body; None for a damaged one, which counts as lost. Raises Newer."""
        try:
            return decoding.blob(bins, "body", self.newest)
        except Damaged as error:
            self._aside.tell(what, error)
            if isinstance(error, Newer):
                raise
            return None

    async def drop_bodies(self, names: Sequence[tuple[int, int]]) -> None:
        """See SegmentStore."""
        for name in names:
            key = self._body_key(*name)
            with contextlib.suppress(Fenced):
                await self.caller.call(partial(self.caller.client.remove, key, policy=REMOVE_POLICY))

    async def old_bodies(self, count: int, age_ms: int) -> list[tuple[int, int]]:
        """See SegmentStore. This leaves out bodies of the version before, which do not say their segments and numbers."""
        return await self.caller.call_slow(partial(self._old_bodies, count, age_ms))

    def _old_bodies(self, count: int, age_ms: int) -> list[tuple[int, int]]:
        query, self._query = self._query, None
        if query is None:
            query = self.caller.client.query(self._namespace, self._set("body"))
            query.select("no", "nr")
            query.max_records = count
            query.paginate()
        old = exp.GT(exp.SinceUpdateTime(), age_ms).compile()
        found = [(bins.get("no"), bins.get("nr")) for _, _, bins in query.results({**QUERY_POLICY, "expressions": old})]
        if not query.is_done():
            self._query = query
        return [(number, body) for number, body in found if type(number) is int and type(body) is int]
