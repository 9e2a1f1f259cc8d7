"""The JSON API of jobs: one by one, and all of a tube that match a filter."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from beanspiked.admin import requests
from beanspiked.admin.audit import note
from beanspiked.admin.errors import Unusable
from beanspiked.admin.jobs import UNHELD
from beanspiked.admin.matching import LISTED_MAX, progress
from beanspiked.engine.errors import EngineError
from beanspiked.protocol.lines import MAX_U32

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from beanspiked.admin.jobs import Jobs
    from beanspiked.admin.matching import Matching
    from beanspiked.admin.outcomes import Outcomes
    from beanspiked.engine.contract import Bulk

__all__ = ["JobApi"]

# A client that accepts this type hears of a change's progress: one JSON object a line.
PROGRESS: Final = "application/x-ndjson"
# How long the reason for a burial may be, in characters.
MAX_REASON: Final = 1000
# What bodies are sent in, in bytes.
CHUNK: Final = 65536


class JobApi:
    """Answers the requests below `/api/v1` for jobs.

    Args:
        outcomes: What waits for changes of many jobs.
        jobs: What looks at jobs and changes them.
        matching: The same for all jobs that match.
    """

    def __init__(self, outcomes: Outcomes, jobs: Jobs, matching: Matching) -> None:
        self._outcomes = outcomes
        self._jobs = jobs
        self._matching = matching

    def routes(self) -> list[Route]:
        """Return its routes, below `/api/v1`."""
        get, post, delete = ["GET"], ["POST"], ["DELETE"]
        return [
            Route("/tube/put", self.put, methods=post),
            Route("/tube/put-lines", self.put_lines, methods=post),
            Route("/tube/jobs", self.jobs, methods=get),
            Route("/tube/jobs/count", self.count, methods=get),
            Route("/tube/clear", self.clear, methods=post),
            Route("/tube/move", self.move, methods=post),
            Route("/tube/kick-jobs", self.kick_jobs, methods=post),
            Route("/tube/bury-jobs", self.bury_jobs, methods=post),
            Route("/tube/duplicate", self.duplicate_jobs, methods=post),
            Route("/tube/release-jobs", self.release_jobs, methods=post),
            Route("/tube/priority", self.set_priorities, methods=post),
            Route("/tube/delay", self.set_delays, methods=post),
            Route("/jobs/{id}", self.job, methods=get),
            Route("/jobs/{id}/body", self.body, methods=get),
            Route("/jobs/{id}", self.delete, methods=delete),
            Route("/jobs/{id}/kick", self.kick, methods=post),
            Route("/jobs/{id}/release", self.release, methods=post),
            Route("/jobs/{id}/bury", self.bury, methods=post),
            Route("/jobs/{id}/duplicate", self.duplicate, methods=post),
            Route("/jobs/{id}/priority", self.set_priority, methods=post),
            Route("/jobs/{id}/delay", self.set_delay, methods=post),
        ]

    # --- puts

    async def put(self, request: Request) -> Response:
        """Put a job."""
        tube = requests.tube_name(request)
        given = await requests.arguments(request)
        body, how = given.body(), _how(given)
        number = await self._jobs.put(tube, body, *how)
        note(request, f"put job {number} of {len(body)} bytes in {tube}")
        return JSONResponse({"id": number}, 201)

    async def put_lines(self, request: Request) -> Response:
        """Put a job for each line that is not empty."""
        tube = requests.tube_name(request)
        given = await requests.arguments(request)
        bodies, how = given.lines(), _how(given)
        for body in bodies:
            self._jobs.expect_room(body)
        bulk = self._matching.each_of(bodies, lambda body: self._jobs.put(tube, body, *how))
        return await self._bulk(request, f"put {len(bodies)} lines in {tube}", "put", bulk)

    # --- jobs of a tube that match

    async def jobs(self, request: Request) -> Response:
        """Show a page of the jobs of a state that match."""
        tube = requests.tube_name(request)
        given = requests.query(request)
        after, limit = given.text("after", ""), given.number("limit", 50, LISTED_MAX)
        wanted = given.wanted()
        given.end()
        if len(wanted.states) != 1:
            raise Unusable("state: it has to be given, since each has a queue of its own")
        return JSONResponse(await self._matching.page(tube, wanted.states[0], wanted, after, limit))

    async def count(self, request: Request) -> Response:
        """Count the jobs that match."""
        tube = requests.tube_name(request)
        given = requests.query(request)
        wanted = given.wanted()
        given.end()
        return JSONResponse({"count": await self._matching.count(tube, wanted)})

    async def clear(self, request: Request) -> Response:
        """Delete the jobs of one state that match."""
        tube = requests.tube_name(request)
        given = await requests.arguments(request)
        wanted = given.meant(UNHELD)
        given.end()
        if len(wanted.states) != 1:
            raise Unusable(f"state: not one of {', '.join(UNHELD)}")
        return await self._bulk(
            request, f"clear {tube} of {wanted}", "deleted", await self._matching.clear(tube, wanted)
        )

    async def move(self, request: Request) -> Response:
        """Move the jobs that match to another tube."""
        tube = requests.tube_name(request)
        given = await requests.arguments(request)
        target = requests.checked_tube("target", given.text("target"))
        wanted = given.meant(UNHELD)
        given.end()
        bulk = await self._matching.move(tube, target, wanted)
        return await self._bulk(request, f"move from {tube} to {target} {wanted}", "moved", bulk)

    async def kick_jobs(self, request: Request) -> Response:
        """Make the buried and delayed jobs that match ready."""
        tube = requests.tube_name(request)
        given = await requests.arguments(request)
        wanted = given.meant(("delayed", "buried"))
        given.end()
        return await self._bulk(request, f"kick in {tube} {wanted}", "kicked", await self._matching.kick(tube, wanted))

    async def bury_jobs(self, request: Request) -> Response:
        """Bury the ready and delayed jobs that match."""
        tube = requests.tube_name(request)
        given = await requests.arguments(request)
        reason = given.text("reason", "", MAX_REASON)
        wanted = given.meant(("ready", "delayed"))
        given.end()
        # A worker may have reserved some since they were found.
        bulk = await self._matching.each(tube, wanted, lambda number: self._jobs.bury(number, reason, wanted.states))
        return await self._bulk(request, f"bury in {tube} {wanted}", "buried", bulk)

    async def duplicate_jobs(self, request: Request) -> Response:
        """Put a ready job like each one that matches."""
        tube = requests.tube_name(request)
        given = await requests.arguments(request)
        wanted = given.meant()
        given.end()
        bulk = await self._matching.each(tube, wanted, self._jobs.duplicate)
        return await self._bulk(request, f"duplicate in {tube} {wanted}", "duplicated", bulk)

    async def release_jobs(self, request: Request) -> Response:
        """Take the jobs that match from their connections, and make them ready."""
        tube = requests.tube_name(request)
        given = await requests.arguments(request)
        wanted = given.meant(("reserved",))
        given.end()
        bulk = await self._matching.each(tube, wanted, self._jobs.release)
        return await self._bulk(request, f"release in {tube} {wanted}", "released", bulk)

    async def set_priorities(self, request: Request) -> Response:
        """Give the jobs that match and that nobody holds another priority."""
        tube = requests.tube_name(request)
        given = await requests.arguments(request)
        priority = given.number("priority", None)
        wanted = given.meant(UNHELD)
        given.end()
        states = wanted.states
        bulk = await self._matching.each(tube, wanted, lambda number: self._jobs.set_priority(number, priority, states))
        return await self._bulk(request, f"priority {priority} in {tube} of {wanted}", "changed", bulk)

    async def set_delays(self, request: Request) -> Response:
        """Delay the jobs that match and that nobody holds."""
        tube = requests.tube_name(request)
        given = await requests.arguments(request)
        delay = given.number("delay", None)
        wanted = given.meant(UNHELD)
        given.end()
        states = wanted.states
        bulk = await self._matching.each(tube, wanted, lambda number: self._jobs.set_delay(number, delay, states))
        return await self._bulk(request, f"delay {delay} in {tube} of {wanted}", "changed", bulk)

    async def _bulk(self, request: Request, what: str, done: str, bulk: Bulk) -> Response:
        """Wait for a change of many jobs, and tell how many were changed. Jobs that were changed before a failure stay changed."""
        note(request, f"{what}: begins")
        bulk.then(lambda _: note(request, f"{what}: {bulk.value} {done}"))
        if PROGRESS in request.headers.get("accept", ""):
            return StreamingResponse(progress(self._outcomes, done, bulk), media_type=PROGRESS)
        try:
            await self._outcomes.done(bulk)
        except EngineError as error:
            raise type(error)(f"{error}; {bulk.value:,} were {done} by then") from error
        return JSONResponse({done: bulk.value})

    # --- jobs

    async def job(self, request: Request) -> Response:
        """Show a job."""
        return JSONResponse(await self._jobs.show(requests.job_id(request)))

    async def body(self, request: Request) -> Response:
        """Send a job's whole body, as a file."""
        number = requests.job_id(request)
        body = memoryview(await self._jobs.body(number))

        async def parts() -> AsyncIterator[bytes]:
            for first in range(0, len(body), CHUNK):
                yield bytes(body[first : first + CHUNK])
                await asyncio.sleep(0)

        headers = {"content-disposition": f'attachment; filename="job-{number}"', "content-length": str(len(body))}
        return StreamingResponse(parts(), media_type="application/octet-stream", headers=headers)

    async def delete(self, request: Request) -> Response:
        """Delete a job."""
        return await self._changed(request, "delete", self._jobs.delete)

    async def kick(self, request: Request) -> Response:
        """Kick a job."""
        return await self._changed(request, "kick", self._jobs.kick)

    async def release(self, request: Request) -> Response:
        """Make a job ready that a connection has reserved."""
        return await self._changed(request, "release", self._jobs.release)

    async def bury(self, request: Request) -> Response:
        """Bury a job."""
        given = await requests.arguments(request)
        reason = given.text("reason", "", MAX_REASON)
        given.end()
        return await self._changed(request, "bury", lambda number: self._jobs.bury(number, reason))

    async def duplicate(self, request: Request) -> Response:
        """Put a ready job like this one."""
        number = requests.job_id(request)
        tube, copy = await self._jobs.duplicate(number)
        note(request, f"duplicate job {number} of {tube} as {copy}")
        return JSONResponse({"id": copy, "tube": tube}, 201)

    async def set_priority(self, request: Request) -> Response:
        """Give a job another priority."""
        given = await requests.arguments(request)
        priority = given.number("priority", None)
        given.end()
        what = f"set the priority {priority} of"
        return await self._changed(request, what, lambda number: self._jobs.set_priority(number, priority))

    async def set_delay(self, request: Request) -> Response:
        """Delay a job that nobody holds."""
        given = await requests.arguments(request)
        delay = given.number("delay", None)
        given.end()
        what = f"set the delay {delay} of"
        return await self._changed(request, what, lambda number: self._jobs.set_delay(number, delay))

    async def _changed(self, request: Request, what: str, change: Any) -> Response:
        number = requests.job_id(request)
        tube = await change(number)
        note(request, f"{what} job {number} of {tube}")
        return JSONResponse({"id": number, "tube": tube})


def _how(given: requests.Arguments) -> tuple[int, int, int]:
    """Take the priority, delay and TTR of a put, the last arguments."""
    how = given.number("priority", MAX_U32 // 2), given.number("delay", 0), given.number("ttr", 60)
    given.end()
    return how
