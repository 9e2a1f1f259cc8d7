"""Which jobs of a tube are meant, and what comes of asking for or changing all of them."""

from collections.abc import Iterable
from typing import Final

from mypy_extensions import mypyc_attr

from beanspiked.engine.jobs import BURIED, DELAYED, READY, RESERVED, Job
from beanspiked.engine.later import Later

__all__ = ["ANY_STATE", "LIMIT_MAX", "UNHELD", "Bulk", "Filter", "Listing"]

# The states of jobs that nobody holds.
UNHELD: Final = (READY, DELAYED, BURIED)
ANY_STATE: Final = (READY, DELAYED, RESERVED, BURIED)
# A page lists at most so many jobs.
LIMIT_MAX: Final = 1000
MAX_PRI: Final = 4294967295


@mypyc_attr(allow_interpreted_subclasses=True)
class Filter:
    """Jobs to which all of this applies.

    Args:
        states: Their states.
        min_age: How long ago they were put, at least, in seconds.
        min_tries: How often they were reserved, at least.
        text: What their bodies, as they were put, contain.
        min_pri, max_pri: The range of their priorities.
        ids: Their ids; None for any.
    """

    def __init__(
        self,
        states: Iterable[int] = UNHELD,
        min_age: float = 0.0,
        min_tries: int = 0,
        text: bytes = b"",
        min_pri: int = 0,
        max_pri: int = MAX_PRI,
        ids: Iterable[int] | None = None,
    ) -> None:
        self.states: list[int] = list(states)
        self.min_age: float = min_age
        self.min_tries: int = min_tries
        self.text: bytes = text
        self.min_pri: int = min_pri
        self.max_pri: int = max_pri
        self.ids: list[int] | None = None if ids is None else list(dict.fromkeys(ids))

    def only_states(self) -> bool:
        """Tell whether it asks for nothing but states."""
        return (
            self.min_age <= 0.0
            and self.min_tries <= 0
            and not self.text
            and self.min_pri <= 0
            and self.max_pri >= MAX_PRI
            and self.ids is None
        )

    def within(self, states: Iterable[int]) -> "Filter":
        """Return the same filter for those of its jobs that are in these states."""
        return self.of_states([state for state in states if state in self.states])

    def of_states(self, states: Iterable[int]) -> "Filter":
        """Return the same filter for jobs of other states."""
        return Filter(states, self.min_age, self.min_tries, self.text, self.min_pri, self.max_pri, self.ids)

    def of_ids(self, ids: Iterable[int]) -> "Filter":
        """Return the same filter for jobs with these ids."""
        return Filter(self.states, self.min_age, self.min_tries, self.text, self.min_pri, self.max_pri, ids)

    def admits(self, job: Job, now: float) -> bool:
        """Tell whether all but the ids and the text applies to a job."""
        return (
            job.state in self.states
            and self.min_pri <= job.pri <= self.max_pri
            and job.reserves >= self.min_tries
            and (self.min_age <= 0.0 or now - job.born >= self.min_age)
        )


class Listing(Later):
    """A page of jobs.

    Attributes:
        jobs: The jobs, in the order of their queue, as they are when the page becomes known; they may change after its callbacks.
        after: What asks for the next page; empty when this one is the last.
    """

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[Job] = []
        self.after: str = ""


class Bulk(Later):
    """A change of many jobs that goes on in slices.

    Its value is how many were changed so far. When it fails or is stopped those stay changed, and the others are as they were.

    Attributes:
        stopped: Whether it was told to stop.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stopped: bool = False

    def stop(self) -> None:
        """End with the slice that is on its way; its outcome is that of what was done."""
        self.stopped = True
