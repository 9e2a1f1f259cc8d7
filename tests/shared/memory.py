"""The store in memory, for tests and simulations. Every operation passes a transport, which can inject faults.

It is as sound as the real store: the same contract tests run on both.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from memory_directories import DirectoryCalls, DirectoryRecords
from memory_segments import SegmentRecords
from memory_sessions import SessionCalls, SessionRecords

from beanspiked.engine.aerospike.store.formats import NEWEST
from beanspiked.engine.aerospike.store.seam import (
    FIRST,
    Busy,
    Change,
    Fenced,
    Head,
    Leases,
    Newer,
    Outcome,
    Segment,
    Settlement,
    Sizes,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from beanspiked.engine.aerospike.store.request import Request, Told
    from beanspiked.engine.aerospike.store.seam import Entries
    from beanspiked.engine.contract import StoreStats, TubeSizes

__all__ = ["Cluster", "MemoryStore", "at_once"]

Result = TypeVar("Result")

# As many as a cluster has at first.
RECORDS: Final = 1 << 14
# The largest record by default, in bytes.
RECORD_MAX: Final = 1 << 20
# The operations that write to a tube's shard, and those that write to the record that their first argument names. Others read, or are rare.
OF_TUBES: Final = {"enlist", "unlist", "pause", "forget_tube", "add_counters", "list_page", "unlist_page"}
WRITES: Final = OF_TUBES | {"apply", "settle", "shift", "remove", "reclaim", "close", "retire", "wipe"}


class Cluster(SegmentRecords, SessionRecords, DirectoryRecords):
    """All records, which the stores of all front-ends share. Each method is one atomic operation.

    Args:
        now_ms: The server's clock.
        records: How many records segments have at first, and pages.
        record_max: The largest record, in bytes.
        pending_max: How many writes to one record may come in one millisecond; any number if it is 0.

    Attributes:
        roomy: The answer of `has_room`.
        remembers: Whether removed records are kept for a restart.
    """

    def __init__(
        self, now_ms: Callable[[], int], records: int = RECORDS, record_max: int = RECORD_MAX, pending_max: int = 0
    ) -> None:
        DirectoryRecords.__init__(self, records, record_max)
        SessionRecords.__init__(self, now_ms, record_max)
        SegmentRecords.__init__(self, record_max)
        self.remembers = False
        self.pending_max = pending_max
        self._pending: Counter[object] = Counter()
        self._pending_ms = 0
        self.roomy = True
        self._bodies: dict[tuple[int, int], bytes] = {}
        # When each was written, even the removed ones, which a node brings back when it restarts.
        self._written_ms: dict[tuple[int, int], int] = {}
        self._removed: dict[tuple[int, int], bytes] = {}
        self._unseen: list[tuple[int, int]] = []
        # By segment and number.
        self._body_forms: dict[tuple[int, int], int] = {}

    def arrive(self, operation: Callable[[], Any]) -> None:
        """Let an operation arrive. Raises Busy if too many others have arrived for the same record in this millisecond."""
        if not isinstance(operation, partial) or operation.func.__name__ not in WRITES:
            return
        key = operation.func.__name__ in OF_TUBES, operation.args[0]
        now_ms = self.now_ms()
        if now_ms != self._pending_ms:
            self._pending_ms = now_ms
            self._pending.clear()
        self._pending[key] += 1
        if self.pending_max and self._pending[key] > self.pending_max:
            raise Busy("14: too many writes wait for the record")

    def room(self) -> bool:
        """See SegmentStore."""
        return self.roomy

    def number_bodies(self, number: int, lease: int, count: int) -> int:
        """See SegmentStore."""
        record = self._segment(number)
        self._lease(record, lease)
        record.bodies += count
        return record.bodies - count + 1

    def write_body(self, number: int, body_number: int, body: bytes, form: int = FIRST) -> None:
        """See SegmentStore."""
        self._bodies[number, body_number] = body
        self._written_ms[number, body_number] = self.now_ms()
        self._body_forms[number, body_number] = form

    def read_body(self, name: tuple[int, int], newest: int) -> bytes | None:
        """Read one body. Raises Newer."""
        if self._body_forms.get(name, FIRST) > newest:
            raise Newer(f"body {name} is of a newer format")
        return self._bodies.get(name)

    def drop_body(self, name: tuple[int, int]) -> None:
        """Remove one body."""
        body = self._bodies.pop(name, None)
        self._body_forms.pop(name, None)
        if body is not None and self.remembers:
            self._removed[name] = body
        elif name not in self._removed:
            self._written_ms.pop(name, None)

    def old_bodies(self, count: int, age_ms: int) -> list[tuple[int, int]]:
        """See SegmentStore."""
        until = self.now_ms() - age_ms
        if not self._unseen:
            self._unseen = list(self._bodies)
        some, self._unseen = self._unseen[:count], self._unseen[count:]
        return [name for name in some if name in self._bodies and self._written_ms[name] < until]

    def restart_cold(self) -> None:
        """Bring back removed records, as a node does when it restarts."""
        self._bodies |= self._removed
        self._removed = {}


Transport = Callable[[str, Callable[[], Any]], Awaitable[Any]]


async def at_once(name: str, operation: Callable[[], Result]) -> Result:  # noqa: ARG001 - other transports use the name
    """Apply an operation at once."""
    return operation()


class MemoryStore(SessionCalls, DirectoryCalls):
    """One front-end's access to a cluster in memory; see SegmentStore for its methods.

    Args:
        cluster: The records.
        transport: Gets each operation's name and a function that applies it.
        newest: The newest format that it knows.
    """

    def __init__(self, cluster: Cluster, transport: Transport = at_once, newest: int = NEWEST) -> None:
        self.newest = newest
        self._cluster = cluster
        self._transport = transport
        self._tasks: set[asyncio.Task[None]] = set()

    async def _if_known(self, name: str, number: int, operation: Callable[[], Any]) -> Any:
        """Change a segment unless its format is unknown. Raises Newer."""
        return await self._transport(name, partial(self._cluster.known, number, self.newest, operation))

    async def create(self, number: int, tube: str, lease: int, form: int = FIRST, page: int = 0) -> None:
        """See SegmentStore."""
        await self._send("create", self._cluster.create, number, tube, lease, form, page, self.newest)

    async def apply(self, number: int, lease: int, change: Change) -> Outcome:
        """See SegmentStore."""
        send = self._unless_unknown if change.attach else self._sent
        outcome: Outcome = await send("apply", number, partial(self._cluster.apply, number, lease, change))
        return outcome

    def send(self, requests: Sequence[Request], told: Told) -> None:
        """See SegmentStore. Outcomes that are there at the same time are told together."""
        done: list[Request] = []
        loop = asyncio.get_running_loop()

        def tell() -> None:
            together = done[:]
            done.clear()
            told(together)

        async def carry_out(request: Request) -> None:
            try:
                request.outcome = await self.apply(request.number, request.lease, request.change)
            except Exception as error:  # noqa: BLE001 - it is told
                request.outcome = error
            done.append(request)
            if len(done) == 1:
                loop.call_soon(tell)

        for request in requests:
            task = loop.create_task(carry_out(request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def settle(self, number: int, lease: int, renewed: int) -> Settlement:
        """See SegmentStore."""
        made: Settlement = await self._send("settle", self._cluster.settle, number, lease, renewed)
        return made

    async def settle_attach(self, number: int, lease: int, renewed: int) -> Settlement:
        """See SegmentStore."""
        operation = partial(self._cluster.settle_attach, number, lease, renewed)
        made: Settlement = await self._unless_unknown("settle_attach", number, operation)
        return made

    async def _sent(self, name: str, number: int, operation: Callable[[], Any]) -> Any:  # noqa: ARG002 - as `_unless_unknown`
        return await self._transport(name, operation)

    async def _unless_unknown(self, name: str, number: int, operation: Callable[[], Any]) -> Any:
        """Change a segment unless its format is unknown. Raises Fenced then."""
        try:
            return await self._if_known(name, number, operation)
        except Newer as error:
            raise Fenced(str(error)) from error

    async def read(self, number: int) -> Segment | None:
        """See SegmentStore."""
        segment: Segment | None = await self._if_known("read", number, partial(self._cluster.read, number))
        return segment

    async def heads(self, numbers: Sequence[int]) -> list[Head | None]:
        """See SegmentStore."""
        return [await self._unless_newer("head", number, partial(self._cluster.head, number)) for number in numbers]

    async def _unless_newer(self, name: str, number: int, operation: Callable[[], Any]) -> Any:
        try:
            return await self._if_known(name, number, operation)
        except Newer:
            return None

    async def sizes(self, numbers: Sequence[int]) -> list[Sizes | None]:
        """See SegmentStore."""
        return [await self._unless_newer("size", number, partial(self._cluster.size, number)) for number in numbers]

    async def leases(self, numbers: Sequence[int]) -> list[Leases | None]:
        """See SegmentStore."""
        return [await self._unless_newer("leases", number, partial(self._cluster.leases, number)) for number in numbers]

    async def shift(
        self, number: int, source: str, keys: Sequence[bytes], target: str | int | None, entries: Entries | None
    ) -> Head:
        """See SegmentStore."""
        head: Head = await self._send("shift", self._cluster.shift, number, source, keys, target, entries)
        return head

    async def remove(self, number: int, queue: str, key: bytes) -> bool:
        """See SegmentStore."""
        removed: bool = await self._send("remove", self._cluster.remove, number, queue, key)
        return removed

    async def reclaim(self, number: int, lease: int) -> int:
        """See SegmentStore."""
        count: int = await self._send("reclaim", self._cluster.reclaim, number, lease)
        return count

    async def close(self, number: int) -> bool:
        """See SegmentStore."""
        closed: bool = await self._if_known("close", number, partial(self._cluster.close, number))
        return closed

    async def retire(self, number: int) -> bool:
        """See SegmentStore."""
        retired: bool = await self._if_known("retire", number, partial(self._cluster.retire, number))
        return retired

    async def wipe(self, number: int) -> int:
        """See SegmentStore."""
        jobs: int = await self._if_known("wipe", number, partial(self._cluster.wipe, number))
        return jobs

    async def tube_sizes(self, tube: str) -> TubeSizes:
        """See SegmentStore."""
        sizes: TubeSizes = await self._send("tube_sizes", self._cluster.tube_sizes, tube, self.newest)
        return sizes

    async def leave(self) -> None:
        """See SegmentStore."""

    async def leased_by(self, session: int) -> list[int]:
        """See SegmentStore."""
        numbers: list[int] = await self._send("leased_by", self._cluster.leased_by, session)
        return numbers

    async def has_room(self) -> bool:
        """See SegmentStore."""
        roomy: bool = await self._send("has_room", self._cluster.room)
        return roomy

    def measure(self) -> None:
        """See SegmentStore: nothing is counted here."""

    def tell(self, stats: StoreStats) -> None:
        """See SegmentStore: nothing was counted."""

    async def number_bodies(self, number: int, lease: int, count: int) -> int:
        """See SegmentStore."""
        first: int = await self._send("number_bodies", self._cluster.number_bodies, number, lease, count)
        return first

    async def write_body(self, number: int, body_number: int, body: bytes, form: int = FIRST) -> None:
        """See SegmentStore."""
        await self._send("write_body", self._cluster.write_body, number, body_number, body, form)

    async def read_bodies(self, names: Sequence[tuple[int, int]], *, sure: bool = False) -> list[bytes | None]:  # noqa: ARG002 - it has one copy
        """See SegmentStore."""
        return [await self._send("read_body", self._cluster.read_body, name, self.newest) for name in names]

    async def drop_bodies(self, names: Sequence[tuple[int, int]]) -> None:
        """See SegmentStore."""
        for name in names:
            await self._send("drop_body", self._cluster.drop_body, name)

    async def old_bodies(self, count: int, age_ms: int) -> list[tuple[int, int]]:
        """See SegmentStore."""
        names: list[tuple[int, int]] = await self._send("old_bodies", self._cluster.old_bodies, count, age_ms)
        return names
