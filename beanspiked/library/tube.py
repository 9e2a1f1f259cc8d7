"""A tube, as a program uses it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from beanspiked.library.errors import DamagedEntry
from beanspiked.library.job import Job
from beanspiked.library.job_info import Seconds, checked_count, seconds_of
from beanspiked.library.reservation import Reservation
from beanspiked.library.tube_base import TubeBase

if TYPE_CHECKING:
    from beanspiked.library.hold import Hold

__all__ = ["Tube"]

logger = logging.getLogger(__name__)


class Tube(TubeBase):
    """A tube; made by `Conn.use`. It has the attributes of a TubeBase."""

    async def reserve(self, timeout: Seconds | None = None) -> Job | None:
        """Take the most urgent ready job.

        Args:
            timeout: How long to wait for one, in seconds or as a timedelta; None for no limit.

        Returns:
            The job, or None when the time is up.

        Raises:
            StoreFailed: The store does not answer.
        """
        jobs = await self.reserve_many(1, timeout)
        return jobs[0] if jobs else None

    async def reserve_many(self, number: int, timeout: Seconds | None = None) -> list[Job]:
        """Wait for a job, and take up to `number` that are ready then. Arguments and errors as with `reserve`."""
        most = checked_count(number)
        self._core.check_open()
        core = self._core
        began = core.loop.time()
        left = None if timeout is None else seconds_of(timeout, "timeout")
        jobs: list[Job] = []
        while not jobs:
            spent = core.loop.time() - began
            holds = await Reservation(core, self._state, most).get(None if left is None else max(0.0, left - spent))
            # A task that was about to run when the process forked runs in both processes.
            core.check_process()
            if not holds:
                return []
            jobs = [job for job in map(self._job, holds) if job is not None]
        core.metrics.count("reserve", self.name, len(jobs))
        core.metrics.timing("reserve", self.name, core.loop.time() - began)
        return jobs

    def _job(self, hold: Hold) -> Job | None:
        """Make a Job of a held one; bury it if its body is damaged."""
        try:
            return Job(self, hold, self._core)
        except DamagedEntry as error:
            logger.error(
                "job %d of tube %s is buried because its body cannot be read: %s", hold.job.id, self.name, error
            )
            hold.bury(str(error))
            return None
