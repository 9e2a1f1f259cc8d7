"""What a tube engine is: the contract that every engine fulfils, and the jobs and tubes it speaks of.

An engine answers at once where it can. A change that a store must take first returns a `Later`; None means that it is done. Changes
become visible when they are done, and a job on its way between two states belongs to nobody else until then.
"""

from mypy_extensions import mypyc_attr

from beanspiked.engine.filters import Bulk, Filter, Listing
from beanspiked.engine.histogram import Histogram
from beanspiked.engine.jobs import (
    ALL,
    BURIED,
    DELAYED,
    ENTRY,
    GIVEN_UP,
    PLACE,
    PLAIN,
    READY,
    RESERVED,
    STATE_NAMES,
    WHOLE,
    Counts,
    Details,
    Job,
    Tube,
    TubeSight,
    TubeSizes,
    TubeUse,
    Waiter,
)
from beanspiked.engine.later import Later

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
    "Answer",
    "Bulk",
    "Counts",
    "Details",
    "Filter",
    "Job",
    "JournalStats",
    "Listing",
    "ReadyListener",
    "StoreStats",
    "Tube",
    "TubeEngine",
    "TubeSight",
    "TubeSizes",
    "TubeUse",
    "Waiter",
]


@mypyc_attr(allow_interpreted_subclasses=True)
class ReadyListener:
    """Whom an engine tells about jobs."""

    def tube_ready(self, tube: Tube, most: int = ALL) -> None:
        """A tube may have ready jobs now, and somebody waits for them: take at most so many."""
        raise NotImplementedError

    def alone(self) -> bool:
        """Tell whether one client is served now, so that nobody else waits while it is."""
        return False


class Answer(Later):
    """What a look tells, once it is done.

    Attributes:
        job: The job, or None where there is none.
        tube: The tube, or None where it does not exist.
        others: How other processes use that tube.
        counts: Jobs by state: those of that tube, or all.
        names: The names of all tubes, in the order of `tubes`; of very many on a shared store also some whose last job has just gone.
        tubes: All tubes as they were found, in no particular order.
        ids: The ids of the jobs that were looked for.
        sizes: What the bodies take that were looked at.
    """

    def __init__(self) -> None:
        super().__init__()
        self.job: Job | None = None
        self.tube: Tube | None = None
        self.others: TubeUse = TubeUse()
        self.counts: Counts = Counts()
        self.names: list[str] = []
        self.tubes: list[TubeSight] = []
        self.ids: list[int] = []
        self.sizes: TubeSizes = TubeSizes()


class JournalStats:
    """What a journal has done since this process began.

    Attributes:
        files: How many files it has; 0 without a journal.
        records: Changes that were committed.
        commits: Transactions that were tried.
        commit_seconds: What these took in all.
        syncs: How often it was made sure that all commits are on disk.
        full: Whether puts are refused, since the disk is full.
        distrusted: Whether changes are refused, since earlier ones cannot be synced.
    """

    def __init__(self, files: int = 0) -> None:
        self.files: int = files
        self.records: int = 0
        self.commits: int = 0
        self.commit_seconds: float = 0.0
        self.syncs: int = 0
        self.full: bool = False
        self.distrusted: bool = False


class StoreStats:
    """What a front-end has to do with the store that it shares.

    Attributes:
        calls: How long its calls lasted, by their kind; one carries out many changes.
        outcomes: How many operations of which kind ended how.
        records: How many records of each kind the cluster has, as it told some seconds ago; empty before it has.
        session_age: How long the session in force has lasted, in seconds; 0 without one.
        heartbeat_age: How long ago the store took a heartbeat, in seconds.
        front_ends: How many other front-ends live.
        links: From how many of these news come over a link.
        news_lag: How long the most silent of these has been silent, in seconds; a front-end that lives speaks twice a second.
        leases: How many segments are in use here.
        segments: How many segments are known here.
    """

    def __init__(self) -> None:
        self.calls: dict[str, Histogram] = {}
        self.outcomes: dict[tuple[str, str], int] = {}
        self.records: dict[str, int] = {}
        self.session_age: float = 0.0
        self.heartbeat_age: float = 0.0
        self.front_ends: int = 0
        self.links: int = 0
        self.news_lag: float = 0.0
        self.leases: int = 0
        self.segments: int = 0


@mypyc_attr(allow_interpreted_subclasses=True)
class TubeEngine:
    """Where the jobs live.

    What is known here, `find_job`, `find_tube`, `peek_next`, `tubes` and the counts tell at once. On a shared store a look has to learn it
    first, and its answer tells it.

    Attributes:
        counts: Jobs by state over all tubes; not of a shared engine.
        listener: Whom to tell when a job becomes ready.
        durable: Whether changes go to a store, so that they can be on their way (`in_flight`).
        shared: Whether other processes change the same jobs. `find_job` and `find_tube` then tell what is held and used here, and each
            `look_...` method but `look_job` has an answer.
    """

    counts: Counts
    listener: ReadyListener
    durable: bool
    shared: bool = False

    def tube(self, name: str) -> Tube:
        """Find or make a tube; a tube with no job, user or watcher lasts until `forget`."""
        raise NotImplementedError

    def find_tube(self, name: str) -> Tube | None:
        """Find a tube; on a shared store one that is used here."""
        raise NotImplementedError

    def forget(self, tube: Tube) -> None:
        """Drop a tube if nothing refers to it any more; `default` stays."""
        raise NotImplementedError

    def tubes(self) -> list[Tube]:
        """List all tubes in beanstalkd's order: as made, but a removed one's place is taken by the last."""
        raise NotImplementedError

    def look_job(self, job_id: int, need: int = WHOLE) -> Answer | None:
        """Look for a job: None when `find_job` tells.

        Fails with StoreFailed, as do all looks; also if what is needed of the job (PLACE, ENTRY or WHOLE) is lost or damaged.
        """
        return None

    def look_next(self, tube: Tube, state: int) -> Answer | None:
        """Look for the job that would leave READY, DELAYED or BURIED next: None when `peek_next` tells."""
        return None

    def look_tube(self, name: str) -> Answer | None:
        """Look for a tube, its counts and its users: None when `find_tube` tells."""
        return None

    def look_some(self, names: list[str]) -> list[Answer]:
        """Do as look_tube does for some tubes, together; only asked of an engine that needs looks."""
        raise NotImplementedError

    def look_all(self) -> Answer | None:
        """Count all jobs, and find the names of all tubes: None when `counts` and `tubes` tell."""
        return None

    def look_tubes(self) -> Answer | None:
        """Count all jobs, and tell of each tube its counts, users and pause: None when `counts` and `tubes` tell."""
        return None

    def look_names(self) -> Answer | None:
        """Find the names of all tubes: None when `tubes` tells."""
        return None

    def seek(self, waiter: Waiter, tubes: list[Tube], patient: bool) -> Later | None:
        """Look for a ready job for one who has entered the tubes and found none with `take`.

        Done when none is there or somebody else got it; the listener is told before that if one was found. None means that there is none.
        A patient one will wait anyhow.
        """
        return None

    def expects(self, waiter: Waiter, tubes: list[Tube]) -> bool:
        """Tell whether a job is on its way to one who waits, or due and not ready yet: a `seek` that is not patient waits for it."""
        return False

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

    def oldest_ready(self, tube: Tube) -> Job | None:
        """Find the ready job of a tube that was put first; None also where that is not known, as on a shared store."""
        return None

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

    def find(self, tube: Tube, metadata: str) -> Answer:
        """Look for the ids of the tube's jobs, buried ones left out, that were put with this metadata."""
        raise NotImplementedError

    def add_up(self, tube: Tube) -> Answer:
        """Add up the sizes of a tube's bodies."""
        raise NotImplementedError

    def list_jobs(self, tube: Tube, state: int, wanted: Filter, after: str = "", limit: int = 100) -> Listing:
        """List the first jobs of a state to which a filter applies, its own states apart, in the order of their queue.

        Ready jobs come by priority, delayed ones by due time, buried ones by burial, jobs of equal rank by age, reserved ones by id.
        A job that matches from the beginning to the end is listed, one that does not at the end is left out, and so are those on their
        way to the store.

        Args:
            tube: The tube.
            state: Their state.
            wanted: The filter.
            after: What the page before says; empty for the first page.
            limit: How many at most, up to LIMIT_MAX.

        Raises:
            ValueError: No page says this `after`, or no page has this limit.
        """
        raise NotImplementedError

    def count_jobs(self, tube: Tube, wanted: Filter) -> Later:
        """Count the jobs of a tube to which a filter applies; the outcome's `value` tells."""
        raise NotImplementedError

    def clear(self, tube: Tube, wanted: Filter) -> Bulk:
        """Delete the jobs of a tube to which a filter applies, but none that somebody holds, and no later puts.

        A shared engine begins once it has found the tube's segments, milliseconds after it was asked. Fails with StoreFull or StoreFailed.
        """
        raise NotImplementedError

    def move(self, tube: Tube, target: Tube, wanted: Filter) -> Bulk:
        """Move jobs of a tube to another one: those that `clear` would delete. They keep their state and all that is said of them.

        At every moment, also after a crash, each job is in one of the two tubes. A shared engine gives it another id. Fails with
        StoreFull or StoreFailed.

        Raises:
            ValueError: Both are the same tube.
        """
        raise NotImplementedError

    def kick_jobs(self, tube: Tube, wanted: Filter) -> Bulk:
        """Make the buried and delayed jobs of a tube ready to which a filter applies. Fails with StoreFull or StoreFailed."""
        raise NotImplementedError

    def delete_tube(self, tube: Tube) -> Later | None:
        """Delete all jobs of a tube, reserved ones included, but those on their way. Fails with StoreFull or StoreFailed."""
        raise NotImplementedError

    def gathers(self) -> bool:
        """Tell whether the next `flush` takes so long that more commands should come before it."""
        return False

    def flush(self) -> None:
        """Send on what was asked for in this turn of the event loop."""

    def journal_stats(self) -> JournalStats:
        """Return what the journal has done."""
        return JournalStats()

    def measure(self) -> None:
        """Count from now on what `store_stats` tells of calls."""

    def store_stats(self) -> StoreStats | None:
        """Return what this process has to do with a shared store; None where there is none."""
        return None

    def troubles(self) -> list[str]:
        """Say why changes fail now, each reason in a few words; nothing when they do not."""
        stats = self.journal_stats()
        found = ["the disk is full"] if stats.full else []
        return [*found, "the journal cannot be synced"] if stats.distrusted else found

    def close(self) -> Later | None:
        """Finish what is on its way and let go of the store."""
        return None
