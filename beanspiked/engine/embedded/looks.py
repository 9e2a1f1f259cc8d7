"""Looks at every job, for `find` and for sums of sizes."""

from collections.abc import Callable

from beanspiked.engine.contract import BURIED, GIVEN_UP, PLAIN, Job, Tube, TubeSizes
from beanspiked.engine.embedded.slices import sweep
from beanspiked.engine.embedded.table import JobTable
from beanspiked.engine.later import Later
from beanspiked.engine.timers import Timers

__all__ = ["Looks"]


class Looks:
    """The looks at every job, with the results of the last of each kind.

    Attributes:
        found: The ids that were found.
        sizes: The sums of a tube's body sizes.
    """

    def __init__(self, timers: Timers, jobs: JobTable) -> None:
        self.found: list[int] = []
        self.sizes: TubeSizes = TubeSizes()
        self._timers = timers
        self._jobs = jobs

    def find(self, tube: Tube, metadata: str, last_id: int) -> Later | None:
        """Search the jobs up to an id for those that were put with this metadata and are not buried."""
        found: list[int] = []

        def visit(jobs: list[Job]) -> Later | None:
            for job in jobs:
                details = job.details
                if job.tube is tube and job.state != BURIED and details is not None and details.metadata == metadata:
                    found.append(job.id)
            return None

        def keep(_: Later) -> None:
            self.found = found

        self.found = found
        return self._sweep(visit, keep, last_id)

    def add_up(self, tube: Tube, last_id: int) -> Later | None:
        """Add up the sizes of a tube's bodies."""
        sizes = TubeSizes()

        def visit(jobs: list[Job]) -> Later | None:
            for job in jobs:
                if job.tube is tube:
                    raw_size = PLAIN if job.details is None else job.details.raw_size
                    stored = len(job.body)
                    sizes.stored += stored
                    sizes.raw += raw_size if raw_size >= 0 else stored
                    if raw_size == GIVEN_UP:
                        sizes.skipped += stored
            return None

        def keep(_: Later) -> None:
            self.sizes = sizes

        self.sizes = sizes
        return self._sweep(visit, keep, last_id)

    def _sweep(
        self, visit: Callable[[list[Job]], Later | None], keep: Callable[[Later], None], last_id: int
    ) -> Later | None:
        """Visit all jobs, then call `keep` before other callbacks run, since these may start another look."""
        later = sweep(self._timers, self._jobs, last_id, visit)
        if later is not None:
            later.then(keep)
        return later
