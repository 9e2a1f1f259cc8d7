"""A plain model of beanstalkd's tubes and jobs: lists and sorts, a virtual clock, and no cleverness.

It shows what an engine must do, so that tests can compare an engine with it step by step. It knows nothing of sockets: the caller names
the *holder* that reserves. Waits, DEADLINE_SOON and the watch list belong to the layers above. Section numbers in comments are those of
the project's reference of beanstalkd's behaviour.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

State = Literal["ready", "delayed", "reserved", "buried"]
STATES: tuple[State, ...] = ("ready", "delayed", "reserved", "buried")
URGENT_BELOW = 1024


@dataclass(slots=True)
class ModelJob:
    """One job with all its fields in stats-job."""

    id: int
    tube: str
    body: bytes
    pri: int
    delay: float
    ttr: float
    born_at: float
    state: State = "ready"
    due_at: float = 0.0  # The end of its delay, or of its TTR.
    buried_place: int = 0
    delayed_place: int = 0
    holder: str | None = None
    reserves: int = 0
    timeouts: int = 0
    releases: int = 0
    buries: int = 0
    kicks: int = 0


@dataclass(slots=True)
class ModelTube:
    """A tube's counters and its pause."""

    name: str
    total_jobs: int = 0
    deletes: int = 0
    pauses: int = 0
    pause: float = 0.0
    paused_until: float = 0.0


@dataclass(slots=True)
class Model:
    """All jobs of one server."""

    now: float = 0.0
    jobs: list[ModelJob] = field(default_factory=list)
    tubes: dict[str, ModelTube] = field(default_factory=dict)
    # The tubes that are used or watched, by the caller's account. They stay.
    referenced: set[str] = field(default_factory=lambda: {"default"})
    last_id: int = 0
    burials: int = 0
    delays: int = 0
    # Of two jobs with one due time, the one delayed first comes first, not the one with the lower id.
    delays_differ: bool = False

    def put(self, tube: str, body: bytes, pri: int = 0, delay: float = 0, ttr: float = 1) -> int:
        """Add a job and return its id; a TTR of zero is one second."""
        self.last_id += 1
        job = ModelJob(self.last_id, tube, body, pri, delay, ttr or 1, self.now)
        self.jobs.append(job)
        self._tube(tube).total_jobs += 1
        self._wake(job, delay)
        return job.id

    def take(self, holder: str, tubes: Iterable[str]) -> ModelJob | None:
        """Reserve the job with the least (pri, id) in these tubes, except paused ones. The order of the tubes does not matter (2.2)."""
        open_tubes = {name for name in tubes if not self.paused(name)}
        ready = [job for job in self.jobs if job.state == "ready" and job.tube in open_tubes]
        return self._reserve(min(ready, key=_urgency), holder) if ready else None

    def take_job(self, holder: str, job_id: int) -> ModelJob | None:
        """Reserve a job of any tube that nobody holds. A pause does not matter (2.4)."""
        job = self._find(job_id)
        return self._reserve(job, holder) if job and job.state != "reserved" else None

    def delete(self, job_id: int, holder: str | None = None) -> bool:
        """Remove a job. Only its holder can remove a reserved one."""
        job = self._find(job_id)
        if job is None or (job.state == "reserved" and job.holder != holder):
            return False
        self.jobs.remove(job)
        self._tube(job.tube).deletes += 1
        self._drop_tube(job.tube)
        return True

    def release(self, holder: str, job_id: int, pri: int, delay: float) -> bool:
        """Give a held job back with a new priority and delay."""
        job = self._held(holder, job_id)
        if job is None:
            return False
        job.pri = pri
        job.delay = delay
        job.releases += 1
        self._wake(job, delay)
        return True

    def bury(self, holder: str, job_id: int, pri: int) -> bool:
        """Bury a held job, behind those that were buried before."""
        job = self._held(holder, job_id)
        if job is None:
            return False
        job.pri = pri
        job.buries += 1
        self.burials += 1
        job.buried_place = self.burials
        job.state = "buried"
        job.holder = None
        return True

    def kick(self, tube: str, bound: int) -> list[int]:
        """Make up to this many buried jobs ready, oldest burial first, or delayed ones if none is buried; never both (2.2)."""
        chosen = self._line(tube, "buried") or self._line(tube, "delayed")
        return [job.id for job in chosen[:bound] if self.kick_job(job.id)]

    def kick_job(self, job_id: int) -> bool:
        """Make one buried or delayed job ready. It keeps its priority and its delay field."""
        job = self._find(job_id)
        if job is None or job.state not in {"buried", "delayed"}:
            return False
        job.kicks += 1
        self._wake(job, 0)
        return True

    def chosen(self, tube: str, states: Iterable[State], min_pri: int = 0) -> list[ModelJob]:
        """List a tube's jobs of some states up to a priority, each state in its order, reserved ones by id."""
        return [job for state in states for job in self._line(tube, state) if job.pri >= min_pri]

    def clear(self, tube: str, states: Iterable[State], min_pri: int = 0) -> int:
        """Delete the chosen jobs of a tube that nobody holds."""
        chosen = [job for job in self.chosen(tube, states, min_pri) if job.state != "reserved"]
        return sum(self.delete(job.id) for job in chosen)

    def move(self, tube: str, target: str, states: Iterable[State], min_pri: int = 0) -> list[ModelJob]:
        """Move the chosen jobs of a tube that nobody holds to another tube. They keep their state."""
        moved = [job for job in self.chosen(tube, states, min_pri) if job.state != "reserved"]
        for job in moved:
            job.tube = target
            self._tube(target).total_jobs += 1
        self._drop_tube(tube)
        return moved

    def touch(self, holder: str, job_id: int) -> bool:
        """Start the job's TTR again from now. The rest of the old TTR does not count."""
        job = self._held(holder, job_id)
        if job is None:
            return False
        job.due_at = self.now + job.ttr
        return True

    def leave(self, holder: str) -> list[int]:
        """Give back all jobs of a holder, in the order in which they were reserved. No counter changes (2.5)."""
        held = [job for job in self.jobs if job.holder == holder]
        for job in held:
            self._wake(job, 0)
        return [job.id for job in held]

    def peek(self, job_id: int) -> ModelJob | None:
        """Return a job in any state, of any tube."""
        return self._find(job_id)

    def peek_next(self, tube: str, state: State) -> ModelJob | None:
        """Return the next job of a state: most urgent, soonest due, or oldest burial. A pause does not matter."""
        line = self._line(tube, state)
        return line[0] if line else None

    def pause(self, tube: str, seconds: float) -> bool:
        """Stop reserves from an existing tube. A new pause replaces the old one, and zero ends it (2.6)."""
        if not self.exists(tube):
            return False
        paused = self._tube(tube)
        paused.pauses += 1
        paused.pause = seconds
        paused.paused_until = self.now + seconds
        return True

    def paused(self, tube: str) -> bool:
        """Whether reserves from this tube are stopped now."""
        return tube in self.tubes and self.tubes[tube].paused_until > self.now

    def expire(self) -> list[int]:
        """Make jobs ready whose delay or TTR is over, in the order of their due times; return the ids."""
        due = sorted(
            (job for job in self.jobs if job.state in {"delayed", "reserved"} and job.due_at <= self.now),
            key=lambda job: (job.due_at, job.id),
        )
        for job in due:
            job.timeouts += job.state == "reserved"
            self._wake(job, 0)
        return [job.id for job in due]

    def advance(self, seconds: float) -> list[int]:
        """Let time pass; return the ids of the jobs that came due."""
        self.now += seconds
        return self.expire()

    def exists(self, tube: str) -> bool:
        """Whether the tube has a job in any state, or somebody uses or watches it (2.7)."""
        return tube in self.referenced or any(job.tube == tube for job in self.jobs)

    def unreference(self, tube: str) -> None:
        """Note that nobody uses or watches the tube any more. `default` stays."""
        if tube != "default":
            self.referenced.discard(tube)
            self._drop_tube(tube)

    def tube_stats(self, tube: str) -> dict[str, int | float | str] | None:
        """Return stats-tube's fields, except connections and waiters, which the model does not know."""
        if not self.exists(tube):
            return None
        known = self._tube(tube)
        jobs = [job for job in self.jobs if job.tube == tube]
        counts: dict[str, int | float | str] = {
            f"current-jobs-{state}": sum(job.state == state for job in jobs) for state in STATES
        }
        return counts | {
            "name": tube,
            "current-jobs-urgent": sum(job.state == "ready" and job.pri < URGENT_BELOW for job in jobs),
            "total-jobs": known.total_jobs,
            "cmd-delete": known.deletes,
            "cmd-pause-tube": known.pauses,
            "pause": known.pause if self.paused(tube) else 0,
            "pause-time-left": int(max(0.0, known.paused_until - self.now)),
        }

    def job_stats(self, job_id: int) -> dict[str, int | float | str] | None:
        """Return stats-job's fields, except the file number."""
        job = self._find(job_id)
        if job is None:
            return None
        timed = job.state in {"delayed", "reserved"}
        return {
            "id": job.id,
            "tube": job.tube,
            "state": job.state,
            "pri": job.pri,
            "age": int(self.now - job.born_at),
            "delay": job.delay,
            "ttr": job.ttr,
            "time-left": int(job.due_at - self.now) if timed else 0,
            "reserves": job.reserves,
            "timeouts": job.timeouts,
            "releases": job.releases,
            "buries": job.buries,
            "kicks": job.kicks,
        }

    def _find(self, job_id: int) -> ModelJob | None:
        return next((job for job in self.jobs if job.id == job_id), None)

    def _held(self, holder: str, job_id: int) -> ModelJob | None:
        job = self._find(job_id)
        return job if job and job.state == "reserved" and job.holder == holder else None

    def _tube(self, name: str) -> ModelTube:
        return self.tubes.setdefault(name, ModelTube(name))

    def _drop_tube(self, name: str) -> None:
        if not self.exists(name):
            self.tubes.pop(name, None)

    def _line(self, tube: str, state: State) -> list[ModelJob]:
        jobs = [job for job in self.jobs if job.tube == tube and job.state == state]
        if state == "ready":
            return sorted(jobs, key=_urgency)
        if state == "reserved":
            return sorted(jobs, key=lambda job: job.id)
        return (
            sorted(jobs, key=lambda job: job.buried_place)
            if state == "buried"
            else sorted(jobs, key=lambda job: (job.due_at, job.delayed_place if self.delays_differ else job.id))
        )

    def _wake(self, job: ModelJob, delay: float) -> None:
        job.holder = None
        job.state = "delayed" if delay else "ready"
        job.due_at = self.now + delay
        self.delays += 1
        job.delayed_place = self.delays

    def _reserve(self, job: ModelJob, holder: str) -> ModelJob:
        job.state = "reserved"
        job.holder = holder
        job.reserves += 1
        job.due_at = self.now + job.ttr
        # In self.jobs the held jobs are in the order in which they were reserved.
        self.jobs.remove(job)
        self.jobs.append(job)
        return job


def _urgency(job: ModelJob) -> tuple[int, int]:
    return job.pri, job.id
