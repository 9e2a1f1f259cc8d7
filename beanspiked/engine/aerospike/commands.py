"""The commands of a shared engine: each goes to the part that does it."""

from functools import partial
from typing import cast

from beanspiked.engine.aerospike.cluster.membership import Membership
from beanspiked.engine.aerospike.queries.asking import Asking
from beanspiked.engine.aerospike.queries.bulk import BulkChanges
from beanspiked.engine.aerospike.queries.census import Census
from beanspiked.engine.aerospike.queries.changes import Changes
from beanspiked.engine.aerospike.queries.finder import QUEUES, Finder
from beanspiked.engine.aerospike.queries.kicks import Kicks
from beanspiked.engine.aerospike.queries.listing import Lists, parse_place
from beanspiked.engine.aerospike.segment.jobs import SharedJob, Steal
from beanspiked.engine.aerospike.store.tasks import ANSWER_WITHIN
from beanspiked.engine.aerospike.tubes.forgetting import Forgetting
from beanspiked.engine.aerospike.tubes.held import Holdings
from beanspiked.engine.aerospike.tubes.puts import Puts
from beanspiked.engine.aerospike.tubes.registry import Registry
from beanspiked.engine.aerospike.tubes.takes import Takes
from beanspiked.engine.aerospike.tubes.tube import SharedTube
from beanspiked.engine.contract import (
    PLAIN,
    WHOLE,
    Answer,
    Bulk,
    Details,
    Filter,
    Job,
    Listing,
    Tube,
    TubeEngine,
    Waiter,
)
from beanspiked.engine.later import Later
from beanspiked.engine.timers import Clock

__all__ = ["Commands"]


class Commands(TubeEngine):
    """What a shared engine does for commands; whoever makes its parts is a subclass.

    Args:
        clock: This process's time.

    Attributes:
        membership: The session, and the other front-ends.
        registry: The tubes that are known here.
        forgetting: What lets tubes begin anew.
        puts: How jobs come into segments.
        takes: Who waits for jobs, and who gets which.
        holdings: The jobs held here, and how they leave.
        asking: What has the following do what a command asks for.
        finder: What looks for jobs.
        census: What counts jobs and finds tubes.
        kicks: What makes buried and delayed jobs ready.
        changes: What deletes jobs that nobody holds, and deletes and pauses tubes.
        lists: What lists and counts jobs that match.
        bulk: What changes all jobs that match.
    """

    membership: Membership
    registry: Registry
    forgetting: Forgetting
    puts: Puts
    takes: Takes
    holdings: Holdings
    asking: Asking
    finder: Finder
    census: Census
    kicks: Kicks
    changes: Changes
    lists: Lists
    bulk: BulkChanges

    def __init__(self, clock: Clock) -> None:
        self.durable: bool = True
        self.shared: bool = True
        self._clock = clock

    # --- tubes

    def tube(self, name: str) -> SharedTube:
        """Find or make a tube."""
        return self.registry.tube(name)

    def find_tube(self, name: str) -> Tube | None:
        """Find a tube that is used here."""
        return self.registry.find_tube(name)

    def forget(self, tube: Tube) -> None:
        """A tube that nobody uses, and that has no job, begins anew: without its counters and its pause."""
        self.forgetting.forget(cast(SharedTube, tube))

    # --- puts

    def new_id(self) -> int:
        """Return the place of the next job: its id is known when it is stored."""
        return self.membership.clock.ticket()

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
        """Add a job."""
        return self.puts.put(cast(SharedTube, tube), job_id, pri, delay, ttr, body, details)

    # --- takes

    def take(self, tubes: list[Tube]) -> Job | None:
        """Hand over a job that was taken for somebody who waits."""
        return self.takes.take(tubes)

    def seek(self, waiter: Waiter, tubes: list[Tube], patient: bool) -> Later | None:
        """Look for a job for one who waits."""
        return self.takes.seek(waiter, tubes, patient)

    def expects(self, waiter: Waiter, tubes: list[Tube]) -> bool:
        """Tell whether a job is on its way to one who waits, or due and not ready yet."""
        return self.takes.expects(waiter, cast("list[SharedTube]", tubes))

    # --- jobs

    def find_job(self, job_id: int) -> Job | None:
        """Find a job that is held here."""
        job = self.holdings.jobs.get(job_id)
        return job if job is not None and self.membership.alive() else None

    def in_flight(self, job_id: int) -> Later | None:
        """Return the end of the change of a job held here that is on its way; it fails if its segment does not answer."""
        return self.holdings.in_flight(job_id)

    def take_job(self, job: Job) -> Later | None:
        """Reserve a job that was looked at."""
        looked = cast(SharedJob, job)
        steal = Steal(looked, QUEUES[looked.state], self._clock.now() + ANSWER_WITHIN)
        cast(SharedTube, looked.tube).committer_of(looked.number).steal(steal)
        return steal

    def delete(self, job: Job) -> Later | None:
        """Remove a job that is held here, or one that was looked at."""
        mine = cast(SharedJob, job)
        if mine.committer is None:
            return self.asking.ask(lambda _: self.changes.delete(mine))
        return self.holdings.delete(mine)

    def release(self, job: Job, pri: int, delay: float) -> Later | None:
        """Put a held job back."""
        return self.holdings.release(cast(SharedJob, job), pri, delay)

    def bury(self, job: Job, pri: int, reason: str = "") -> Later | None:
        """Set a held job aside."""
        return self.holdings.bury(cast(SharedJob, job), pri, reason)

    def give_back(self, job: Job, timed_out: bool) -> None:
        """Make a held job ready as it was."""
        self.holdings.give_back(cast(SharedJob, job), timed_out)

    def kick(self, tube: Tube, bound: int) -> tuple[int, Later | None]:
        """Make buried jobs ready, oldest first; if none is buried, delayed ones, soonest first."""
        return -1, self.asking.ask(lambda answer: self.kicks.kick(answer, cast(SharedTube, tube), bound))

    def kick_job(self, job: Job) -> Later | None:
        """Make a buried or delayed job ready."""
        return self.asking.ask(lambda _: self.kicks.kick_job(cast(SharedJob, job)))

    def pause(self, tube: Tube, seconds: float) -> Later | None:
        """Keep a tube's jobs from being taken for a time."""
        tube.pauses += 1
        return self.asking.ask(lambda _: self.changes.pause(cast(SharedTube, tube), seconds))

    def update(self, job: Job, body: bytes, raw_size: int = PLAIN) -> Later | None:
        """Replace the body of a held job."""
        return self.holdings.update(cast(SharedJob, job), body, raw_size)

    def delete_tube(self, tube: Tube) -> Later | None:
        """Delete all jobs of a tube, reserved ones included."""
        return self.asking.ask(lambda _: self.changes.delete_tube(cast(SharedTube, tube)))

    # --- jobs that match

    def list_jobs(self, tube: Tube, state: int, wanted: Filter, after: str = "", limit: int = 100) -> Listing:
        """List the first jobs of a state to which a filter applies."""
        place = parse_place(after, limit)
        listing = Listing()
        self.asking.do(lambda: self.lists.page(listing, tube.name, state, wanted, place, limit), listing)
        return listing

    def count_jobs(self, tube: Tube, wanted: Filter) -> Later:
        """Count the jobs of a tube to which a filter applies."""
        return self.asking.ask(lambda answer: self.lists.count(answer, tube.name, wanted))

    def clear(self, tube: Tube, wanted: Filter) -> Bulk:
        """Delete the jobs of a tube to which a filter applies."""
        bulk = Bulk()
        self.asking.do(lambda: self.bulk.clear(bulk, cast(SharedTube, tube), wanted), bulk)
        return bulk

    def move(self, tube: Tube, target: Tube, wanted: Filter) -> Bulk:
        """Move the jobs of a tube to which a filter applies to another one."""
        if target is tube:
            raise ValueError(f"jobs of {tube.name} cannot move to the tube that they are in")
        bulk = Bulk()
        self.asking.do(lambda: self.bulk.move(bulk, cast(SharedTube, tube), cast(SharedTube, target), wanted), bulk)
        return bulk

    def kick_jobs(self, tube: Tube, wanted: Filter) -> Bulk:
        """Make the buried and delayed jobs of a tube ready to which a filter applies."""
        bulk = Bulk()
        self.asking.do(lambda: self.bulk.kick_jobs(bulk, cast(SharedTube, tube), wanted), bulk)
        return bulk

    # --- looks

    def look_job(self, job_id: int, need: int = WHOLE) -> Answer | None:
        """Read a job that is not held here."""
        if self.holdings.tells(job_id, need) is not None:
            return None
        return self.asking.ask(lambda answer: self.finder.by_id(answer, job_id, need))

    def look_next(self, tube: Tube, state: int) -> Answer | None:
        """Read the job that would leave a state next."""
        return self.asking.ask(lambda answer: self.finder.next_job(answer, tube.name, state))

    def look_tube(self, name: str) -> Answer | None:
        """Count a tube's jobs and users."""
        return self.asking.ask(lambda answer: self.census.some([(name, answer)]))

    def look_some(self, names: list[str]) -> list[Answer]:
        """Count the jobs and users of some tubes together. One that does not answer concerns no other."""
        wanted = [(name, Answer()) for name in names]
        together = Later()

        def known(outcome: Later) -> None:
            for name, answer in wanted:
                # Where the whole store is away, another try would only take as long again.
                if outcome.error is None or len(wanted) == 1 or not self.membership.reachable:
                    answer.settle(outcome.error)
                else:
                    self.asking.do(partial(self.census.some, [(name, answer)]), answer)

        together.then(known)
        self.asking.do(partial(self.census.some, wanted), together)
        return [answer for _, answer in wanted]

    def look_all(self) -> Answer | None:
        """Count all jobs, and find all tubes."""
        return self.asking.ask(self.census.everything)

    def look_tubes(self) -> Answer | None:
        """Count all jobs, and those of each tube."""
        return self.asking.ask(self.census.tubes)

    def look_names(self) -> Answer | None:
        """Find all tubes."""
        return self.asking.ask(self.census.names)

    def find(self, tube: Tube, metadata: str) -> Answer:
        """Find a tube's jobs by their metadata."""
        return self.asking.ask(lambda answer: self.finder.with_metadata(answer, tube.name, metadata))

    def add_up(self, tube: Tube) -> Answer:
        """Add up the sizes of a tube's bodies."""
        return self.asking.ask(lambda answer: self.census.sizes(answer, tube.name))
