"""The store on the official `aerospike` client. Modules beside this one have its parts, one for each kind of record."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import aerospike
from aerospike import exception as client_errors

from beanspiked.engine.aerospike.store.aerospike import client, room, udf, upgrade
from beanspiked.engine.aerospike.store.aerospike.bodies import Bodies
from beanspiked.engine.aerospike.store.aerospike.calls import meaning
from beanspiked.engine.aerospike.store.aerospike.directories import Directories
from beanspiked.engine.aerospike.store.aerospike.segments import Segments
from beanspiked.engine.aerospike.store.aerospike.sessions import Sessions
from beanspiked.engine.aerospike.store.aerospike.tally import Tally
from beanspiked.engine.aerospike.store.seam import StoreError
from beanspiked.engine.contract import TubeSizes
from beanspiked.engine.errors import StoreUnusable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from beanspiked.engine.contract import StoreStats

__all__ = ["AerospikeStore"]

logger = logging.getLogger(__name__)

# How long, and how often, taking over an older cluster is tried while it fails, in seconds.
TAKEN_OVER_WITHIN: Final = 5.0
TRY_EVERY: Final = 0.1
# The sets, and the records in them.
KINDS: Final = {
    "seg": "segment",
    "dir": "directory",
    "page": "page",
    "body": "body",
    "ses": "session",
    "news": "news",
    "ctl": "counter",
}


class AerospikeStore(Segments, Sessions, Directories, Bodies):
    """A cluster's namespace; see SegmentStore for the methods, Records for the arguments."""

    # How many records of each kind there were at the last count.
    _counted: Mapping[str, int] = MappingProxyType({})

    async def connect(self, config: Mapping[str, Any], inspect: Callable[[Any], None]) -> None:
        """Connect, and make the index and the module in the cluster. After that this store can be used.

        Args:
            config: The configuration for `aerospike.client`.
            inspect: Called with the client on a worker thread; raises StoreUnusable if the cluster is not fit.

        Raises:
            StoreUnusable: No node accepts the client, the cluster is not fit, or it does not answer.
        """
        connected = await self.caller.workers.do(partial(_connect, config, inspect))
        try:
            await self._take_over(connected)
            self.caller.connected(connected)
        finally:
            if self.caller.client is not connected:
                connected.close()

    async def _take_over(self, connected: Any) -> None:
        """Move the directories of the version before, before any other use of the cluster. Raises StoreUnusable."""
        former = upgrade.Former(connected, self._namespace, self._prefix)
        until = time.monotonic() + TAKEN_OVER_WITHIN
        try:
            while True:
                try:
                    return await upgrade.take_over(former)
                except StoreError as error:
                    # A loaded node may be late with one of many answers. What was moved already stays where it is.
                    if time.monotonic() >= until:
                        raise StoreUnusable(f"the records of the version before are not moved yet: {error}") from error
                await asyncio.sleep(TRY_EVERY)
        finally:
            former.caller.close()

    async def prepare(self) -> None:
        """Make the index that finds a session's leases."""
        await self.caller.call_slow(self._prepare)

    def _prepare(self) -> None:
        name = self._set("held")
        listed = self.caller.client.info_all(f"sindex-list:namespace={self._namespace}")
        if all(f"indexname={name}:" in str(answer) for _, answer in listed.values()):
            # The client itself waits for two seconds with each index.
            return
        with contextlib.suppress(client_errors.IndexFoundError):
            self.caller.client.index_map_keys_create(
                self._namespace, self._set("seg"), "held", aerospike.INDEX_NUMERIC, name
            )

    async def leased_by(self, session: int) -> list[int]:
        """See SegmentStore. If somebody has removed the index, this makes it again, and the next try may find it."""
        try:
            return await super().leased_by(session)
        except StoreError as error:
            if not isinstance(error.__cause__, client_errors.IndexNotFound):
                raise
            missing = error
        logger.warning("the index that finds the leases of the dead is gone, and is made again")
        await self.prepare()
        raise missing

    async def has_room(self) -> bool:
        """See SegmentStore."""
        roomy, _ = await self.caller.call_slow(lambda: room.has_room(self.caller.client, self._namespace))
        if self.caller.tally is not None:
            sets = {self._set(name): kind for name, kind in KINDS.items()}
            self._counted = await self.caller.call_slow(lambda: room.count(self.caller.client, self._namespace, sets))
        return roomy

    def measure(self) -> None:
        """See SegmentStore."""
        self.caller.tally = Tally(meaning)

    def tell(self, stats: StoreStats) -> None:
        """See SegmentStore."""
        if self.caller.tally is not None:
            copied = self.caller.tally.copy()
            stats.calls, stats.outcomes, stats.records = copied.calls, copied.outcomes, dict(self._counted)

    async def tube_sizes(self, tube: str) -> TubeSizes:
        """See SegmentStore."""
        summed = await self.caller.call_slow(
            lambda: udf.sizes(self.caller.client, self._namespace, self._set("seg"), tube, 0)
        )
        return TubeSizes(summed.job_size, summed.used_size, summed.skipped_size)

    async def leave(self) -> None:
        """See SegmentStore."""
        # The event loop must not wait for threads that wait for a node.
        await asyncio.get_running_loop().run_in_executor(None, self.caller.close)
        # This comes last, since one of the threads may have been connecting.
        connected, self.caller.client = self.caller.client, None
        if connected is not None:
            connected.close()


def _connect(config: Mapping[str, Any], inspect: Callable[[Any], None]) -> Any:
    """Connect a client to a cluster that is fit and has the Lua module. Raises StoreUnusable."""
    connected = client.connect(config)
    try:
        inspect(connected)
        udf.register(connected)
    except BaseException as error:
        connected.close()
        if isinstance(error, client_errors.AerospikeError):
            raise StoreUnusable(f"{error.code}: {error.msg}") from error
        if isinstance(error, udf.ModuleMissing):
            # A cluster that is still forming takes no modules, so this tries again.
            raise StoreUnusable(str(error)) from error
        raise
    return connected
