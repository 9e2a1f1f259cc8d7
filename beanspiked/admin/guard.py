"""Checks every request: who sends it, from where, for what, and how often."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from base64 import b64decode
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from beanspiked.admin.errors import Problem, Refused
from beanspiked.admin.options import is_loopback

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from beanspiked.admin.options import AdminOptions

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

__all__ = ["HEADER", "OPEN_TO_ALL", "Guard"]

logger = logging.getLogger(__name__)

# The header of each change. A browser sends it for a page of another site only after a question to this server, which refuses.
HEADER: Final = "x-beanspiked"
# Probes show no secret.
OPEN_TO_ALL: Final = ("/healthz", "/readyz")
READING: Final = ("GET", "HEAD")
# How long the event loop serves only jobs after a request, in seconds, however many requests wait.
PAUSE: Final = 0.002

POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS: Final = [
    (b"content-security-policy", POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


class Unauthorized(Problem):
    """The secret is missing or wrong."""

    status = 401


class Misdirected(Problem):
    """The request names another host."""

    status = 421


class Guard:
    """An ASGI application around another one.

    Args:
        app: Answers the requests that are allowed.
        options: Say which requests are allowed.
    """

    def __init__(self, app: App, options: AdminOptions) -> None:
        self._app = app
        self._options = options
        self._pace = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        async with self._pace:
            await asyncio.sleep(PAUSE)
        sent = False

        async def send_guarded(message: Message) -> None:
            nonlocal sent
            if message["type"] == "http.response.start":
                sent = True
                message = {**message, "headers": [*message.get("headers", []), *SECURITY_HEADERS]}
            await send(message)

        try:
            user = self._check(scope)
            # Nothing else needs the server's name. Without it redirects are relative: behind a proxy that ends TLS, an address made here
            # would lead to plain HTTP.
            headers = [header for header in scope["headers"] if header[0] != b"host"]
            await self._app({**scope, "user": user, "server": None, "headers": headers}, receive, send_guarded)
        except Problem as problem:
            if sent:
                raise
            await _refuse(problem, send_guarded)

    def _check(self, scope: Scope) -> str:
        """Return the name of the client's user. Raises Problem."""
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            headers[name.decode("latin-1")] = value.decode("latin-1")
        user = "-"
        if self._options.token:
            if scope["path"].removeprefix(self._options.prefix) not in OPEN_TO_ALL:
                user = self._user(headers.get("authorization", ""))
        elif "host" in headers:
            # A check of a load balancer may speak HTTP/1.0 and name no host; browsers always do.
            _check_host(headers["host"])
        if scope["method"] not in READING:
            _check_origin(headers)
            if self._options.read_only:
                raise Refused("the admin port is read-only")
        return user

    def _user(self, authorization: str) -> str:
        """Return the user who shows the secret: as a bearer token, or as any user's password, for which browsers ask."""
        scheme, _, value = authorization.partition(" ")
        user, secret = "token", ""
        if scheme.lower() == "bearer":
            secret = value.strip()
        elif scheme.lower() == "basic":
            try:
                user, _, secret = b64decode(value, validate=True).decode().partition(":")
            except ValueError as error:
                raise Unauthorized("the authorization header cannot be read") from error
            if not user.isprintable():
                # It stands in the log.
                raise Unauthorized("the name of the user has characters that cannot be printed")
        if not hmac.compare_digest(secret.encode(), self._options.token.encode()):
            raise Unauthorized("show the secret: as a bearer token, or as the password of any user")
        return user or "-"


def _check_host(host: str) -> None:
    """Refuse host names if there is no secret: a page of any site can make its own name point to this machine."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name != "localhost":
            is_loopback(name)
    except ValueError as error:
        raise Misdirected("without a secret, ask by address or as localhost") from error


def _check_origin(headers: dict[str, str]) -> None:
    """Refuse changes from a page of another site."""
    if HEADER not in headers:
        raise Refused(f"a change needs the header {HEADER}: 1")
    site = headers.get("sec-fetch-site")
    origin = headers.get("origin")
    if site is not None:
        if site not in ("same-origin", "none"):
            raise Refused("the request comes from a page of another site")
    elif origin is not None and _place(origin) != headers.get("host", ""):
        raise Refused("the request comes from a page of another site")


def _place(origin: str) -> str | None:
    """Return an origin's host and port; None if it cannot be read."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


async def _refuse(problem: Problem, send: Send) -> None:
    body = json.dumps({"error": str(problem)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if problem.status == Unauthorized.status:
        headers += [
            (b"www-authenticate", b'Basic realm="beanspiked", charset="UTF-8"'),
            (b"www-authenticate", b"Bearer"),
        ]
    # The rest of the request is not read.
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
