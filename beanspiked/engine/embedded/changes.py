"""What each change does to jobs in memory, once it is on disk or where there is no journal."""

from typing import cast

from beanspiked.engine.contract import BURIED, DELAYED, PLAIN, READY, Details, Job, Tube
from beanspiked.engine.embedded.table import JobTable
from beanspiked.engine.embedded.tubes import EmbeddedTube, Tubes

__all__ = ["Changes"]


class Changes:
    """Makes changes.

    Args:
        tubes: Where the jobs stand.
        jobs: All jobs.
    """

    def __init__(self, tubes: Tubes, jobs: JobTable) -> None:
        self._tubes = tubes
        self._jobs = jobs

    def put(self, job: Job, due: float) -> None:
        """A job is there."""
        tube = cast(EmbeddedTube, job.tube)
        self._jobs.add(job)
        tube.total_jobs += 1
        self._tubes.enter(job, DELAYED if job.delay else READY, due)
        self._tubes.serve(tube)

    def delete(self, job: Job) -> None:
        """A job is gone."""
        if job.holder is not None:
            job.holder.lost(job)
        self._tubes.leave(job)
        self._jobs.remove(job)
        job.tube.deletes += 1

    def release(self, job: Job, pri: int, delay: float, due: float) -> None:
        """A held job is back."""
        self._tubes.leave(job)
        job.pri = pri
        job.delay = delay
        job.releases += 1
        job.ahead_of_store = False
        self._tubes.enter(job, DELAYED if delay else READY, due)
        self._tubes.serve(cast(EmbeddedTube, job.tube))

    def bury(self, job: Job, pri: int, burial: int, reason: str) -> None:
        """A job is set aside."""
        self._tubes.leave(job)
        job.pri = pri
        job.buries += 1
        if reason:
            details = job.details
            if details is None:
                details = Details()
                job.details = details
            details.reason = reason
        self._tubes.enter(job, BURIED, float(burial))

    def kick(self, job: Job) -> None:
        """A buried or delayed job is ready."""
        job.kicks += 1
        job.ahead_of_store = False
        if job.details is not None:
            job.details.reason = ""
        self._tubes.make_ready(job)

    def move(self, job: Job, target: Tube) -> None:
        """A job that nobody holds is in another tube."""
        self._tubes.leave(job)
        job.tube = target
        target.total_jobs += 1
        self._tubes.enter(job, job.state, job.key)
        if job.state == READY:
            self._tubes.serve(cast(EmbeddedTube, target))

    def update(self, job: Job, body: bytes, raw_size: int) -> None:
        """A job has another body."""
        job.body = body
        if job.details is not None:
            job.details.raw_size = raw_size
        elif raw_size != PLAIN:
            job.details = Details(raw_size=raw_size)
