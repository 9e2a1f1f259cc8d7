"""How long jobs wait for a worker, and how long workers take for them."""

from typing import Final

from beanspiked.engine.contract import Job
from beanspiked.engine.histogram import Histogram

__all__ = ["Times"]

# From one network round trip to a day's backlog, in seconds.
BOUNDS: Final[list[float]] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0]


# Of more jobs a second than this, one of so many is measured. That is a prime number, since clients send groups of sixteen and the like.
MANY: Final = 5000.0
ONE_OF: Final = 17


class Sample:
    """Measures every job while there are few, and some of very many.

    Attributes:
        measured: The lengths of time; one that stands for others counts as often.
    """

    def __init__(self) -> None:
        self.measured: Histogram = Histogram(BOUNDS)
        self._every: int = 1
        self._left: int = 1
        self._at: float = 0.0

    def wanted(self) -> bool:
        """Tell whether the next job is to be measured."""
        self._left -= 1
        return self._left <= 0

    def add(self, seconds: float, now: float) -> None:
        """Count a length of time, in seconds, that ended at a time."""
        self.measured.add(max(0.0, seconds), self._every)
        self.passed(now)

    def passed(self, now: float) -> None:
        """Choose the next job to be measured."""
        self._every = ONE_OF if now - self._at < self._every / MANY else 1
        self._left = self._every
        self._at = now


class Times:
    """The times of the jobs that clients of this process reserve, in seconds.

    Attributes:
        queue: How long jobs were ready before their first reserve; a delay does not count.
        work: How long jobs were held until they were deleted, released or buried; timeouts do not count.
    """

    def __init__(self) -> None:
        self.queue: Sample = Sample()
        self.work: Sample = Sample()

    def reserved(self, job: Job, now: float) -> None:
        """A job was reserved at a time, in seconds since the epoch."""
        if job.reserves == 1:
            self.queue.add(now - job.born - job.delay, now)
        else:
            self.queue.passed(now)

    def worked(self, job: Job, now: float) -> None:
        """Its holder has finished with a job at a time, in seconds since the epoch."""
        self.work.add(now - job.reserved_us / 1e6, now)
