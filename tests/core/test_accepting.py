"""How clients are accepted where there are as many as may be."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING

from beanspiked.server.loop import Loop, Timer
from beanspiked.server.poller import Poller
from beanspiked.server.server import Server
from beanspiked.server.sockets import Sockets

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulated import Wire


class Counting(Loop):
    """Counts the calls that are planned and not made yet."""

    planned = 0

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        def made() -> None:
            self.planned -= 1
            callback()

        self.planned += 1
        return super().call_later(delay, made)


def test_clients_that_come_and_go_at_the_limit_plan_one_next_try_to_accept(wire: Wire) -> None:
    poller = Poller(wire.broker, Sockets())
    loop = Counting(poller)
    with socket.create_server(("127.0.0.1", 0)) as listening, contextlib.ExitStack() as clients:
        listening.setblocking(False)
        for _ in range(9):
            clients.enter_context(socket.create_connection(listening.getsockname()))
        server = Server(wire.broker, poller, loop, [listening])
        server.most = 1
        server.accept()
        for _ in range(5):
            until = time.monotonic() + 10
            while not server.connections:
                assert time.monotonic() < until
                loop.call_soon(loop.stop)
                loop.run_forever()
            # The next client is refused until this one ends.
            server.accept_from(listening)
            next(iter(server.connections)).abort()
            wire.broker.end_turn()
        assert loop.planned == 1
        for connection in list(server.connections):
            connection.abort()
    loop.close()
    poller.close()
