"""Loads a journal's jobs into memory."""

from typing import cast

from beanspiked.engine.contract import BURIED, DELAYED
from beanspiked.engine.embedded.keeper import Keeper
from beanspiked.engine.embedded.table import JobTable
from beanspiked.engine.embedded.tubes import Tubes
from beanspiked.engine.embedded.write import PAUSE, Row, Write, fault_of, is_tube_name, job_of

__all__ = ["Loading"]


class Loading:
    """Loads jobs and pauses. A row that is not a job is set aside: it stays in the file and is not served.

    What is left of a delay or a pause is at most all of it, should the wall clock have been set back since.

    Args:
        journal: The journal, which counts rows that are set aside.
        tubes: The jobs in their tubes.
        jobs: All jobs.
        now: The time.
        ahead: How many seconds the wall clock, the clock of the journal's times, is ahead.
        last_id: The last id that was used, as far as the journal says.

    Attributes:
        burials: The number of the last burial.
        last_id: The last id that was used.
        compressed: The jobs with compressed bodies, which may be damaged.
    """

    def __init__(self, journal: Keeper, tubes: Tubes, jobs: JobTable, now: float, ahead: float, last_id: int) -> None:
        self.burials: float = 0.0
        self.last_id: int = last_id
        self.compressed: set[int] = set()
        self._journal = journal
        self._tubes = tubes
        self._jobs = jobs
        self._now = now
        self._ahead = ahead

    def take(self, rows: list[Row]) -> None:
        """Load some jobs, in the order of their ids."""
        ahead = self._ahead
        tubes = self._tubes
        for row in rows:
            fault = fault_of(row)
            name = row[1]
            tube = None if fault else tubes.find(cast(str, name))
            if tube is None:
                if not fault and not is_tube_name(name):
                    fault = "its tube has no valid name"
                if fault:
                    self._journal.set_aside(row[0], fault)
                    continue
                tube = tubes.make(cast(str, name))
            job = job_of(row, tube, cast(float, row[6]) - ahead)
            state = cast(int, row[2])
            key = cast(float, row[7])
            if job.details is not None and job.details.raw_size >= 0:
                self.compressed.add(job.id)
            self._jobs.add(job)
            if state == DELAYED:
                key = min(key - ahead, self._now + job.delay)
            elif state == BURIED and key > self.burials:
                self.burials = key
            tubes.enter(job, state, key)
        # The id of a job that is set aside is in use, too.
        self.last_id = max(self.last_id, cast(int, rows[-1][0]))

    def pause(self, pauses: list[tuple[str, float, float]]) -> None:
        """Load the pauses: (tube, seconds, until)."""
        for name, seconds, wall_until in pauses:
            until = min(wall_until - self._ahead, self._now + seconds)
            tube = self._tubes.find(name)
            if tube is not None and until > self._now:
                self._tubes.pause(tube, seconds, until)
            else:
                # The pause ended with its tube; a new tube of that name must not get it.
                self._journal.add(Write(PAUSE, name=name))
