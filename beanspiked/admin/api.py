"""The JSON API. openapi.json describes it, and a test compares that with the routes."""

from __future__ import annotations

import asyncio
import json
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from beanspiked.admin import requests
from beanspiked.admin.audit import note
from beanspiked.admin.errors import Missing, Unavailable, Unusable
from beanspiked.admin.slices import page_of, sliced
from beanspiked.engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from beanspiked.admin.connections import Connections
    from beanspiked.admin.history import History
    from beanspiked.admin.jobs import Jobs
    from beanspiked.admin.snapshot import Snapshot, Snapshots, TubeRow

__all__ = ["Api"]

# How many clients may listen for events at a time, and the shortest interval between two events, in seconds.
MAX_LISTENERS: Final = 16
EVENT_EVERY: Final = 1.0
EVENTS: Final = "text/event-stream"
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
    """Answers the requests below `/api/v1`, except those for jobs.

    Args:
        snapshots: The server's figures.
        history: Their last hour.
        jobs: Looks at the next jobs of a tube.
        connections: Shows and closes connections.
        read_only: Whether changes are refused; the console needs this.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        history: History,
        jobs: Jobs,
        connections: Connections,
        read_only: bool,
    ) -> None:
        self._snapshots = snapshots
        self._history = history
        self._jobs = jobs
        self._connections = connections
        self._read_only = read_only
        self._listeners = 0

    def routes(self) -> list[Route]:
        """Return its routes, below `/api/v1`."""
        get, post, delete = ["GET"], ["POST"], ["DELETE"]
        return [
            Route("/overview", self.overview, methods=get),
            Route("/history", self.history, methods=get),
            Route("/events", self.events, methods=get),
            Route("/tubes", self.tubes, methods=get),
            Route("/tube", self.tube, methods=get),
            Route("/tube/next", self.next_jobs, methods=get),
            Route("/tube/pause", self.pause, methods=post),
            Route("/tube/kick", self.kick_tube, methods=post),
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

    async def events(self, request: Request) -> Response:
        """Send the totals again and again, at most once a second (server-sent events)."""
        if self._listeners >= MAX_LISTENERS:
            raise Unavailable(f"{MAX_LISTENERS} clients listen already")
        if request.method == "HEAD":
            # Events have no end, and HEAD shows none.
            answer = Response(media_type=EVENTS)
            del answer.headers["content-length"]
            return answer
        return StreamingResponse(self._told(), media_type=EVENTS)

    async def _told(self) -> AsyncIterator[str]:
        self._listeners += 1
        try:
            while True:
                snapshot = await self._snapshots.get()
                yield f"id: {snapshot.at:.3f}\ndata: {json.dumps(self._overview(snapshot))}\n\n"
                await asyncio.sleep(EVENT_EVERY)
        except EngineError:
            # A shared store does not answer. Browsers ask again after the end of the events, but not after an answer such as 503.
            return
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

    async def pause(self, request: Request) -> Response:
        """Pause a tube."""
        tube = requests.tube_name(request)
        given = await requests.arguments(request)
        seconds = given.number("seconds", 0)
        given.end()
        await self._jobs.pause(tube, seconds)
        note(request, f"pause {tube} for {seconds} s")
        return JSONResponse({"tube": tube, "pause": seconds})

    async def kick_tube(self, request: Request) -> Response:
        """Kick jobs of a tube."""
        tube = requests.tube_name(request)
        given = await requests.arguments(request)
        bound = given.number("count", 1)
        given.end()
        count = await self._jobs.kick_tube(tube, bound)
        note(request, f"kick {count} jobs of {tube}")
        return JSONResponse({"kicked": count})

    # --- connections

    async def connections(self, request: Request) -> Response:
        """Show a page of the connections."""
        offset, limit = requests.page(request)
        return JSONResponse({"total": self._connections.count(), "connections": self._connections.page(offset, limit)})

    async def close(self, request: Request) -> Response:
        """Close a connection."""
        key = request.path_params["id"]
        peer = self._connections.close(key)
        note(request, f"close connection {key} from {peer}")
        return JSONResponse({"id": key, "peer": peer})
