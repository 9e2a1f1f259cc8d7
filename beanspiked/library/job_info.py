"""A copy of a job's figures, and checks of a job's values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from beanspiked.engine.contract import DELAYED, RESERVED, STATE_NAMES, Details
from beanspiked.engine.timers import NEVER

if TYPE_CHECKING:
    from beanspiked.engine.contract import Job as EngineJob

__all__ = [
    "NO_DETAILS",
    "JobInfo",
    "Seconds",
    "checked_count",
    "checked_priority",
    "checked_text",
    "checked_whole",
    "retries_of",
    "seconds_of",
]

# A duration: seconds, or a timedelta.
Seconds = float | timedelta

MAX_SECONDS: Final = 2**32 - 1
MAX_PRIORITY: Final = 2**32 - 1
# Metadata and reasons, in bytes of UTF-8.
MAX_TEXT: Final = 65535


def seconds_of(value: Seconds | None, name: str) -> float:
    """Return a duration in seconds; None is 0. Raises ValueError if it is negative or longer than 136 years."""
    seconds = 0.0 if value is None else value.total_seconds() if isinstance(value, timedelta) else float(value)
    if not 0 <= seconds <= MAX_SECONDS:
        raise ValueError(f"{name}: from 0 to {MAX_SECONDS} seconds, not {value}")
    return seconds


NO_DETAILS: Final = Details()


@dataclass(frozen=True, slots=True)
class JobInfo:
    """A job at one moment; it may have changed since.

    Attributes:
        id: Its id.
        tube: The name of its tube.
        body: Its body.
        state: `ready`, `delayed`, `reserved` or `buried`.
        priority: 0 (most urgent) to 2**32 - 1.
        delay: The delay of its last put or release, in seconds.
        ttr: Time to run, in seconds; 0 means that it never times out.
        born: When it was made, in seconds since the epoch: the time that its producer gave, or the time of its put.
        time_left: How long until it is due or times out, in seconds; 0 if it does neither.
        reserves, timeouts, releases, buries, kicks: How often each happened to it.
        retries: How often a holder released it for another try.
        failed: Whether its last try failed.
        reason: Why it was buried.
        metadata: The text by which `find` finds it.
    """

    id: int
    tube: str
    body: bytes
    state: str
    priority: int
    delay: float
    ttr: float
    born: float
    time_left: float
    reserves: int
    timeouts: int
    releases: int
    buries: int
    kicks: int
    retries: int
    failed: bool
    reason: str
    metadata: str

    @classmethod
    def of(cls, job: EngineJob, now: float) -> JobInfo:
        """Copy a job's figures from its engine. Raises DamagedEntry."""
        details = job.details or NO_DETAILS
        timed = job.state in (RESERVED, DELAYED) and 0 < job.key < NEVER
        return cls(
            job.id,
            job.tube.name,
            job.raw_body(),
            STATE_NAMES[job.state],
            job.pri,
            job.delay,
            job.ttr,
            job.born,
            max(0.0, job.key - now) if timed else 0.0,
            job.reserves,
            job.timeouts,
            job.releases,
            job.buries,
            job.kicks,
            retries_of(details),
            details.failed,
            details.reason,
            details.metadata,
        )


def retries_of(details: Details) -> int:
    """Return how often a holder released a job for another try; 1 when the job only says that its last try failed."""
    return details.retries or int(details.failed)


def checked_whole(number: int, name: str) -> int:
    """Return a whole number as a plain one. Raises TypeError if it is none."""
    if not isinstance(number, int):
        raise TypeError(f"{name}: a whole number, not {number!r}")
    # True and False are numbers, too, but would be written as words.
    return int(number)


def checked_count(number: int) -> int:
    """Return a number of jobs. Raises ValueError if it is less than 1, and TypeError if it is not whole."""
    count = checked_whole(number, "number")
    if count < 1:
        raise ValueError(f"number: at least 1, not {number}")
    return count


def checked_priority(priority: int) -> int:
    """Return a priority as a plain number. Raises ValueError if it is out of range."""
    number = checked_whole(priority, "priority")
    if not 0 <= number <= MAX_PRIORITY:
        raise ValueError(f"priority: from 0 to {MAX_PRIORITY}, not {priority}")
    return number


def checked_text(text: str, name: str) -> str:
    """Return a text. Raises ValueError if it is too long, and TypeError if it is none."""
    if not isinstance(text, str):
        raise TypeError(f"{name}: a str, not {text!r}")
    size = len(text.encode())
    if size > MAX_TEXT:
        raise ValueError(f"{name}: at most {MAX_TEXT} bytes, not {size}")
    return text
