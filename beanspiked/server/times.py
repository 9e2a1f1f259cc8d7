"""How long jobs wait for a worker, how long workers take for them, and how long commands take."""

from typing import Final

from beanspiked.engine.contract import Job
from beanspiked.engine.histogram import Histogram
from beanspiked.protocol.commands import VERB_COUNT

__all__ = ["Latencies", "Times"]

# From one network round trip to a day's backlog, in seconds.
BOUNDS: Final[list[float]] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0]


# If there are more jobs a second than this, one in ONE_OF is measured. That is a prime number, since clients send groups of sixteen
# and the like.
MANY: Final = 5000.0
ONE_OF: Final = 17

# From a command that only reads memory to a store that hardly answers, in seconds.
COMMAND_BOUNDS: Final[list[float]] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0,
]  # fmt: skip
# If there are fewer commands than FEW between two ticks, all are measured. Otherwise SAMPLES of them are, one in SAMPLED.
FEW: Final = 250
SAMPLES: Final = 8
SAMPLED: Final = 97


class Sample:
    """Measures every job while there are few, and some when there are very many.

    Attributes:
        measured: The lengths of time. One that stands for others counts for each of them.
    """

    def __init__(self) -> None:
        self.measured: Histogram = Histogram(BOUNDS)
        self._every: int = 1
        self._left: int = 1
        self._at: float = 0.0

    def wanted(self) -> bool:
        """Tell whether to measure the next job."""
        self._left -= 1
        return self._left <= 0

    def add(self, seconds: float, now: float) -> None:
        """Count a length of time, in seconds, that ended at a time."""
        self.measured.add(max(0.0, seconds), self._every)
        self.passed(now)

    def passed(self, now: float) -> None:
        """Choose the next job to measure."""
        self._every = ONE_OF if now - self._at < self._every / MANY else 1
        self._left = self._every
        self._at = now


class Latencies:
    """How long commands take, from the moment they are parsed to the moment their replies are handed to the socket.

    A check at each command would take some per cent of a busy server's time. So only the commands of the first turns after each tick are
    checked.

    Attributes:
        of: By verb, the lengths of time in seconds. One that stands for others counts for each of them.
        stands_for: How many commands a command that is measured now stands for.
    """

    def __init__(self) -> None:
        self.of: list[Histogram] = [Histogram(COMMAND_BOUNDS) for _ in range(VERB_COUNT)]
        self.stands_for: int = 1
        self._every: int = 1
        self._left: int = FEW
        self._total: int = 0

    def tick(self, total: int) -> None:
        """Choose again, at each tick of the loop; `total` commands were executed so far."""
        count = total - self._total
        self._total = total
        if count < FEW:
            self._every, self._left, self.stands_for = 1, FEW, 1
        else:
            self._every, self._left = SAMPLED, SAMPLES * SAMPLED
            self.stands_for = count // max(1, min(SAMPLES, count // SAMPLED))

    def wanted(self) -> bool:
        """Tell whether to measure the next command."""
        self._left -= 1
        return self._left % self._every == 0

    def enough(self) -> bool:
        """Tell whether no more commands are measured until the next tick."""
        return self._left <= 0


class Times:
    """The times of the jobs that clients of this process reserve, and of commands, in seconds.

    Attributes:
        queue: How long jobs were ready before their first reserve; a delay does not count.
        work: How long jobs were held until they were deleted, released or buried; timeouts do not count.
        commands: How long commands took.
    """

    def __init__(self) -> None:
        self.queue: Sample = Sample()
        self.work: Sample = Sample()
        self.commands: Latencies = Latencies()

    def reserved(self, job: Job, now: float) -> None:
        """Note that a job was reserved at this time, in seconds since the epoch."""
        if job.reserves == 1:
            self.queue.add(now - job.born - job.delay, now)
        else:
            self.queue.passed(now)

    def worked(self, job: Job, now: float) -> None:
        """Note that a job's holder finished with it at this time, in seconds since the epoch."""
        self.work.add(now - job.reserved_us / 1e6, now)
