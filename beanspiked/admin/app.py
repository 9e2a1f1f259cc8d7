"""The whole application: health, metrics, the API, and the console's files."""

from __future__ import annotations

import asyncio
import logging
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from beanspiked.admin import audit, dialects
from beanspiked.admin.api import Api
from beanspiked.admin.connections import Connections
from beanspiked.admin.errors import Problem, Unusable
from beanspiked.admin.exposition import CONTENT_TYPE
from beanspiked.admin.guard import Guard
from beanspiked.admin.history import History
from beanspiked.admin.job_api import JobApi
from beanspiked.admin.jobs import Jobs
from beanspiked.admin.lag import LoopWatch
from beanspiked.admin.matching import Matching
from beanspiked.admin.outcomes import Outcomes
from beanspiked.admin.snapshot import Snapshot, Snapshots
from beanspiked.engine.errors import EngineError, JobGone, StoreFailed, StoreFull

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from beanspiked.admin.options import AdminOptions
    from beanspiked.server.broker import Broker
    from beanspiked.server.server import Server

__all__ = ["Application"]

logger = logging.getLogger(__name__)

CONSOLE: Final = {
    "": ("index.html", "text/html; charset=utf-8"),
    "console.css": ("console.css", "text/css; charset=utf-8"),
    "charts.js": ("charts.js", "text/javascript; charset=utf-8"),
    "console.js": ("console.js", "text/javascript; charset=utf-8"),
    "templates.js": ("templates.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}


class Application:
    """The application of the admin port.

    Args:
        options: The admin port's options.
        broker: Has the figures and jobs; its engine is there already.
        server: Has the connections.
        watch: Measures how late the event loop is.
        journal: The journal's directory, or None.

    Attributes:
        asgi: The application, as uvicorn calls it.
        history: The last hour; the caller has to keep it up to date.
        snapshots: The figures that all parts show.
        stopping: Whether the server is about to end.
    """

    def __init__(
        self, options: AdminOptions, broker: Broker, server: Server, watch: LoopWatch, journal: str | None
    ) -> None:
        # Each change is logged with its author, even if the server logs only warnings.
        audit.log.setLevel(logging.INFO)
        self.stopping = False
        self._options = options
        self._broker = broker
        self._watch = watch
        self._journal = journal
        outcomes = Outcomes(broker)
        self.history = History()
        self.snapshots = Snapshots(outcomes, self.history.growth)
        self._rendering: dict[str, tuple[Snapshot, asyncio.Task[list[bytes]]]] = {}
        jobs = Jobs(outcomes)
        api = Api(self.snapshots, self.history, jobs, Connections(outcomes, server), options.read_only)
        job_api = JobApi(outcomes, jobs, Matching(outcomes, jobs))
        package = files("beanspiked.admin")
        self._files = {
            path: ((package / "console" / name).read_bytes(), media) for path, (name, media) in CONSOLE.items()
        }
        self._openapi = (package / "openapi.json").read_bytes()
        routes = [
            Route("/healthz", self._healthz, methods=["GET"]),
            Route("/readyz", self._readyz, methods=["GET"]),
            Route("/metrics", self._metrics, methods=["GET"]),
            Route("/api/v1/openapi.json", self._api_described, methods=["GET"]),
            Mount("/api/v1", routes=[*api.routes(), *job_api.routes()]),
            Route("/{file}", self._file, methods=["GET"]),
            Route("/", self._file, methods=["GET"]),
        ]
        handlers: dict[Any, Any] = {Problem: _problem, EngineError: _failure, 404: _nothing, 405: _nothing}
        below = [Mount(options.prefix, routes=routes)] if options.prefix else routes
        self.starlette = Starlette(routes=below, exception_handlers=handlers)
        self.asgi = Guard(self.starlette, options)

    async def _healthz(self, _: Request) -> Response:
        """Answer that the event loop turns. This checks nothing else."""
        return PlainTextResponse("ok\n")

    async def _readyz(self, _: Request) -> Response:
        reasons = list(self._broker.engine.troubles())
        if self._broker.draining:
            reasons.append("draining: puts are refused")
        if self.stopping:
            reasons.append("stopping")
        return JSONResponse({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    async def _metrics(self, request: Request) -> Response:
        dialect = request.query_params.get("compat", "")
        if dialect not in dialects.DIALECTS:
            raise Unusable(f"compat: not one of {', '.join(filter(None, dialects.DIALECTS))}")
        try:
            snapshot = await self.snapshots.get()
        except StoreFailed:
            if dialect:
                raise
            # What tells of the trouble is told all the same.
            snapshot = self.snapshots.without_jobs()
        rendering = self._rendering.get(dialect)
        if rendering is None or rendering[0] is not snapshot or rendering[1].cancelled():
            text = dialects.render(dialect, snapshot, self._options, self._watch, self._journal, self._broker.times)
            rendering = self._rendering[dialect] = (snapshot, asyncio.get_running_loop().create_task(text))
        # A client that hangs up does not cancel the text for others.
        pieces = await asyncio.shield(rendering[1])
        length = str(sum(map(len, pieces)))
        return StreamingResponse(_each(pieces), headers={"content-type": CONTENT_TYPE, "content-length": length})

    async def _api_described(self, _: Request) -> Response:
        return Response(self._openapi, media_type="application/json")

    async def _file(self, request: Request) -> Response:
        found = self._files.get(request.path_params.get("file", ""))
        if found is None:
            return await _nothing(request, None)
        return Response(found[0], headers={"content-type": found[1]})


async def _each(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)


async def _problem(_: Request, problem: Problem) -> Response:
    return JSONResponse({"error": str(problem)}, problem.status)


async def _failure(_: Request, error: EngineError) -> Response:
    status = 404 if isinstance(error, JobGone) else 507 if isinstance(error, StoreFull) else 503
    return JSONResponse({"error": str(error)}, status)


async def _nothing(_: Request, error: object) -> Response:
    status = getattr(error, "status_code", 404)
    return JSONResponse({"error": "no such method here" if status == 405 else "there is nothing here"}, status)
