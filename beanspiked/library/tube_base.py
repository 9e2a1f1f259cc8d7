"""A tube as a program uses it, without the methods that reserve. Reserved jobs refer to this part of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from beanspiked.engine.contract import BURIED, DELAYED, PLAIN, READY, Details
from beanspiked.engine.errors import OutcomeUnknown, StoreFailed, StoreFull
from beanspiked.library.core import OfOneProcess
from beanspiked.library.job_info import JobInfo, Seconds, checked_count, checked_priority, checked_text, seconds_of

if TYPE_CHECKING:
    from beanspiked.engine.contract import Answer
    from beanspiked.engine.contract import Tube as EngineTube
    from beanspiked.library.conn_base import ConnBase
    from beanspiked.library.core import Core

__all__ = ["TubeBase", "TubeStats"]

DEFAULT_PRIORITY: Final = 1024
# The latest time that is accepted, a thousand years from now, in seconds since the epoch.
MAX_BORN: Final = 2**36
# Two thirds of all ids of 63 bits. At a hundred million jobs a second the rest lasts a thousand years.
IDS_LOW: Final = 2**63 // 3 * 2


@dataclass(frozen=True, slots=True)
class TubeStats:
    """The figures of a tube.

    Attributes:
        jobs: Jobs in any state.
        ready, urgent, reserved, delayed, buried: Jobs in each state; urgent ones are ready and have a priority below 1024.
        deleted: Jobs deleted since the tube was made, or since the process that keeps it started.
        job_size: The bytes of all bodies as they were put.
        used_size: The bytes of all bodies as they are stored.
        skipped_size: The bytes of the bodies that compression did not make smaller.
    """

    jobs: int = 0
    ready: int = 0
    urgent: int = 0
    reserved: int = 0
    delayed: int = 0
    buried: int = 0
    deleted: int = 0
    job_size: int = 0
    used_size: int = 0
    skipped_size: int = 0


class TubeBase(OfOneProcess):
    """A tube without reserving.

    Attributes:
        name: Its name.
        conn: The connection to the store.
    """

    def __init__(self, conn: ConnBase, core: Core, state: EngineTube) -> None:
        self.name: str = state.name
        self.conn: ConnBase = conn
        self._core = core
        self._state = state

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    # --- jobs in

    async def put(
        self,
        body: bytes,
        *,
        delay: Seconds = 0,
        ttr: Seconds | None = None,
        priority: int = DEFAULT_PRIORITY,
        compress: bool = True,
        metadata: str = "",
        born: float | None = None,
    ) -> int:
        """Add a job.

        When the store fails, the connection tries the put again as its `put_retry` says. It does not when a try may have succeeded, so
        it never puts a job twice.

        Args:
            body: Its body.
            delay: How long nobody gets it, in seconds or as a timedelta; exact to milliseconds.
            ttr: Time to run, likewise: how long a holder may keep it without a touch; None or 0 for no limit.
            priority: 0 (most urgent) to 2**32 - 1.
            compress: Whether a body of more than 2 KiB is stored as LZ4 if that makes it smaller.
            metadata: A text that `find` finds it by, at most 65,535 bytes.
            born: When it was made, in seconds since the epoch; None for now.

        Returns:
            Its id.

        Raises:
            ValueError: A number is out of range, or a text or the body is too long.
            StoreFull: The store has no room.
            OutcomeUnknown: The store does not answer; it may have the job.
            StoreFailed: The store does not have the job.
        """
        core = self._core
        core.check_open()
        delay_s = seconds_of(delay, "delay")
        ttr_s = seconds_of(ttr, "ttr")
        pri = checked_priority(priority)
        stored, raw_size = core.stored(body, compress)
        if born is not None and not 0 <= born <= MAX_BORN:
            raise ValueError(f"born: seconds since 1970, not {born}")
        details: Details | None = None
        if metadata or born is not None or raw_size != PLAIN or not compress:
            details = Details(checked_text(metadata, "metadata"), raw_size=raw_size, born=born or 0.0)
        engine = core.broker.engine
        tries = 0
        while True:
            number = engine.new_id()
            later = engine.put(self._state, number, pri, delay_s, ttr_s, stored, details)
            tries += 1
            try:
                job_id = await core.done(later, "put", self.name) or number
            except OutcomeUnknown:
                raise
            except (StoreFull, StoreFailed):
                retry = self.conn.put_retry
                if retry is None or not retry.more(tries):
                    raise
                core.metrics.count("put.retry", self.name, 1)
                await asyncio.sleep(retry.pause(tries))
                core.check_open()
                continue
            core.broker.total_jobs += 1
            if job_id > IDS_LOW:
                core.ids_low(self.name, job_id)
            return job_id

    # --- looking

    async def peek(self, job_id: int) -> JobInfo | None:
        """Return a copy of a job of any state and tube; None when no job has this id."""
        return await self.conn.peek(job_id)

    async def peek_ready(self) -> JobInfo | None:
        """Return a copy of the ready job that is reserved next."""
        return await self._peek_next(READY)

    async def peek_delayed(self) -> JobInfo | None:
        """Return a copy of the delayed job that is due first."""
        return await self._peek_next(DELAYED)

    async def peek_buried(self) -> JobInfo | None:
        """Return a copy of the job that was buried first; its `reason` says why."""
        return await self._peek_next(BURIED)

    async def _peek_next(self, state: int) -> JobInfo | None:
        core = self._core
        core.check_open()
        engine = core.broker.engine

        def read(answer: Answer | None) -> JobInfo | None:
            job = engine.peek_next(self._state, state) if answer is None else answer.job
            return None if job is None else JobInfo.of(job, core.broker.now())

        return await core.look(engine.look_next(self._state, state), read)

    async def stats(self) -> TubeStats:
        """Count the tube's jobs and add up their sizes. All figures are 0 when the tube does not exist.

        Raises:
            StoreFailed: The store does not answer.
            ModuleMissing: The Aerospike nodes lack the Lua module that adds up the sizes.
        """
        core = self._core
        core.check_open()
        engine = core.broker.engine

        def read(answer: Answer | None) -> TubeStats:
            tube = engine.find_tube(self.name) if answer is None else answer.tube
            if tube is None:
                return TubeStats()
            counts = tube.counts if answer is None else answer.counts
            return TubeStats(
                counts.jobs(),
                counts.ready,
                counts.urgent,
                counts.reserved,
                counts.delayed,
                counts.buried,
                tube.deletes + (0 if answer is None else answer.others.deletes),
                sizes.raw,
                sizes.stored,
                sizes.skipped,
            )

        sizes = await core.look(engine.add_up(self._state), lambda answer: answer.sizes)
        return await core.look(engine.look_tube(self.name), read)

    async def find(self, metadata: str) -> list[int]:
        """List the ids of the tube's jobs that were put with this metadata, in order. Buried jobs are left out.

        This reads every job, since there is no index of metadata.
        """
        if not checked_text(metadata, "metadata"):
            raise ValueError("metadata: must not be empty")
        self._core.check_open()
        found = self._core.broker.engine.find(self._state, metadata)
        return await self._core.look(found, lambda answer: sorted(answer.ids))

    # --- changing jobs that nobody holds

    async def kick(self, number: int) -> int:
        """Make up to `number` buried jobs ready, the first buried first, or delayed ones if none is buried. Returns how many."""
        most = checked_count(number)
        self._core.check_open()
        count, later = self._core.broker.engine.kick(self._state, most)
        value = await self._core.done(later, "", self.name)
        kicked = value if count < 0 else count
        self._core.metrics.count("kick", self.name, kicked)
        return kicked

    async def delete(self, job_id: int) -> bool:
        """Delete a job that this program or nobody holds.

        Returns:
            Whether this call deleted it; False when no job has this id, or somebody else holds it.
        """
        return await self.conn.delete(job_id)

    async def kick_job(self, job_id: int) -> None:
        """Make a buried or delayed job ready and forget the reason of its burial.

        Raises:
            NotKickable: The job is neither buried nor delayed.
            JobNotFound: There is no such job.
        """
        await self.conn.kick_job(job_id)

    async def pause(self, duration: Seconds) -> None:
        """Pause the tube: nobody can reserve its jobs for a time, in seconds or as a timedelta; 0 ends the pause."""
        seconds = seconds_of(duration, "duration")
        self._core.check_open()
        await self._core.done(self._core.broker.engine.pause(self._state, seconds), "pause", self.name)
