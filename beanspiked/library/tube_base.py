"""A tube as a program uses it, but for what takes jobs out: a reserved job refers to this much of its tube."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from beanspiked.engine.contract import BURIED, DELAYED, PLAIN, READY, Details
from beanspiked.engine.errors import OutcomeUnknown, StoreFailed, StoreFull
from beanspiked.library.core import OfOneProcess
from beanspiked.library.job_info import JobInfo, Seconds, checked_priority, checked_text, seconds_of

if TYPE_CHECKING:
    from beanspiked.engine.contract import Answer
    from beanspiked.engine.contract import Tube as EngineTube
    from beanspiked.library.conn_base import ConnBase
    from beanspiked.library.core import Core

__all__ = ["TubeBase", "TubeStats"]

DEFAULT_PRIORITY: Final = 1024
# Some thousand years hence, in seconds since the epoch.
MAX_BORN: Final = 2**36
# Of the numbers that 63 bits have, two thirds are gone: at a hundred million jobs a second the last thousand years begin.
IDS_LOW: Final = 2**63 // 3 * 2


@dataclass(frozen=True, slots=True)
class TubeStats:
    """What is in a tube.

    Attributes:
        jobs: How many jobs, in any state.
        ready, urgent, reserved, delayed, buried: How many in each; the urgent are the ready ones with a priority below 1024.
        deleted: How many were deleted since the tube exists, or since the process started that keeps it.
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
    """What every tube can do but reserve.

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

        When the store fails for a moment it is tried again as the connection's `put_retry` says, but never when the first try may
        have gone through: a job is put once or not at all.

        Args:
            body: Its body.
            delay: How long nobody gets it, in seconds or as a timedelta; exact to milliseconds.
            ttr: Time to run: how long a holder may keep it without a touch, likewise; None or 0 for ever.
            priority: 0 (most urgent) to 2**32 - 1.
            compress: Whether a body of more than 2 KiB is kept as LZ4 where that makes it smaller.
            metadata: What `find` finds it by, at most 65,535 bytes.
            born: When it was made, in seconds since the epoch; None for now.

        Returns:
            Its id.

        Raises:
            ValueError: A number is out of range, or a text or the body is too long.
            StoreFull: There is no room.
            OutcomeUnknown: The store fell silent; it may have the job.
            StoreFailed: It does not have the job.
        """
        core = self._core
        core.check_open()
        delay_s = seconds_of(delay, "delay")
        ttr_s = seconds_of(ttr, "ttr")
        checked_priority(priority)
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
            later = engine.put(self._state, number, priority, delay_s, ttr_s, stored, details)
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
        """Look at a job of any state, and of any tube; None when there is none with this id."""
        return await self.conn.peek(job_id)

    async def peek_ready(self) -> JobInfo | None:
        """Look at the job that would be reserved next."""
        return await self._peek_next(READY)

    async def peek_delayed(self) -> JobInfo | None:
        """Look at the delayed job that is due first."""
        return await self._peek_next(DELAYED)

    async def peek_buried(self) -> JobInfo | None:
        """Look at the job that was buried first; its `reason` says why."""
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
        """Count its jobs and add up their sizes; all zeros when it does not exist.

        Raises:
            StoreFailed: The store does not answer.
            ModuleMissing: On Aerospike the nodes add the sizes up in Lua; without our module there they are not known.
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
        """List the ids of its jobs that were put with this metadata, in their order; the buried ones are left out.

        That looks at every job: nothing is kept for it when a job is put.
        """
        if not metadata:
            raise ValueError("metadata: nothing to find")
        self._core.check_open()
        found = self._core.broker.engine.find(self._state, metadata)
        return await self._core.look(found, lambda answer: sorted(answer.ids))

    # --- changing what nobody holds

    async def kick(self, number: int) -> int:
        """Make up to so many buried jobs ready, oldest first; if none is buried, delayed ones. Returns their number."""
        if number < 1:
            raise ValueError(f"number: at least 1, not {number}")
        self._core.check_open()
        count, later = self._core.broker.engine.kick(self._state, number)
        value = await self._core.done(later, "", self.name)
        kicked = value if count < 0 else count
        self._core.metrics.count("kick", self.name, kicked)
        return kicked

    async def delete(self, job_id: int) -> bool:
        """Remove a job that this program holds or that nobody does.

        Returns:
            Whether that was this call's doing; False when there is none with this id, or somebody else holds it.
        """
        return await self.conn.delete(job_id)

    async def kick_job(self, job_id: int) -> None:
        """Make a buried or delayed job ready; the reason that it was buried for is forgotten.

        Raises:
            NotKickable: It is neither buried nor delayed.
            JobNotFound: There is no such job.
        """
        await self.conn.kick_job(job_id)

    async def pause(self, duration: Seconds) -> None:
        """Let nobody get its jobs for a time, in seconds or as a timedelta; 0 ends that."""
        seconds = seconds_of(duration, "duration")
        self._core.check_open()
        await self._core.done(self._core.broker.engine.pause(self._state, seconds), "pause", self.name)
