"""What a segment's side here needs of the front-end around it; the front-end implements it, nothing here knows how."""

from collections.abc import Coroutine
from typing import TYPE_CHECKING

from beanspiked.engine.contract import Tube, Waiter
from beanspiked.engine.errors import DamagedEntry, EngineError

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.segment.codec import Formats
    from beanspiked.engine.aerospike.segment.jobs import Put, SharedJob
    from beanspiked.engine.aerospike.segment.view import View
    from beanspiked.engine.aerospike.store.contract import SegmentStore
    from beanspiked.engine.aerospike.store.seam import Full, Segment

__all__ = ["Home", "LeaseSource", "Surroundings"]


class LeaseSource:
    """The session that leases are of.

    Attributes:
        over: Whether it has ended, however.
        offset_ms: How far the server's clock is ahead of this process's.
    """

    over: bool
    offset_ms: int

    def next_lease(self) -> int:
        """Name a lease that was never used."""
        raise NotImplementedError


class Home(Tube):
    """The tube that a segment belongs to: it ranks its segments by their most urgent jobs."""

    __slots__ = ()

    def rank(self, segment: "View") -> None:
        """Take note that a segment's most urgent job may have changed."""
        raise NotImplementedError

    def drop(self, segment: "View") -> None:
        """Forget a segment."""
        raise NotImplementedError

    def expect(self, due: bytes) -> None:
        """Take note of a delayed job's key."""
        raise NotImplementedError

    def doubt(self) -> None:
        """Take note that not all is known of it."""
        raise NotImplementedError

    def put_no_more(self, segment: "View") -> None:
        """Have further puts go to another segment."""
        raise NotImplementedError


class Surroundings:
    """The front-end, as a segment's side sees it.

    Args:
        store: The store.
        formats: The formats of jobs that this front-end knows.
    """

    def __init__(self, store: "SegmentStore", formats: "Formats") -> None:
        self.store: SegmentStore = store
        self.formats: Formats = formats

    # --- its time and its session

    def now(self) -> float:
        """Return this process's time, in seconds since the epoch."""
        raise NotImplementedError

    def step(self) -> int:
        """Number one more moment, to tell which of two things was known first."""
        raise NotImplementedError

    def session(self) -> LeaseSource:
        """Return the session, which may be over."""
        raise NotImplementedError

    def alive(self) -> bool:
        """Tell whether the session may act."""
        raise NotImplementedError

    async def decide(self) -> None:
        """Find out whether the session is over, however long the store takes to answer."""
        raise NotImplementedError

    # --- what is to be done

    def spawn(self, coroutine: Coroutine[object, object, None]) -> None:
        """Run a coroutine beside everything else."""
        raise NotImplementedError

    def wake(self, segment: "View") -> None:
        """Have a segment's operation begin in the next pass of the event loop."""
        raise NotImplementedError

    def in_flight(self, segment: "View", running: bool) -> None:
        """Take note that a segment's operation has begun or ended."""
        raise NotImplementedError

    def suspended(self, segment: "View", aside: bool) -> None:
        """Take note that a segment does not answer, or that jobs are asked of it again."""
        raise NotImplementedError

    def turn_over(self) -> None:
        """Let sessions go on: something became known."""
        raise NotImplementedError

    async def pause_between_tries(self, failing_since: float) -> None:
        """Wait a little, never twice the same; longer the longer it has failed, given since when."""
        raise NotImplementedError

    async def reading_segment(self, number: int, session: LeaseSource) -> "Segment | None":
        """Read a segment, however long it takes while a session lasts; None where it is gone. Raises StoreError."""
        raise NotImplementedError

    # --- what became of jobs

    def put_elsewhere(self, tube: Home, puts: "list[Put]") -> None:
        """Put into another segment what was certainly not put."""
        raise NotImplementedError

    def found_full(self, error: "Full") -> None:
        """Take note that the store has no room."""
        raise NotImplementedError

    def unclaim(self, tube: Home, asks: list[tuple[Waiter, int]]) -> None:
        """Jobs are not being asked for any more for those who wait."""
        raise NotImplementedError

    def still_wanted(self, tube: Home, asks: list[tuple[Waiter, int]]) -> bool:
        """Tell whether anybody still waits for what was asked for."""
        raise NotImplementedError

    def failed(self, asks: list[tuple[Waiter, int]], error: EngineError) -> None:
        """What was asked for failed."""
        raise NotImplementedError

    def advance_seeks(self, tube: Home, anew: bool = False) -> None:
        """Jobs that were asked for in a tube have come, or will not; `anew`: what was seen of it is lost."""
        raise NotImplementedError

    def request_soon(self, tube: Home) -> None:
        """Jobs of a tube may be asked for that were not."""
        raise NotImplementedError

    def deliver(self, tube: Home, jobs: "list[SharedJob]") -> None:
        """Hand taken jobs to those who wait."""
        raise NotImplementedError

    def fetch_and_deliver(self, segment: "View", jobs: "list[SharedJob]", asks: list[tuple[Waiter, int]]) -> None:
        """Fetch bodies that lie outside, then hand the jobs over."""
        raise NotImplementedError

    def hold(self, job: "SharedJob") -> None:
        """A job is held here."""
        raise NotImplementedError

    def left(self, job: "SharedJob", deleted: bool) -> None:
        """A job has left the lease."""
        raise NotImplementedError

    def lost(self, job: "SharedJob") -> None:
        """A held job is lost with its lease."""
        raise NotImplementedError

    def unreadable(self, what: str, error: DamagedEntry) -> None:
        """A job is of a format that is not known here."""
        raise NotImplementedError

    def let_go_unread(self, segment: "View", key: bytes, packed: bytes, damaged: bool) -> None:
        """Let go of a taken job that cannot be read."""
        raise NotImplementedError

    # --- what others are told, and what is looked at

    def announce(self, segment: "View", delayed: bool) -> None:
        """Tell the others of ready jobs that nobody here has asked for, or of one that will be ready."""
        raise NotImplementedError

    def changed(self, segment: "View") -> None:
        """Tell the others to look at a segment."""
        raise NotImplementedError

    def look_at(self, segment: "View") -> None:
        """Learn what a segment holds."""
        raise NotImplementedError

    def may_end(self, segment: "View") -> None:
        """Let a segment die if nothing is left in it."""
        raise NotImplementedError
