"""The JSON API. openapi.json describes it, and a test compares that with the routes."""

from __future__ import annotations

import asyncio
import json
import logging
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from beanspiked.admin import requests
from beanspiked.admin.errors import Missing, Unavailable, Unusable
from beanspiked.admin.jobs import UNHELD
from beanspiked.admin.matching import LISTED_MAX, progress
from beanspiked.admin.slices import page_of, sliced
from beanspiked.protocol.lines import MAX_U32

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from beanspiked.admin.connections import Connections
    from beanspiked.admin.history import History
    from beanspiked.admin.jobs import Jobs
    from beanspiked.admin.matching import Matching
    from beanspiked.admin.outcomes import Outcomes
    from beanspiked.admin.snapshot import Snapshot, Snapshots, TubeRow
    from beanspiked.engine.contract import Bulk

__all__ = ["Api"]

audit = logging.getLogger("beanspiked.audit")

# How many clients may listen for events at a time, and the shortest interval between two events, in seconds.
MAX_LISTENERS: Final = 16
EVENT_EVERY: Final = 1.0
# A client that accepts this type gets a change's progress, one JSON object a line.
PROGRESS: Final = "application/x-ndjson"
# How long the reason for a burial may be, in characters.
MAX_REASON: Final = 1000
# The size of the pieces in which bodies are sent, in bytes.
CHUNK: Final = 65536
SORTS: Final = (
    "trouble",
    "ready",
    "reserved",
    "delayed",
    "buried",
    "age",
    "growth",
    "total_jobs",
    "waiting",
    "watching",
)


class Api:
    """Answers the requests below `/api/v1`.

    Args:
        snapshots: The server's figures.
        history: Their last hour.
        outcomes: Waits for changes of many jobs.
        jobs: Looks at jobs and changes them.
        matching: The same for all jobs that match.
        connections: Shows and closes connections.
        read_only: Whether changes are refused; the console needs this.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        history: History,
        outcomes: Outcomes,
        jobs: Jobs,
        matching: Matching,
        connections: Connections,
        read_only: bool,
    ) -> None:
        self._snapshots = snapshots
        self._history = history
        self._outcomes = outcomes
        self._jobs = jobs
        self._matching = matching
        self._connections = connections
        self._read_only = read_only
        self._listeners = 0

    def routes(self) -> list[Route]:
        """Return all routes, below `/api/v1`."""
        get, post, delete = ["GET"], ["POST"], ["DELETE"]
        return [
            Route("/overview", self.overview, methods=get),
            Route("/history", self.history, methods=get),
            Route("/events", self.events, methods=get),
            Route("/tubes", self.tubes, methods=get),
            Route("/tube", self.tube, methods=get),
            Route("/tube/next", self.next_jobs, methods=get),
            Route("/tube/put", self.put, methods=post),
            Route("/tube/pause", self.pause, methods=post),
            Route("/tube/kick", self.kick_tube, methods=post),
            Route("/tube/jobs", self.jobs, methods=get),
            Route("/tube/jobs/count", self.count, methods=get),
            Route("/tube/clear", self.clear, methods=post),
            Route("/tube/move", self.move, methods=post),
            Route("/tube/kick-jobs", self.kick_jobs, methods=post),
            Route("/tube/bury-jobs", self.bury_jobs, methods=post),
            Route("/tube/duplicate", self.duplicate_jobs, methods=post),
            Route("/tube/priority", self.set_priorities, methods=post),
            Route("/jobs/{id}", self.job, methods=get),
            Route("/jobs/{id}/body", self.body, methods=get),
            Route("/jobs/{id}", self.delete, methods=delete),
            Route("/jobs/{id}/kick", self.kick, methods=post),
            Route("/jobs/{id}/release", self.release, methods=post),
            Route("/jobs/{id}/bury", self.bury, methods=post),
            Route("/jobs/{id}/duplicate", self.duplicate, methods=post),
            Route("/jobs/{id}/priority", self.set_priority, methods=post),
            Route("/connections", self.connections, methods=get),
            Route("/connections/{id}", self.close, methods=delete),
        ]

    # --- the server

    async def overview(self, _: Request) -> Response:
        """Show the totals."""
        return JSONResponse(self._overview(await self._snapshots.get()))

    def _overview(self, snapshot: Snapshot) -> dict[str, object]:
        return {
            "at": round(snapshot.at, 3),
            "stats": snapshot.totals,
            "troubles": snapshot.troubles,
            "read_only": self._read_only,
        }

    async def history(self, request: Request) -> Response:
        """Show the last hour of the server, or of a tube."""
        tube = requests.tube_name(request) if "tube" in request.query_params else None
        return JSONResponse(self._history.shown(tube))

    async def events(self, _: Request) -> Response:
        """Send the totals again and again, at most once a second (server-sent events)."""
        if self._listeners >= MAX_LISTENERS:
            raise Unavailable(f"{MAX_LISTENERS} clients listen already")
        return StreamingResponse(self._told(), media_type="text/event-stream")

    async def _told(self) -> AsyncIterator[str]:
        self._listeners += 1
        try:
            while True:
                snapshot = await self._snapshots.get()
                yield f"id: {snapshot.at:.3f}\ndata: {json.dumps(self._overview(snapshot))}\n\n"
                await asyncio.sleep(EVENT_EVERY)
        finally:
            self._listeners -= 1

    # --- tubes

    async def tubes(self, request: Request) -> Response:
        """Show a page of the tubes whose names contain a text, sorted."""
        offset, limit = requests.page(request)
        search = request.query_params.get("search", "")
        order = request.query_params.get("sort", SORTS[0])
        if order not in (*SORTS, "name"):
            raise Unusable(f"sort: not name or one of {', '.join(SORTS)}")
        snapshot = await self._snapshots.get()
        found: list[TubeRow] = []
        async for some in sliced(snapshot.tubes, 500):
            found += [row for row in some if search in row.name]
        rows = await page_of(found, attrgetter(order), order != "name", offset, limit)
        return JSONResponse({"total": len(found), "tubes": [row.shown() for row in rows]})

    async def tube(self, request: Request) -> Response:
        """Show a tube."""
        name = requests.tube_name(request)
        row = await self._snapshots.row(name)
        if row is None:
            raise Missing(f"there is no tube {name}")
        return JSONResponse(row.shown())

    async def next_jobs(self, request: Request) -> Response:
        """Show the next ready, reserved, delayed and buried job of a tube."""
        tube = requests.tube_name(request)
        shown = await self._jobs.next_of(tube)
        held = await self._connections.next_held(tube)
        reserved = None if held is None else self._jobs.shown(held)
        return JSONResponse({"ready": shown.pop("ready"), "reserved": reserved, **shown})

    async def put(self, request: Request) -> Response:
        """Put a job."""
        tube = requests.tube_name(request)
        given = await requests.arguments(request)
        body = given.body()
        priority, delay, ttr = given.number("priority", MAX_U32 // 2), given.number("delay", 0), given.number("ttr", 60)
        given.end()
        number = await self._jobs.put(tube, body, priority, delay, ttr)
        _audit(request, f"put job {number} of {len(body)} bytes in {tube}")
        return JSONResponse({"id": number}, 201)

    async def pause(self, request: Request) -> Response:
        """Pause a tube."""
        tube = requests.tube_name(request)
        given = await requests.arguments(request)
        seconds = given.number("seconds", 0)
        given.end()
        await self._jobs.pause(tube, seconds)
        _audit(request, f"pause {tube} for {seconds} s")
        return JSONResponse({"tube": tube, "pause": seconds})

    async def kick_tube(self, request: Request) -> Response:
        """Kick jobs of a tube."""
        tube = requests.tube_name(request)
        given = await requests.arguments(request)
        bound = given.number("count", 1)
        given.end()
        count = await self._jobs.kick_tube(tube, bound)
        _audit(request, f"kick {count} jobs of {tube}")
        return JSONResponse({"kicked": count})

    # --- jobs of a tube that match

    async def jobs(self, request: Request) -> Response:
        """Show a page of the jobs of a state that match."""
        tube = requests.tube_name(request)
        given = requests.query(request)
        after, limit = given.text("after", ""), given.number("limit", 50, LISTED_MAX)
        wanted = given.wanted()
        given.end()
        if len(wanted.states) != 1:
            raise Unusable("state: missing; each state has a queue of its own")
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
        bulk = await self._matching.each(tube, wanted, lambda number: self._jobs.bury(number, reason))
        return await self._bulk(request, f"bury in {tube} {wanted}", "buried", bulk)

    async def duplicate_jobs(self, request: Request) -> Response:
        """Put a ready job like each one that matches."""
        tube = requests.tube_name(request)
        given = await requests.arguments(request)
        wanted = given.meant()
        given.end()
        bulk = await self._matching.each(tube, wanted, self._jobs.duplicate)
        return await self._bulk(request, f"duplicate in {tube} {wanted}", "duplicated", bulk)

    async def set_priorities(self, request: Request) -> Response:
        """Give the jobs that match, and that nobody holds, another priority."""
        tube = requests.tube_name(request)
        given = await requests.arguments(request)
        priority = given.number("priority", None)
        wanted = given.meant(UNHELD)
        given.end()
        bulk = await self._matching.each(tube, wanted, lambda number: self._jobs.set_priority(number, priority))
        return await self._bulk(request, f"priority {priority} in {tube} of {wanted}", "changed", bulk)

    async def _bulk(self, request: Request, what: str, done: str, bulk: Bulk) -> Response:
        """Wait for a change of many jobs, and tell how many were changed. Jobs that were changed before a failure stay changed."""
        _audit(request, f"{what}: begins")
        bulk.then(lambda _: _audit(request, f"{what}: {bulk.value} {done}"))
        if PROGRESS in request.headers.get("accept", ""):
            return StreamingResponse(progress(self._outcomes, done, bulk), media_type=PROGRESS)
        await self._outcomes.done(bulk)
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
        _audit(request, f"duplicate job {number} of {tube} as {copy}")
        return JSONResponse({"id": copy, "tube": tube}, 201)

    async def set_priority(self, request: Request) -> Response:
        """Give a job another priority."""
        given = await requests.arguments(request)
        priority = given.number("priority", None)
        given.end()
        what = f"set the priority {priority} of"
        return await self._changed(request, what, lambda number: self._jobs.set_priority(number, priority))

    async def _changed(self, request: Request, what: str, change: Any) -> Response:
        number = requests.job_id(request)
        tube = await change(number)
        _audit(request, f"{what} job {number} of {tube}")
        return JSONResponse({"id": number, "tube": tube})

    # --- connections

    async def connections(self, request: Request) -> Response:
        """Show a page of the connections."""
        offset, limit = requests.page(request)
        return JSONResponse({"total": self._connections.count(), "connections": self._connections.page(offset, limit)})

    async def close(self, request: Request) -> Response:
        """Close a connection."""
        key = request.path_params["id"]
        peer = self._connections.close(key)
        _audit(request, f"close connection {key} from {peer}")
        return JSONResponse({"id": key, "peer": peer})


def _audit(request: Request, what: str) -> None:
    """Log a change with its user and client."""
    client = request.client
    who = f"{client.host}:{client.port}" if client is not None else "unknown"
    audit.info("admin: %s (%s): %s", who, request.scope.get("user", "-"), what)
