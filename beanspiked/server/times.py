"""How long jobs wait for a worker, and how long workers take for them."""

from typing import Final

from beanspiked.engine.contract import Job
from beanspiked.engine.histogram import Histogram

__all__ = ["Times"]

# From one network round trip to a day's backlog, in seconds.
BOUNDS: Final[list[float]] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0]


class Times:
    """The times of the jobs that clients of this process reserve.

    Attributes:
        queue: How long jobs were ready before their first reserve; a delay does not count.
        work: How long jobs were held until they were deleted, released or buried; timeouts do not count.
    """

    def __init__(self) -> None:
        self.queue: Histogram = Histogram(BOUNDS)
        self.work: Histogram = Histogram(BOUNDS)

    def reserved(self, job: Job, now: float) -> None:
        """A job was reserved at a time, in seconds since the epoch."""
        if job.reserves == 1:
            self.queue.add(max(0.0, now - job.born - job.delay))

    def worked(self, job: Job, now: float) -> None:
        """Its holder has finished with a job at a time, in seconds since the epoch."""
        self.work.add(max(0.0, now - job.reserved_us / 1e6))
