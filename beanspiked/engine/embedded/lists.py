"""Pages of jobs, and how many match."""

from typing import Final, cast

from beanspiked.engine.contract import RESERVED, Filter, Job, Listing
from beanspiked.engine.embedded.scan import Scan
from beanspiked.engine.embedded.slices import Slices
from beanspiked.engine.embedded.table import JobTable
from beanspiked.engine.embedded.tubes import EmbeddedTube
from beanspiked.engine.filters import LIMIT_MAX
from beanspiked.engine.later import Later
from beanspiked.engine.timers import Timers

__all__ = ["Lists"]

# How many entries of a queue may be looked at to find a page at once: a whole page in its list and in its heap, and some before it.
STEPS: Final = 2 * LIMIT_MAX + 500
BEFORE_ALL: Final = (-1.0, 0)


class Lists:
    """Lists and counts the jobs of a tube.

    Args:
        timers: What calls for the next slice, and the clock.
        table: All jobs.
    """

    def __init__(self, timers: Timers, table: JobTable) -> None:
        self._timers = timers
        self._table = table

    def page(self, tube: EmbeddedTube, state: int, wanted: Filter, after: str, limit: int, last_id: int) -> Listing:
        """See TubeEngine.list_jobs."""
        if not 0 < limit <= LIMIT_MAX:
            raise ValueError(f"a page has 1 to {LIMIT_MAX} jobs, not {limit}")
        key, job_id = _place(after)
        listing = Listing()
        if state != RESERVED and wanted.only_states():
            before = self._table.get(job_id)
            if before is not None and (before.tube is not tube or before.state != state or before.key != key):
                before = None
            # One more than are listed tells whether there are more.
            entries = tube.queue(state).following(key, job_id, before, limit + 1, STEPS)
            if entries is not None:
                listing.jobs = [cast(Job, entry) for entry in entries[:limit]]
                if len(entries) > limit:
                    listing.after = _name(entries[limit - 1].key, entries[limit - 1].id)
                listing.settle()
                return listing
        scan = Scan(tube, self._table, wanted.of_states([state]), last_id, self._timers.clock)
        first: list[tuple[float, int, Job]] = []
        # Behind this place nothing can be on the page.
        end_key, end_id = float("inf"), 0

        def step(work: Slices) -> Later | None:
            nonlocal end_key, end_id
            scan.begin_slice()
            while True:
                job = scan.next()
                if job is None:
                    break
                rank = _rank(job)
                number = job.id
                if rank < key or (rank == key and number <= job_id) or rank > end_key:
                    continue
                if (rank == end_key and number > end_id) or not scan.has_text(job):
                    continue
                first.append((rank, number, job))
                if len(first) > 2 * limit:
                    first.sort()
                    del first[limit + 1 :]
                    end_key, end_id, _ = first[limit]
            if scan.ended:
                work.end()
                first.sort()
                if len(first) > limit:
                    listing.after = _name(first[limit - 1][0], first[limit - 1][1])
                # Some may have changed since they were seen; a page is rather too short than wrong.
                same = [job for rank, _, job in first[:limit] if scan.holds(job) and _rank(job) == rank]
                listing.jobs = same
            return None

        Slices(self._timers, step, listing).begin()
        return listing

    def count(self, tube: EmbeddedTube, wanted: Filter, last_id: int) -> Later:
        """See TubeEngine.count_jobs."""
        scan = Scan(tube, self._table, wanted, last_id, self._timers.clock)
        counted = Later()

        def step(work: Slices) -> Later | None:
            counted.value += len(scan.take(LIMIT_MAX))
            if scan.ended:
                work.end()
            return None

        Slices(self._timers, step, counted).begin()
        return counted


def _rank(job: Job) -> float:
    """Return what decides over its place before its id does: a deadline does not."""
    return 0.0 if job.state == RESERVED else job.key


def _name(key: float, job_id: int) -> str:
    """Name a place in a queue, for `after`."""
    return f"{key!r}:{job_id}"


def _place(after: str) -> tuple[float, int]:
    """Return the place that a page ended at. Raises ValueError."""
    if not after:
        return BEFORE_ALL
    key, _, job_id = after.partition(":")
    return float(key), int(job_id)
