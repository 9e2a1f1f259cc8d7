"""An admin port without sockets, the application over a broker on a virtual clock; and the console of a running server."""

from __future__ import annotations

import asyncio
import json
import shlex
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from chromium import Page, browsing
from console import Console
from launcher import ServerProcess, free_port, serving
from simulated import Wire
from suite import COMMAND

from beanspiked.admin.app import Application
from beanspiked.admin.lag import LoopWatch
from beanspiked.admin.options import AdminOptions
from beanspiked.server.poller import Poller
from beanspiked.server.server import Server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


CHANGE = {"X-Beanspiked": "1"}


class NoLoop:
    """No loop is needed by a server that accepts nobody."""


class Port:
    """The admin port of a simulated server, and its client."""

    def __init__(self, wire: Wire, options: AdminOptions | None = None) -> None:
        self.wire = wire
        self.poller = Poller(wire.broker)
        self.options = options or AdminOptions("127.0.0.1", 0)
        server: Any = NoLoop()
        self.server = Server(wire.broker, self.poller, server, [])
        self.watch = LoopWatch(lambda: wire.clock.time)
        self.application = Application(self.options, wire.broker, self.server, self.watch, None)
        self.asgi = self.application.asgi

    def talk(self, conversation: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            transport = httpx.ASGITransport(self.asgi)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:11301") as client:
                return await conversation(client)

        return asyncio.run(run())

    def request(
        self, method: str, path: str, headers: dict[str, str] | None = None, **arguments: Any
    ) -> httpx.Response:
        async def ask(client: httpx.AsyncClient) -> httpx.Response:
            return await client.request(method, path, headers=headers, **arguments)

        answer: httpx.Response = self.talk(ask)
        self.wire.settle()
        return answer

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.request("GET", path, headers)

    def json(self, path: str) -> Any:
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def change(self, method: str, path: str, said: dict[str, Any] | None = None) -> httpx.Response:
        return self.request(method, path, CHANGE, content=json.dumps(said).encode() if said is not None else b"")

    def post(self, path: str, **said: Any) -> httpx.Response:
        return self.change("POST", path, said)


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def make_port(wire: Wire) -> Iterator[Callable[..., Port]]:
    """Makes the port with other options."""
    made: list[Port] = []

    def make(**changed: Any) -> Port:
        options = AdminOptions("127.0.0.1", 0)
        for name, value in changed.items():
            setattr(options, name, value)
        made.append(Port(wire, options))
        return made[-1]

    yield make
    for port in made:
        port.poller.close()


@pytest.fixture
def port(make_port: Callable[..., Port]) -> Port:
    return make_port()


@pytest.fixture
def client(wire: Wire) -> Any:
    connected = wire.connect()
    connected.send(b"use t\r\nwatch t\r\n")
    return connected


# --- the console


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[ServerProcess, Page, int]]:
    port = free_port()
    with ExitStack() as stack:
        page = stack.enter_context(browsing())
        yield stack.enter_context(serving(shlex.split(COMMAND), "--admin", str(port), "-z", "200000")), page, port


@pytest.fixture
def console(running: tuple[ServerProcess, Page, int]) -> Iterator[Console]:
    server, page, port = running
    page.show(1200, 900)
    # What the page of the test before complains of comes before its end.
    page.open("about:blank")
    page.asked.clear()
    page.complaints.clear()
    made = Console(server, page, port)
    yield made
    made.conn.close()
    assert page.complaints == []
