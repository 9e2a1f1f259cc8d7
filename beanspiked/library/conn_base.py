"""An open connection to a store, without the methods that make tubes. Tubes refer to this part of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from beanspiked.engine.contract import BURIED, DELAYED, ENTRY, PLACE, RESERVED, WHOLE
from beanspiked.engine.errors import JobGone
from beanspiked.library.core import OfOneProcess
from beanspiked.library.errors import JobLost, JobNotFound, NotKickable
from beanspiked.library.hold import Hold
from beanspiked.library.job_info import JobInfo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from beanspiked.engine.contract import Answer
    from beanspiked.engine.contract import Job as EngineJob
    from beanspiked.engine.later import Later
    from beanspiked.library.core import Core
    from beanspiked.library.retry import Retry

__all__ = ["ConnBase"]


class ConnBase(OfOneProcess):
    """Jobs by their ids, and the connection's end.

    Attributes:
        client_id: The connection's name in logs.
        put_retry: How often a put is tried; None for once.
    """

    def __init__(self, core: Core, put_retry: Retry | None) -> None:
        self.client_id: str = core.client_id
        self.put_retry: Retry | None = put_retry
        self._core = core

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.client_id}{', closed' if self.closed else ''}>"

    @property
    def closed(self) -> bool:
        """Whether the connection is closed."""
        return self._core.closed

    @property
    def owner(self) -> int:
        """In the child of a fork, the process that the connection belongs to; 0 in that process itself."""
        return self._core.owner

    async def close(self) -> None:
        """Give all held jobs back, end the waiting calls, finish the changes on their way, and leave the store."""
        await self._core.close()

    def before_close(self, closer: Callable[[], Awaitable[None]]) -> Callable[[], None]:
        """Call a function at the beginning of `close`; return a function that undoes this."""
        return self._core.before_close(closer)

    # --- tubes and jobs

    async def tubes(self) -> list[str]:
        """List the names of all tubes that exist."""
        self._core.check_open()
        engine = self._core.broker.engine

        def read(answer: Answer | None) -> list[str]:
            return [tube.name for tube in engine.tubes()] if answer is None else answer.names

        return await self._core.look(engine.look_names(), read)

    async def peek(self, job_id: int) -> JobInfo | None:
        """Return a copy of a job of any state; None when no job has this id."""

        def read(job: EngineJob | None) -> JobInfo | None:
            return None if job is None else JobInfo.of(job, self._core.broker.now())

        return await self._core.by_id(job_id, WHOLE, read)

    async def delete(self, job_id: int) -> bool:
        """Delete a job that this program or nobody holds. Returns whether this call deleted it."""
        self._core.check_open()
        engine = self._core.broker.engine

        async def nothing() -> bool:
            return False

        async def remove(later: Later | None, tube: str) -> bool:
            try:
                await self._core.done(later, "delete", tube)
            except JobGone:
                return False
            return True

        async def remove_held(hold: Hold) -> bool:
            try:
                await hold.change(lambda: engine.delete(hold.job), "delete")
            except JobLost:
                return False
            # The handler that works on the job learns that it is lost.
            hold.tell_lost()
            return True

        def begin(job: EngineJob | None) -> Coroutine[Any, Any, bool]:
            if job is not None and isinstance(job.holder, Hold) and job.holder in self._core.held:
                return remove_held(job.holder)
            if job is None or job.state == RESERVED:
                return nothing()
            return remove(engine.delete(job), job.tube.name)

        return await (await self._core.by_id(job_id, PLACE, begin))

    async def kick_job(self, job_id: int) -> None:
        """Make a buried or delayed job ready and forget the reason of its burial.

        Raises:
            NotKickable: The job is neither buried nor delayed.
            JobNotFound: There is no such job.
        """
        self._core.check_open()
        engine = self._core.broker.engine

        def kick(job: EngineJob | None) -> tuple[Later | None, str]:
            if job is None:
                raise JobNotFound(f"there is no job {job_id}")
            if job.state not in (BURIED, DELAYED):
                raise NotKickable(f"job {job_id} is neither buried nor delayed")
            return engine.kick_job(job), job.tube.name

        later, tube = await self._core.by_id(job_id, ENTRY, kick)
        try:
            await self._core.done(later, "kick", tube)
        except JobGone as error:
            raise JobNotFound(str(error)) from error
