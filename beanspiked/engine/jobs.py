"""Jobs and tubes, as engines, connections and programs speak of them."""

from collections import OrderedDict
from typing import Final

from mypy_extensions import mypyc_attr, u8

from beanspiked.engine.compression import expand
from beanspiked.engine.later import Later
from beanspiked.engine.queue import Entry
from beanspiked.engine.timers import Timed

__all__ = [
    "ALL",
    "BURIED",
    "DELAYED",
    "ENTRY",
    "GIVEN_UP",
    "PLACE",
    "PLAIN",
    "READY",
    "RESERVED",
    "STATE_NAMES",
    "WHOLE",
    "Counts",
    "Details",
    "Job",
    "Tube",
    "TubeSight",
    "TubeSizes",
    "TubeUse",
    "Waiter",
]

READY: Final = 0
DELAYED: Final = 1
RESERVED: Final = 2
BURIED: Final = 3

STATE_NAMES: Final[list[str]] = ["ready", "delayed", "reserved", "buried"]

# As many jobs as there are.
ALL: Final = 1 << 60

# How much of a job a look needs: its place, all but its body, or everything.
PLACE: Final = 0
ENTRY: Final = 1
WHOLE: Final = 2

# `Details.raw_size` of a body that is not compressed.
PLAIN: Final = -1
GIVEN_UP: Final = -2

# protocol.txt: jobs more urgent than this are counted as urgent.
URGENT_BELOW: Final = 1024


class Details:
    """What only the library gives a job; most jobs have none.

    Attributes:
        metadata: A string to find jobs by.
        reason: Why the job was buried.
        retries: How often it was released to be tried again.
        failed: Whether its last try failed.
        raw_size: The body's size before compression, in bytes; PLAIN when it is not compressed, GIVEN_UP when that did not make it
            smaller.
        born: When its producer says that it was made, in seconds since the epoch; 0 when that is when it was put.
    """

    __slots__ = ("born", "failed", "metadata", "raw_size", "reason", "retries")

    def __init__(
        self,
        metadata: str = "",
        reason: str = "",
        retries: int = 0,
        failed: bool = False,
        raw_size: int = PLAIN,
        born: float = 0.0,
    ) -> None:
        self.metadata: str = metadata
        self.reason: str = reason
        self.retries: int = retries
        self.failed: bool = failed
        self.raw_size: int = raw_size
        self.born: float = born


@mypyc_attr(allow_interpreted_subclasses=True)
class Job(Entry):
    """A job. Only its engine changes it, but for `holder`, `reserved_us` and, while it is reserved, its place in the holder's queue.

    Attributes:
        tube: Where it lives.
        pri: 0 (most urgent) to 2**32 - 1.
        delay: The delay of its last put or release, in seconds.
        ttr: Time to run in seconds; 0 means that it never times out.
        born: When it was put, in seconds since the epoch.
        body: Its body as stored.
        state: READY, DELAYED, RESERVED or BURIED.
        key: While DELAYED, when it is due; while RESERVED, its deadline; both in seconds since the epoch.
        holder: Who in this process reserved it, or None.
        reserved_us: The holder's own: when it got the job, in microseconds since the epoch, and later than it got the one before.
        moving: The change that is on its way to the store, or None.
        details: What the library gave it, or None.
        ahead_of_store: Whether it was given back since its last change in the store, which knows nothing of that.
    """

    __slots__ = (
        "ahead_of_store",
        "body",
        "born",
        "buries",
        "delay",
        "details",
        "holder",
        "kicks",
        "moving",
        "pri",
        "releases",
        "reserved_us",
        "reserves",
        "state",
        "timeouts",
        "ttr",
        "tube",
    )

    def __init__(
        self,
        id: int,  # noqa: A002 - the protocol's own word
        tube: "Tube",
        pri: int,
        delay: float,
        ttr: float,
        born: float,
        body: bytes,
        details: Details | None = None,
    ) -> None:
        super().__init__(id)
        self.tube: Tube = tube
        self.pri: int = pri
        self.delay: float = delay
        self.ttr: float = ttr
        self.born: float = born
        self.body: bytes = body
        self.reserves: int = 0
        self.timeouts: int = 0
        self.releases: int = 0
        self.buries: int = 0
        self.kicks: int = 0
        self.holder: Waiter | None = None
        self.reserved_us: int = 0
        self.moving: Later | None = None
        self.details: Details | None = details
        # Micro-optimization: together these take no more space than one of them, when compiled.
        self.state: u8 = READY
        self.ahead_of_store: bool = False

    def raw_body(self) -> bytes:
        """Return its body as it was put. Raises DamagedBody."""
        details = self.details
        return self.body if details is None or details.raw_size < 0 else expand(self.body, details.raw_size)


class Counts:
    """How many jobs are in each state."""

    __slots__ = ("buried", "delayed", "ready", "reserved", "urgent")

    def __init__(self) -> None:
        self.ready: int = 0
        self.urgent: int = 0
        self.delayed: int = 0
        self.reserved: int = 0
        self.buried: int = 0

    def add(self, state: int, pri: int, by: int) -> None:
        """Count a job of this priority in (1) or out of (-1) a state."""
        if state == READY:
            self.ready += by
            if pri < URGENT_BELOW:
                self.urgent += by
        elif state == RESERVED:
            self.reserved += by
        elif state == DELAYED:
            self.delayed += by
        else:
            self.buried += by

    def of_state(self, state: int) -> int:
        """Count the jobs in a state."""
        if state == READY:
            return self.ready
        if state == RESERVED:
            return self.reserved
        return self.delayed if state == DELAYED else self.buried

    def jobs(self) -> int:
        """Count the jobs in any state."""
        return self.ready + self.delayed + self.reserved + self.buried


@mypyc_attr(allow_interpreted_subclasses=True)
class Waiter(Timed):
    """Somebody in this process who waits for jobs and holds them.

    Attributes:
        wants: How many jobs it takes one after the other, once it is served.
        turn: Its place in line, which grows with each wait.
        lingers: Whether it stays in its tubes between its waits; see `Tube.linger`.
        idle: Whether it does not wait now, though it is in its tubes.
    """

    __slots__ = ("idle", "lingers", "turn", "wants")

    def __init__(self, id: int) -> None:  # noqa: A002 - as its base
        super().__init__(id)
        self.wants: int = 1
        self.turn: int = 0
        self.lingers: bool = False
        self.idle: bool = False

    def serve(self, job: Job) -> None:
        """Take a job that was reserved for this waiter, and stop waiting."""
        raise NotImplementedError

    def lost(self, job: Job) -> None:
        """Learn that a held job was deleted with its tube, or that this process lost it."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Tube(Timed):
    """A tube, as this process knows it.

    Attributes:
        name: Its name.
        using: How many connections here use it.
        watching: How many connections here watch it.
        waiters: The waiters here for its jobs, the longest-waiting first, but for those in `lingering`.
        lingering: Waiters on many tubes, which stay here between their waits; None without one.
        counts: Its jobs by state.
        total_jobs: Puts since it was made or the process started.
        deletes: Successful deletes, likewise.
        pauses: `pause-tube` commands, likewise.
        pause: How long the pause in force was to last, in seconds; 0 when there is none.
        paused_until: When that ends, in seconds since the epoch.
    """

    __slots__ = (
        "counts",
        "deletes",
        "lingering",
        "name",
        "pause",
        "paused_until",
        "pauses",
        "total_jobs",
        "using",
        "waiters",
        "watching",
    )

    def __init__(self, id: int, name: str) -> None:  # noqa: A002 - as its base
        super().__init__(id)
        self.name: str = name
        self.using: int = 0
        self.watching: int = 0
        self.waiters: OrderedDict[Waiter, None] = OrderedDict()
        self.lingering: dict[Waiter, None] | None = None
        self.counts: Counts = Counts()
        self.total_jobs: int = 0
        self.deletes: int = 0
        self.pauses: int = 0
        self.pause: float = 0.0
        self.paused_until: float = 0.0

    def enter(self, waiter: Waiter) -> None:
        """Add a waiter behind the others."""
        self.waiters[waiter] = None

    def leave(self, waiter: Waiter) -> None:
        """Remove a waiter."""
        del self.waiters[waiter]

    def linger(self, waiter: Waiter) -> None:
        """Add a waiter on many tubes, which stays here between its waits: to enter and leave them all costs more than a job."""
        if self.lingering is None:
            self.lingering = {}
        self.lingering[waiter] = None

    def part(self, waiter: Waiter) -> None:
        """Remove a waiter that has stayed here."""
        if self.lingering is not None:
            self.lingering.pop(waiter, None)
            if not self.lingering:
                self.lingering = None

    def expel(self, waiter: Waiter) -> None:
        """Remove one that waits here, however it came."""
        if waiter in self.waiters:
            self.leave(waiter)
        else:
            self.part(waiter)

    def waited_for(self) -> bool:
        """Tell whether a waiter is here, if only one that lingers."""
        return self.lingering is not None or len(self.waiters) > 0

    def waits(self, waiter: Waiter) -> bool:
        """Tell whether this one waits here now."""
        if waiter.idle:
            return False
        return waiter in self.waiters or (self.lingering is not None and waiter in self.lingering)

    def longest(self) -> Waiter | None:
        """Return who has waited longest."""
        first = next(iter(self.waiters)) if self.waiters else None
        if self.lingering is not None:
            for waiter in self.lingering:
                if not waiter.idle and (first is None or waiter.turn < first.turn):
                    first = waiter
        return first

    def waiting(self) -> int:
        """Count those who wait here now."""
        return len(self.waiters) + sum([not waiter.idle for waiter in self.lingering or ()])


class TubeSizes:
    """The sums of a tube's body sizes.

    Attributes:
        raw: Bytes as they were put.
        stored: Bytes as they are stored.
        skipped: Bytes of the bodies that compression does not make smaller.
    """

    __slots__ = ("raw", "skipped", "stored")

    def __init__(self, raw: int = 0, stored: int = 0, skipped: int = 0) -> None:
        self.raw: int = raw
        self.stored: int = stored
        self.skipped: int = skipped


class TubeUse:
    """How processes other than this one use a tube, added up.

    Attributes:
        using, watching, waiting: How many connections do.
        total_jobs, deletes, pauses: What they counted, those that have ended included.
    """

    __slots__ = ("deletes", "pauses", "total_jobs", "using", "waiting", "watching")

    def __init__(self) -> None:
        self.using: int = 0
        self.watching: int = 0
        self.waiting: int = 0
        self.total_jobs: int = 0
        self.deletes: int = 0
        self.pauses: int = 0


class TubeSight:
    """A tube, as a look at all of them found it.

    Attributes:
        name: Its name.
        counts: Its jobs by state.
        use: How all processes use it, this one included.
        pause: How long the pause in force was to last, in seconds; 0 when there is none.
        paused_until: When that ends, in seconds since the epoch.
        oldest: When the oldest ready job was put that the look saw, in seconds since the epoch; 0 without one.
    """

    __slots__ = ("counts", "name", "oldest", "pause", "paused_until", "use")

    def __init__(self, name: str, counts: Counts, use: TubeUse) -> None:
        self.oldest: float = 0.0
        self.name: str = name
        self.counts: Counts = counts
        self.use: TubeUse = use
        self.pause: float = 0.0
        self.paused_until: float = 0.0
