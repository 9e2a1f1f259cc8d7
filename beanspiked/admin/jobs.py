"""Looks and changes of one job, and of the jobs of a tube, over the admin port."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Final

from beanspiked.admin.errors import Conflict, Missing, TooLarge, Unavailable
from beanspiked.engine.contract import BURIED, DELAYED, ENTRY, PLACE, READY, RESERVED, STATE_NAMES, Details, Waiter
from beanspiked.engine.errors import DamagedEntry, EngineError, JobGone
from beanspiked.engine.timers import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from beanspiked.admin.outcomes import Outcomes
    from beanspiked.engine.contract import Job, Tube
    from beanspiked.engine.later import Later

__all__ = ["UNHELD", "Jobs"]

# How much of a body is shown, and the largest body of a put, in bytes.
SHOWN_BYTES: Final = 65536
MAX_PUT: Final = 1 << 20
# The states of jobs that nobody holds.
UNHELD: Final = {"ready": READY, "delayed": DELAYED, "buried": BURIED}
# The states of jobs that can be buried.
UNBURIED: Final = (READY, DELAYED, RESERVED)


class Taken(Waiter):
    """The holder of a job between two steps of one change.

    Attributes:
        job: The job, while it is held.
        tube: Its tube's name.
        state, due, reason: Its state before, when it was due, and why it was buried.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.job: Job | None = None
        self.tube = ""
        self.state = READY
        self.due = 0.0
        self.reason = ""

    def seen(self, job: Job) -> None:
        """Note the state of a job before it is taken."""
        self.state, self.due = job.state, job.key
        self.reason = "" if job.details is None else job.details.reason

    def take(self, job: Job) -> None:
        """Hold a job that was just reserved."""
        job.holder = self
        self.job = job

    def lost(self, job: Job) -> None:
        """Stop holding the job: its change goes on, it was deleted with its tube, or this process lost it."""
        job.holder = None
        self.job = None


class Jobs:
    """Looks at jobs and changes them."""

    def __init__(self, outcomes: Outcomes) -> None:
        self._outcomes = outcomes
        self._broker = outcomes.broker

    # --- looks

    async def next_of(self, tube: str) -> dict[str, object]:
        """Show the next job of a tube in each state but reserved. Raises Missing and EngineError."""
        if not await self._outcomes.tube(tube, lambda found: found is not None):
            raise Missing(f"there is no tube {tube}")
        return {
            name: await self._outcomes.next_job(tube, state, lambda job: None if job is None else self.shown(job))
            for name, state in UNHELD.items()
        }

    async def show(self, job_id: int) -> dict[str, object]:
        """Show a job. Raises Missing and EngineError."""
        return await self._outcomes.job(job_id, lambda job: self.shown(_found(job, job_id)))

    async def body(self, job_id: int) -> bytes:
        """Return a job's whole body. Raises Missing and EngineError."""
        return await self._outcomes.job(job_id, lambda job: _found(job, job_id).raw_body())

    def shown(self, job: Job, most: int = SHOWN_BYTES) -> dict[str, object]:
        """Return a job as the API shows it, with the beginning of its body."""
        now = self._broker.now()
        details = job.details
        timed = job.state in (RESERVED, DELAYED) and job.key < NEVER
        shown: dict[str, object] = {
            "id": job.id,
            "tube": job.tube.name,
            "state": STATE_NAMES[job.state],
            "priority": job.pri,
            "age": round(max(0.0, now - job.born), 3),
            "delay": job.delay,
            "ttr": job.ttr,
            "time_left": round(max(0.0, job.key - now), 3) if timed else None,
            "reserves": job.reserves,
            "timeouts": job.timeouts,
            "releases": job.releases,
            "buries": job.buries,
            "kicks": job.kicks,
            "reason": "" if details is None else details.reason,
            "metadata": "" if details is None else details.metadata,
            "damage": "",
        }
        try:
            body = job.raw_body()
        except DamagedEntry as error:
            return {**shown, "body": "", "size": len(job.body), "damage": str(error)}
        return {**shown, "body": b64encode(body[:most]).decode(), "size": len(body)}

    # --- changes of one job; each raises Missing, Conflict and EngineError

    async def delete(self, job_id: int) -> str:
        """Delete a job in any state; return its tube's name."""
        return await self._change(job_id, PLACE, self._broker.engine.delete)

    async def kick(self, job_id: int) -> str:
        """Make a buried or delayed job ready; return its tube's name."""
        return await self._change(job_id, ENTRY, self._broker.engine.kick_job, BURIED, DELAYED)

    async def release(self, job_id: int) -> str:
        """Make a job ready that a connection has reserved; return its tube's name."""

        def give_back(job: Job) -> None:
            self._broker.engine.give_back(job, timed_out=False)

        return await self._change(job_id, PLACE, give_back, RESERVED)

    async def bury(self, job_id: int, reason: str, states: Iterable[int] = UNBURIED) -> str:
        """Bury a job in one of these states, which is not buried; return its tube's name."""
        taken = await self._take(job_id, *states)
        return await self._put_back(taken, lambda job: self._broker.engine.bury(job, job.pri, reason))

    async def set_priority(self, job_id: int, priority: int, states: Iterable[int] = UNHELD.values()) -> str:
        """Give a job that nobody holds another priority; return its tube's name. It stays ready, delayed or buried."""
        engine = self._broker.engine
        taken = await self._take(job_id, *states)

        def back(job: Job) -> Later | None:
            if taken.state == BURIED:
                return engine.bury(job, priority, taken.reason)
            left = max(0.0, taken.due - self._broker.now()) if taken.state == DELAYED else 0.0
            return engine.release(job, priority, left)

        return await self._put_back(taken, back)

    async def set_delay(self, job_id: int, delay: float, states: Iterable[int] = UNHELD.values()) -> str:
        """Make a job that nobody holds ready after so many seconds; return its tube's name."""
        taken = await self._take(job_id, *states)
        return await self._put_back(taken, lambda job: self._broker.engine.release(job, job.pri, delay))

    async def duplicate(self, job_id: int) -> tuple[str, int]:
        """Put a ready job like this one; return the name of their tube and the new id. Raises Unavailable and TooLarge."""

        def read(job: Job | None) -> tuple[Tube, int, float, bytes, str]:
            job = _found(job, job_id)
            return job.tube, job.pri, job.ttr, job.raw_body(), "" if job.details is None else job.details.metadata

        tube, pri, ttr, body, metadata = await self._outcomes.job(job_id, read)
        return tube.name, await self._put(tube.name, body, pri, 0, ttr, Details(metadata) if metadata else None)

    async def _take(self, job_id: int, *states: int) -> Taken:
        """Take a job in one of these states, even from its holder."""
        engine = self._broker.engine
        taken = Taken(self._broker.timers.new_id())

        def take(job: Job) -> Later | None:
            taken.seen(job)
            later = None if job.state == RESERVED else engine.take_job(job)
            if later is None:
                taken.take(job)
            else:
                later.then(lambda outcome: taken.take(job) if outcome.error is None else None)
            return later

        taken.tube = await self._change(job_id, ENTRY, take, *states)
        if taken.job is None:
            raise JobGone(f"job {job_id} is not there any more")
        return taken

    async def _put_back(self, taken: Taken, change: Callable[[Job], Later | None]) -> str:
        """End the hold of a taken job by a change. If the change fails, make the job ready."""
        job = taken.job
        assert job is not None
        taken.lost(job)
        try:
            await self._outcomes.done(change(job))
        except EngineError:
            self._let_go(job)
            raise
        return taken.tube

    async def _change(self, job_id: int, need: int, change: Callable[[Job], Later | None], *states: int) -> str:
        """Change a job in one of these states, or in any state if none is given."""
        seen: list[Job] = []

        def begin(job: Job | None) -> Later | None:
            job = _found(job, job_id)
            if states and job.state not in states:
                raise Conflict(f"job {job_id} is {STATE_NAMES[job.state]}")
            if job.state == RESERVED:
                if job.holder is None:
                    raise Conflict(f"job {job_id} is reserved elsewhere, and can be changed there")
                job.holder.lost(job)
            seen.append(job)
            return change(job)

        try:
            await self._outcomes.done(await self._outcomes.job(job_id, begin, need))
        except EngineError:
            for job in seen:
                self._let_go(job)
            raise
        return seen[0].tube.name

    def _let_go(self, job: Job) -> None:
        """Make a job ready that was taken from its holder and could not be changed."""
        if job.state == RESERVED and job.holder is None and job.moving is None:
            self._broker.engine.give_back(job, timed_out=False)
            self._outcomes.turn()

    # --- changes of a tube; each raises Missing and EngineError

    async def put(self, tube: str, body: bytes, priority: int, delay: float, ttr: float) -> int:
        """Put a job; return its id. A TTR of 0 becomes one second, as with the `put` command. Raises TooLarge and Unavailable."""
        return await self._put(tube, body, priority, delay, ttr or 1, None)

    async def _put(
        self, tube: str, body: bytes, priority: int, delay: float, ttr: float, details: Details | None
    ) -> int:
        self.expect_room(body)
        broker = self._broker
        engine = broker.engine
        home = engine.tube(tube)
        job_id = engine.new_id()
        value = await self._outcomes.done(engine.put(home, job_id, priority, delay, ttr, body, details))
        broker.total_jobs += 1
        return value or job_id

    def expect_room(self, body: bytes) -> None:
        """Raise TooLarge or Unavailable if a job with this body cannot be put."""
        most = min(self._broker.max_job_size, MAX_PUT)
        if len(body) > most:
            raise TooLarge(f"a body has at most {most} bytes here, not {len(body)}")
        if self._broker.draining:
            raise Unavailable("the server is draining: puts are refused")

    async def pause(self, tube: str, seconds: float) -> None:
        """Pause a tube; 0 ends its pause."""
        await self._outcomes.done(await self._of_tube(tube, lambda found: self._broker.engine.pause(found, seconds)))

    async def kick_tube(self, tube: str, bound: int) -> int:
        """Kick up to `count` of a tube's jobs, as the `kick` command does; return how many."""
        counts: list[int] = []

        def kick(found: Tube) -> Later | None:
            count, later = self._broker.engine.kick(found, bound)
            counts.append(count)
            return later

        value = await self._outcomes.done(await self._of_tube(tube, kick))
        return value if counts[0] < 0 else counts[0]

    async def _of_tube(self, tube: str, change: Callable[[Tube], Later | None]) -> Later | None:
        def begin(found: Tube | None) -> Later | None:
            if found is None:
                raise Missing(f"there is no tube {tube}")
            return change(found)

        return await self._outcomes.tube(tube, begin)


def _found(job: Job | None, job_id: int) -> Job:
    if job is None:
        raise Missing(f"there is no job {job_id}")
    return job
