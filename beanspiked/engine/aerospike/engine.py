"""The tube engine on a shared store: any number of front-ends, the same tubes, and nothing in any of them that could not be lost.

Every command is one operation on one segment (`committer.py`); what a front-end knows of the others' doings are hints that cost an
operation when they are stale, never a job. Commands that only look are in `looks.py`; whatever has a state has a class and a module of
its own, and comes together here.
"""

import asyncio
import logging
import random
import secrets
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, cast

from beanspiked.engine.aerospike.cluster.links import NONCE_SIZE
from beanspiked.engine.aerospike.cluster.membership import Membership
from beanspiked.engine.aerospike.cluster.network import Apart, Network
from beanspiked.engine.aerospike.cluster.news import News
from beanspiked.engine.aerospike.cluster.session import Session
from beanspiked.engine.aerospike.queries import looks
from beanspiked.engine.aerospike.segment.codec import FORMATS, Formats
from beanspiked.engine.aerospike.segment.committer import Committer
from beanspiked.engine.aerospike.segment.jobs import ANSWER_WITHIN, SharedJob, Steal
from beanspiked.engine.aerospike.store.formats import SetAside
from beanspiked.engine.aerospike.store.lister import Lister
from beanspiked.engine.aerospike.store.seam import (
    BURIED,
    DELAYED,
    READY,
    Damaged,
    Fenced,
    Refused,
    Segment,
    StoreError,
)
from beanspiked.engine.aerospike.tubes.around import Around
from beanspiked.engine.aerospike.tubes.due import Timetable
from beanspiked.engine.aerospike.tubes.held import Holdings
from beanspiked.engine.aerospike.tubes.leftovers import Leftovers
from beanspiked.engine.aerospike.tubes.puts import Puts
from beanspiked.engine.aerospike.tubes.registry import Registry
from beanspiked.engine.aerospike.tubes.retirement import Retirement
from beanspiked.engine.aerospike.tubes.takes import Takes
from beanspiked.engine.aerospike.tubes.tube import SharedTube
from beanspiked.engine.aerospike.tubes.view import Scout
from beanspiked.engine.contract import BURIED as IS_BURIED
from beanspiked.engine.contract import DELAYED as IS_DELAYED
from beanspiked.engine.contract import (
    PLAIN,
    WHOLE,
    Counts,
    Details,
    Job,
    ReadyListener,
    Tube,
    TubeEngine,
    TubeSizes,
    TubeUse,
    Waiter,
)
from beanspiked.engine.errors import EngineError, JobGone, OutcomeUnknown, StoreFailed
from beanspiked.engine.later import Later
from beanspiked.engine.timers import Timers

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore

__all__ = ["SharedEngine"]

logger = logging.getLogger(__name__)

# Pauses between tries of the same operation, in seconds: the first and the longest.
TRY_AGAIN_AFTER: Final = 0.02
TRY_AGAIN_LATER: Final = 0.5
# How long the end waits for what is on its way to segments, in seconds: one of them may stay busy.
REST_WITHIN: Final = 2.0


class Asked(Later):
    """A command on its way that reads or changes what is not held here.

    Attributes:
        found: The job that it looked for, or None.
        ids: The ids of the jobs that it looked for.
        sizes: What it summed up.
        names: The names of the tubes that it found.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: SharedJob | None = None
        self.ids: list[int] = []
        self.sizes: TubeSizes = TubeSizes()
        self.names: list[str] = []


class SharedEngine(TubeEngine):
    """Tubes whose jobs live in a store that other processes share.

    Args:
        timers: Where delays and pauses wait, and the clock.
        listener: Whom to tell when a job was taken for somebody who waits.
        store: The store.
        turn: What to call when something has happened outside of a turn of the event loop that the caller knows of.
        monotonic: A clock in seconds that goes on while the machine sleeps.
        chance: What makes the pauses between tries differ.
        network: What links to other front-ends are made with; without one they read each other's records.
        formats: The formats of jobs that this front-end knows; as new as those of records that the store does.

    Attributes:
        unread: Jobs of newer formats that were met.
        membership, news: What it knows of other front-ends, and what it hears from them.
        around: What segments need of it.
        lister: What enters segments in directories, and takes them out.
        registry: Its tubes.
        puts: How jobs come into segments.
        takes: Who waits for jobs, and who gets which.
        holdings: The jobs held here, and how they leave.
        scout: What looks at what others did.
        timetable: What makes due jobs ready, and keeps pauses.
        retirement: What lets segments die.
        leftovers: What finishes what others have left behind.
        closing: Whether it is about to end.
        running: Segments with an operation in flight.
        aside: Segments that do not answer, which no jobs are asked of for now.
        gathering: How many of them wait for what the sockets bring in this pass of the event loop.
    """

    def __init__(
        self,
        timers: Timers,
        listener: ReadyListener,
        store: "SegmentStore",
        turn: Callable[[], None],
        monotonic: Callable[[], float],
        chance: random.Random | None = None,
        network: Network | None = None,
        formats: Formats = FORMATS,
    ) -> None:
        self.formats: Formats = formats
        self.unread: SetAside = SetAside()
        self.counts: Counts = Counts()
        self.listener: ReadyListener = listener
        self.durable: bool = True
        self.shared: bool = True
        self.store: SegmentStore = store
        self.membership: Membership = Membership(self, store, monotonic)
        self.lister: Lister = Lister(store)
        self.around: Around = Around(self)
        self.registry: Registry = Registry(self, store, timers)
        self.puts: Puts = Puts(self, store, timers.clock)
        self.takes: Takes = Takes(self, timers.clock)
        self.holdings: Holdings = Holdings(self, timers.clock)
        self.scout: Scout = Scout(self, store, timers.clock)
        links = network or Apart()
        self.news: News = News(
            self.scout, store, links, self.spawn_lasting, monotonic, lambda: secrets.token_bytes(NONCE_SIZE)
        )
        self.timetable: Timetable = Timetable(self, store, timers)
        self.retirement: Retirement = Retirement(self, store)
        self.leftovers: Leftovers = Leftovers(self, store)
        self.closing: bool = False
        self._turn: Callable[[], None] = turn
        self._clock = timers.clock
        self._chance = chance or random.Random()  # noqa: S311 - spreads retries
        self.running: dict[Committer, None] = {}
        self.suspended: dict[Committer, None] = {}
        self.gathering: int = 0
        self._awake: dict[Committer, None] = {}
        # Who waits for the change of a job that is on its way, and until when.
        self._waits: dict[Later, tuple[SharedJob, float]] = {}
        self._step = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        # Those of them that only end with this front-end.
        self._lasting: set[asyncio.Task[Any]] = set()
        self._answer: Asked | None = None

    def start(self) -> None:
        """Begin; needs a running event loop."""
        for work in (self.membership.run, self.membership.watch, self.news.read, self.news.mesh.pulse):
            self.spawn_lasting(self._keep(work))

    async def _keep(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do something for as long as this front-end serves: without its heartbeat, a bug once would be an outage for ever."""
        while not self.closing:
            try:
                await work()
            except Exception as bug:
                logger.error("internal error; going on", exc_info=bug)
            else:
                continue
            await asyncio.sleep(1.0)

    # --- plumbing

    def turn_over(self) -> None:
        """Something became known: let sessions go on, and send on what they ask for."""
        # The others hear of it before anybody learns here that it was done.
        self.news.flush()
        self._turn()

    def now(self) -> float:
        """Return this process's time, in seconds since the epoch."""
        return self._clock.now()

    def step(self) -> int:
        """Number one more moment, to tell which of two things was known first."""
        self._step += 1
        return self._step

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run a coroutine beside everything else."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    def spawn_lasting(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine beside everything else that no command waits for, until this front-end ends."""
        task = self.spawn(coroutine)
        self._lasting.add(task)
        task.add_done_callback(self._lasting.discard)

    def _reap(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("internal error", exc_info=task.exception())

    async def pause_between_tries(self, failing_since: float = 0.0) -> None:
        """Wait a little, never twice the same; longer the longer it has failed, given since when."""
        failing = self.now() - failing_since if failing_since else 0.0
        await asyncio.sleep(min(TRY_AGAIN_AFTER + failing / 5, TRY_AGAIN_LATER) * (0.5 + self._chance.random()))

    def busy(self) -> list[Committer]:
        """List the segments with an operation in flight, or one that is about to begin."""
        return [*self.running, *self._awake]

    def wake(self, committer: Committer) -> None:
        """Have a segment's operation begin at the end of this turn."""
        self._awake[committer] = None

    def flush(self) -> None:
        """Send on what was asked for in this turn of the event loop, unless more comes in the same pass: then it goes along with that."""
        if not self.gathering:
            self.send_on()

    def send_on(self) -> None:
        """Send on what was asked for."""
        self.takes.request_jobs()
        if self._awake:
            awake = self._awake
            self._awake = {}
            for committer in awake:
                committer.start()

    async def try_for_a_while(self, operation: Callable[[], Coroutine[Any, Any, Any]], *final: type[StoreError]) -> Any:
        """Repeat an operation that may be repeated. Raises StoreFailed after a while, and what is not worth another try."""
        until = self.now() + ANSWER_WITHIN
        while True:
            try:
                return await operation()
            except (Fenced, Refused, Damaged):
                raise
            except StoreError as error:
                if isinstance(error, final):
                    raise
                if self.now() >= until:
                    raise StoreFailed(str(error)) from error
            # Not before the error is over with: what compiled code waits for in an `except` is in the context of all that fails meanwhile.
            await self.pause_between_tries()

    async def reading_segment(self, number: int, session: Session) -> Segment | None:
        """Read a segment, however long it takes while a session lasts, and for a while after it; None where it is gone.

        Raises StoreError when it cannot be known what is there.
        """
        until = 0.0
        while True:
            try:
                return await self.store.read(number)
            except Damaged:
                raise
            except StoreError:
                if session.over and until == 0.0:
                    until = self.now() + ANSWER_WITHIN
                if session.over and self.now() >= until:
                    raise
            await self.pause_between_tries()

    async def failure(self, work: Callable[[], Coroutine[Any, Any, None]]) -> EngineError | None:
        """Do something that a command waits for; return what the command is told if it fails, for whatever reason."""
        try:
            await work()
        except EngineError as error:
            return error
        except Exception as bug:
            logger.error("internal error", exc_info=bug)
            return StoreFailed("internal error")
        return None

    # --- tubes

    def tube(self, name: str) -> SharedTube:
        """Find or make a tube."""
        return self.registry.tube(name)

    def find_tube(self, name: str) -> Tube | None:
        """Find a tube that is used here, or that was found with the last look."""
        return self.registry.find_tube(name)

    def forget(self, tube: Tube) -> None:
        """A tube that nobody uses, and that has no job, begins anew: without its counters and its pause."""
        self.registry.forget(cast(SharedTube, tube))

    def tubes(self) -> list[Tube]:
        """List the tubes that exist as of the last look: those used here in their order, then the others by age."""
        return self.registry.tubes()

    def elsewhere(self, tube: Tube) -> TubeUse | None:
        """Return how other front-ends use a tube, as of the last look."""
        return cast(SharedTube, tube).use

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

    # --- jobs

    def find_job(self, job_id: int) -> Job | None:
        """Find a job that is held here, or that was found with the last look."""
        job = self.holdings.jobs.get(job_id)
        if job is not None:
            return job if self.membership.alive() else None
        found = None if self._answer is None else self._answer.found
        return found if found is not None and found.id == job_id else None

    def in_flight(self, job_id: int) -> Later | None:
        """Return the end of the change of a job held here that is on its way; it fails if its segment does not answer."""
        job = self.holdings.jobs.get(job_id)
        if job is None or job.moving is None:
            return None
        wait = Later()
        self._waits[wait] = (job, self.now() + ANSWER_WITHIN)
        job.moving.then(lambda _: self._end_wait(wait, None))
        return wait

    def _end_wait(self, wait: Later, error: EngineError | None) -> None:
        if self._waits.pop(wait, None) is not None:
            wait.settle(error)

    def look_job(self, job_id: int, need: int = WHOLE) -> Later | None:
        """Read a job that is not held here."""
        if job_id in self.holdings.jobs:
            return None
        return self._ask(lambda: looks.job(self, job_id, need))

    def look_next(self, tube: Tube, state: int) -> Later | None:
        """Read the job that would leave a state next."""
        return self._ask(lambda: looks.next_job(self, cast(SharedTube, tube), state))

    def look_tube(self, name: str) -> Later | None:
        """Count a tube's jobs."""
        return self._ask(lambda: looks.tube(self, name))

    def look_all(self) -> Later | None:
        """Count all jobs."""
        return self._ask(lambda: looks.everything(self))

    def look_names(self) -> Later | None:
        """Find all tubes."""
        return self._ask(lambda: looks.names(self))

    def tube_names(self) -> list[str]:
        """Return the names that the last look found."""
        return [] if self._answer is None else self._answer.names

    def look_sizes(self, tube: Tube) -> Later | None:
        """Add up the sizes of a tube's bodies."""
        return self._ask(lambda: looks.sizes(self, cast(SharedTube, tube)))

    def look_found(self, tube: Tube, metadata: str) -> Later | None:
        """Find a tube's jobs by their metadata."""
        return self._ask(lambda: looks.find(self, cast(SharedTube, tube), metadata))

    def peek_next(self, tube: Tube, state: int) -> Job | None:  # noqa: ARG002 - it was looked for before
        """Return what the last look found."""
        return None if self._answer is None else self._answer.found

    def _ask(self, work: "Callable[[], Coroutine[Any, Any, object]]") -> Later:
        """Have a command done that reads or changes what is not held here."""
        asked = Asked()
        self.spawn(self._do(work, asked))
        return asked

    async def _do(self, work: "Callable[[], Coroutine[Any, Any, object]]", asked: Asked) -> None:
        async def do() -> None:
            # Without a session the server's time is not known.
            await self.membership.have_session(ANSWER_WITHIN)
            result = await work()
            if isinstance(result, SharedJob):
                asked.found = result
            elif isinstance(result, int):
                asked.value = result
            elif isinstance(result, TubeSizes):
                asked.sizes = result
            elif isinstance(result, list):
                asked.ids = result
            elif isinstance(result, tuple):
                asked.names = list(result)

        try:
            error = await self.failure(do)
        except asyncio.CancelledError:
            asked.settle(OutcomeUnknown("closed while it was on its way"))
            raise
        # Known until the end of the callback (TubeEngine.shared).
        self._answer = asked
        asked.settle(error)
        self._answer = None
        self.turn_over()

    def take_job(self, job: Job) -> Later | None:
        """Reserve a job that was looked at."""
        looked = cast(SharedJob, job)
        steal = Steal(looked, queue_of(looked), self.now() + ANSWER_WITHIN)
        cast(SharedTube, looked.tube).committer_of(looked.number).steal(steal)
        return steal

    def delete(self, job: Job) -> Later | None:
        """Remove a job that is held here, or one that was looked at."""
        mine = cast(SharedJob, job)
        if mine.committer is None:
            return self._ask(lambda: looks.delete(self, mine))
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
        return -1, self._ask(lambda: looks.kick(self, cast(SharedTube, tube), bound))

    def kick_job(self, job: Job) -> Later | None:
        """Make a buried or delayed job ready."""
        return self._ask(lambda: looks.kick_job(self, cast(SharedJob, job)))

    def pause(self, tube: Tube, seconds: float) -> Later | None:
        """Keep a tube's jobs from being taken for a time."""
        tube.pauses += 1
        return self._ask(lambda: looks.pause(self, cast(SharedTube, tube), seconds))

    def update(self, job: Job, body: bytes, raw_size: int = PLAIN) -> Later | None:
        """Replace the body of a held job."""
        return self.holdings.update(cast(SharedJob, job), body, raw_size)

    def find(self, tube: Tube, metadata: str) -> list[int]:  # noqa: ARG002 - they were looked for before
        """Return what the last look found."""
        return [] if self._answer is None else self._answer.ids

    def sizes(self, tube: Tube) -> TubeSizes:  # noqa: ARG002 - likewise
        """Return what the last look summed up."""
        return TubeSizes() if self._answer is None else self._answer.sizes

    def delete_tube(self, tube: Tube) -> Later | None:
        """Delete all jobs of a tube, reserved ones included."""
        return self._ask(lambda: looks.delete_tube(self, cast(SharedTube, tube)))

    # --- the session

    def session_began(self) -> None:
        """There is a session: what waits for it goes on."""
        for tube in self.registry.known_tubes():
            tube.live = False
            for committer in list(tube.committers.values()):
                if committer.session.over:
                    committer.abandon(JobGone("the session is over"))
            if tube.arriving:
                self.puts.place(tube)
            if tube.waiters:
                self.scout.refresh(tube)
        # Without a session no news were read, whoever waited.
        self.news.wake()
        self.turn_over()

    def session_over(self) -> None:
        """The session is over: every held job is lost, and what was not sent goes with the next one."""
        self.news.end()
        self.puts.forget_numbers()
        for tube in self.registry.known_tubes():
            tube.live = False
            tube.open = None
            tube.granted.clear()
            tube.notes = {}
            for seek in tube.seeks:
                # What was noted has to be looked for anew.
                seek.looked = False
            for committer in list(tube.committers.values()):
                committer.abandon(JobGone("the session is over"))
            tube.committers = {}
            self.takes.advance_seeks(tube)
        self.turn_over()

    def tick(self) -> None:
        """Once a second: fail what waits for a store that does not answer, and look at tubes that are waited for."""
        now = self._clock.now()
        for committer in list(self.running):
            committer.expire(now)
        self.takes.expire(now)
        for committer in list(self.suspended):
            committer.resume(now)
        for wait, (job, until) in list(self._waits.items()):
            if until <= now and job.committer is not None and job.committer.fails():
                self._end_wait(wait, StoreFailed("the job is on its way, and the store does not answer"))
        if self.membership.session.over:
            self.puts.expire()
        else:
            self.scout.recheck(now)
        self.news.tick()
        self.turn_over()

    def troubles(self) -> list[str]:
        """Say why changes fail now."""
        if self.membership.session.over:
            return ["there is no session with the store"]
        return [] if self.membership.reachable else ["the store does not answer"]

    def close(self) -> Later | None:
        """Give everything back and leave."""
        self.closing = True
        later = Later()
        self.spawn(self._close(later))
        return later

    async def _let_go(self) -> None:
        """Let what commands wait for come to its end, within the time that a store has to answer; then end it."""
        this = asyncio.current_task()
        lasting = self._lasting
        doing = [task for task in self._tasks if task is not this and task not in lasting]
        if doing:
            await asyncio.wait(doing, timeout=ANSWER_WITHIN)
        left = [task for task in self._tasks if task is not this]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=ANSWER_WITHIN)
        for tube in self.registry.known_tubes():
            self.puts.fail_all(tube, StoreFailed("closed before it was sent"))

    async def _come_to_rest(self) -> None:
        """Wait until nothing is on its way to any segment."""
        for tube in self.registry.known_tubes():
            for committer in list(tube.committers.values()):
                while committer.running:
                    await committer.turn()

    async def _close(self, later: Later) -> None:
        try:
            await asyncio.wait_for(self._come_to_rest(), REST_WITHIN)
        except TimeoutError:
            logger.warning("segments stay busy; what is held in them becomes ready with the end of the session")
        try:
            await self.membership.end()
        except EngineError as error:
            logger.warning("what is held becomes ready when the others notice: %s", error)
        except Exception as bug:
            # Whoever waits for the end must not wait for ever.
            logger.error("internal error", exc_info=bug)
        await self._let_go()
        self.news.mesh.close()
        await self.store.leave()
        later.settle(None)


def queue_of(job: SharedJob) -> str:
    """Return the queue that a job stands in which is not reserved."""
    return BURIED if job.state == IS_BURIED else DELAYED if job.state == IS_DELAYED else READY
