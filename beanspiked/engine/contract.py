"""What a tube engine is: the contract that every engine fulfils, and the jobs and tubes it speaks of.

An engine answers at once where it can. A change that a store must take first returns a `Later`; None means that it is done. Changes
become visible when they are done, and a job on its way between two states belongs to nobody else until then.
"""

from collections import OrderedDict
from typing import Final

from mypy_extensions import mypyc_attr

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
    "ReadyListener",
    "Tube",
    "TubeEngine",
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

# How much of a job a look needs: where it is, all but its body, or everything.
PLACE: Final = 0
ENTRY: Final = 1
WHOLE: Final = 2

# What `Details.raw_size` says of a body that is not compressed.
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
    """A job. Only its engine changes it, but for `holder`, `reserve_seq` and, while it is reserved, its place in the holder's queue.

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
        reserve_seq: The holder's own: which of its reserves got it.
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
        "reserve_seq",
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
        self.state: int = READY
        self.reserves: int = 0
        self.timeouts: int = 0
        self.releases: int = 0
        self.buries: int = 0
        self.kicks: int = 0
        self.holder: Waiter | None = None
        self.reserve_seq: int = 0
        self.moving: Later | None = None
        self.details: Details | None = details
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

    def jobs(self) -> int:
        """Count the jobs in any state."""
        return self.ready + self.delayed + self.reserved + self.buried


@mypyc_attr(allow_interpreted_subclasses=True)
class Waiter(Timed):
    """Somebody in this process who waits for jobs and holds them.

    Attributes:
        wants: How many jobs it takes one after the other, once it is served.
    """

    __slots__ = ("wants",)

    def __init__(self, id: int) -> None:  # noqa: A002 - as its base
        super().__init__(id)
        self.wants: int = 1

    def serve(self, job: Job) -> None:
        """Take a job that was reserved for it, and wait no more."""
        raise NotImplementedError

    def lost(self, job: Job) -> None:
        """A job that this one holds was deleted with its tube, or this process lost it."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Tube(Timed):
    """A tube, as this process knows it.

    Attributes:
        name: Its name.
        using: How many connections here use it.
        watching: How many connections here watch it.
        waiters: Who waits here for a job of it, the longest-waiting first.
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
        self.counts: Counts = Counts()
        self.total_jobs: int = 0
        self.deletes: int = 0
        self.pauses: int = 0
        self.pause: float = 0.0
        self.paused_until: float = 0.0

    def enter(self, waiter: Waiter) -> None:
        """Enter one who waits, behind the others."""
        self.waiters[waiter] = None

    def leave(self, waiter: Waiter) -> None:
        """Take one out who waits no more."""
        del self.waiters[waiter]


class TubeSizes:
    """What the bodies of a tube's jobs take.

    Attributes:
        raw: Their bytes as they were put.
        stored: Their bytes as they are kept.
        skipped: The bytes of those that compression was given up for.
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


@mypyc_attr(allow_interpreted_subclasses=True)
class ReadyListener:
    """Whom an engine tells about jobs."""

    def tube_ready(self, tube: Tube, most: int = ALL) -> None:
        """A tube may have ready jobs now, and somebody waits for them: take at most so many."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class TubeEngine:
    """Where the jobs live.

    Attributes:
        counts: Jobs by state over all tubes.
        listener: Whom to tell when a job becomes ready.
        durable: Whether changes go to a store, so that they can be on their way (`in_flight`).
        shared: Whether other processes change the same jobs. What `find_job`, `peek_next`, `find_tube`, `tubes` and the counts tell is
            then what the last of the `look_...` methods saw, and holds until the end of its callback.
    """

    counts: Counts
    listener: ReadyListener
    durable: bool
    shared: bool = False

    def tube(self, name: str) -> Tube:
        """Find or make a tube; a tube with no job, user or watcher lasts until `forget`."""
        raise NotImplementedError

    def find_tube(self, name: str) -> Tube | None:
        """Find a tube."""
        raise NotImplementedError

    def forget(self, tube: Tube) -> None:
        """Drop a tube if nothing refers to it any more; `default` stays."""
        raise NotImplementedError

    def tubes(self) -> list[Tube]:
        """List all tubes in beanstalkd's order: as made, but a removed one's place is taken by the last."""
        raise NotImplementedError

    def look_job(self, job_id: int, need: int = WHOLE) -> Later | None:
        """Learn what `find_job` tells; None when it is known here.

        Fails with StoreFailed, as do all looks; also if what is needed of the job (PLACE, ENTRY or WHOLE) is lost or damaged.
        """
        return None

    def look_next(self, tube: Tube, state: int) -> Later | None:
        """Learn what `peek_next` tells."""
        return None

    def look_tube(self, name: str) -> Later | None:
        """Learn what `find_tube`, the tube's counts and `elsewhere` tell."""
        return None

    def look_all(self) -> Later | None:
        """Learn what `tubes` and the engine's counts tell."""
        return None

    def look_sizes(self, tube: Tube) -> Later | None:
        """Learn what `sizes` tells."""
        return None

    def look_found(self, tube: Tube, metadata: str) -> Later | None:
        """Learn what `find` tells."""
        return None

    def elsewhere(self, tube: Tube) -> TubeUse | None:
        """Return how other processes use a tube; None when there are none."""
        return None

    def seek(self, waiter: Waiter, tubes: list[Tube], patient: bool) -> Later | None:
        """Look for a ready job for one who has entered the tubes and found none with `take`.

        Done when none is there or somebody else got it; the listener is told before that if one was found. None means that there is none.
        A patient one will wait anyhow.
        """
        return None

    def new_id(self) -> int:
        """Number the next job, when its put line was read. A shared engine gives the job's place; its id is known when it is stored."""
        raise NotImplementedError

    def put(
        self,
        tube: Tube,
        job_id: int,
        pri: int,
        delay: float,
        ttr: float,
        body: bytes,
        details: Details | None = None,
    ) -> Later | None:
        """Add a job under a number from `new_id`; its outcome's `value` is its id. Fails with StoreFull or StoreFailed.

        Who gives details says with them whether the body is compressed; else the engine may compress it.
        """
        raise NotImplementedError

    def take(self, tubes: list[Tube]) -> Job | None:
        """Reserve the most urgent ready job, by priority then id, over these tubes but the paused ones."""
        raise NotImplementedError

    def take_job(self, job: Job) -> Later | None:
        """Reserve a job that is ready, delayed or buried. Fails with StoreFailed or JobGone."""
        raise NotImplementedError

    def find_job(self, job_id: int) -> Job | None:
        """Find a job in any state."""
        raise NotImplementedError

    def in_flight(self, job_id: int) -> Later | None:
        """Return what ends with the change of this job that is on its way to the store, if any; a shared engine fails it in the end."""
        raise NotImplementedError

    def peek_next(self, tube: Tube, state: int) -> Job | None:
        """Find the job that would leave READY, DELAYED or BURIED next."""
        raise NotImplementedError

    def delete(self, job: Job) -> Later | None:
        """Remove a job that the caller holds or that nobody does. Fails with StoreFull, StoreFailed or JobGone."""
        raise NotImplementedError

    def release(self, job: Job, pri: int, delay: float) -> Later | None:
        """Put a held job back, its retries and whether it failed as its details say by now.

        Fails with StoreFull or StoreFailed; it is then still the caller's. Or with JobGone.
        """
        raise NotImplementedError

    def bury(self, job: Job, pri: int, reason: str = "") -> Later | None:
        """Set a held job aside. Fails as `release` does."""
        raise NotImplementedError

    def give_back(self, job: Job, timed_out: bool) -> None:
        """Make a held job ready as it was: its holder's time is up, or its holder is gone."""
        raise NotImplementedError

    def kick(self, tube: Tube, bound: int) -> tuple[int, Later | None]:
        """Make up to `bound` buried jobs ready, oldest first; if none is buried, delayed ones, soonest first.

        Returns their number, or -1 when the outcome's `value` tells it.
        """
        raise NotImplementedError

    def kick_job(self, job: Job) -> Later | None:
        """Make a buried or delayed job ready. Fails with StoreFull, StoreFailed or JobGone."""
        raise NotImplementedError

    def pause(self, tube: Tube, seconds: float) -> Later | None:
        """Keep a tube's jobs from being taken for a time; 0 ends a pause. Fails with StoreFull or StoreFailed."""
        raise NotImplementedError

    def update(self, job: Job, body: bytes, raw_size: int = PLAIN) -> Later | None:
        """Replace the body of a held job; `raw_size` as in Details. Fails with StoreFull or StoreFailed; it is then unchanged."""
        raise NotImplementedError

    def find(self, tube: Tube, metadata: str) -> list[int]:
        """List the ids of the tube's jobs, buried ones left out, that were put with this metadata."""
        raise NotImplementedError

    def sizes(self, tube: Tube) -> TubeSizes:
        """Add up the sizes of a tube's bodies."""
        raise NotImplementedError

    def delete_tube(self, tube: Tube) -> Later | None:
        """Delete all jobs of a tube, reserved ones included, but those on their way. Fails with StoreFull or StoreFailed."""
        raise NotImplementedError

    def flush(self) -> None:
        """Send on what was asked for in this turn of the event loop."""

    def journal_stats(self) -> tuple[int, int]:
        """Return the number of journal files and of records written by this process."""
        return 0, 0

    def close(self) -> Later | None:
        """Finish what is on its way and let go of the store."""
        return None
