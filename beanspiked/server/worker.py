"""A worker: one of a server's several processes. Their parent accepts clients, and hands each to the worker with the fewest."""

from __future__ import annotations

import logging
import os
import socket
from typing import TYPE_CHECKING, Final

from beanspiked.engine.later import Later
from beanspiked.server.channel import CLIENT, CLIENTS, COUNT, COUNTERS, HELLO, READY, TOTAL, UP, Channel
from beanspiked.server.contract import Siblings
from beanspiked.server.poller import READABLE, Poller, Ready

if TYPE_CHECKING:
    from collections.abc import Callable

    from beanspiked.server.alarm import AnyLoop
    from beanspiked.server.broker import Broker
    from beanspiked.server.server import Server

__all__ = ["NoParentError", "Worker"]

logger = logging.getLogger("beanspiked")

# How many messages are read in one turn.
MESSAGES_A_TURN: Final = 64
# How long to wait for the other workers' counters, in seconds. The parent itself waits for less.
ANSWER_WITHIN: Final = 1.0
# The pause between two tries to send the parent a message, in seconds.
TELL_AGAIN_AFTER: Final = 0.1


class NoParentError(Exception):
    """There is no parent at the other end of the channel."""

    def __str__(self) -> str:
        return "BEANSPIKED_CHANNEL is set, but no server has started this process as its worker"


class Worker(Ready):
    """This process as a worker.

    Args:
        descriptor: Its end of the channel to the parent, in digits.

    Attributes:
        number: Its number, from 1.
        admin: The admin port's socket, if this worker serves it.

    Raises:
        NoParentError: This is not such a descriptor.
    """

    def __init__(self, descriptor: str) -> None:
        try:
            os.set_inheritable(int(descriptor), False)
            self._channel = Channel(socket.socket(fileno=int(descriptor)))
        except (OSError, ValueError) as error:
            raise NoParentError from error
        try:
            hello = self._channel.receive()
        except EOFError:
            hello = None
        if hello is None or hello.kind != HELLO:
            self._channel.close()
            raise NoParentError
        self.number, workers, self._pid, started_us, self._draining, self._id = hello.numbers
        self._started_at = started_us / 1000000
        self.admin = socket.socket(fileno=hello.descriptors[0]) if hello.descriptors else None
        self._siblings = Others(workers, self._channel)

    def begin(
        self,
        broker: Broker,
        poller: Poller,
        server: Server,
        loop: AnyLoop,
        stop: Callable[[], None],
        *,
        as_one: bool,
    ) -> None:
        """Take clients from now on.

        Args:
            broker: Counts their commands.
            poller: Hears the parent.
            server: Serves them.
            loop: Makes calls later.
            stop: Called when the parent is gone.
            as_one: Whether `stats` adds up all workers.
        """
        self._poller = poller
        self._broker = broker
        self._server = server
        self._loop = loop
        self._stop = stop
        # How many clients have come and gone, and whether a message about it is about to leave.
        self._taken = 0
        self._ended = 0
        self._telling = False
        if self._draining:
            broker.draining = True
        if as_one:
            self._siblings.begin(broker, loop)
            broker.siblings = self._siblings
            broker.pid = self._pid
            broker.started_at = self._started_at
            broker.instance_id = f"{self._id:016x}"
        server.when_closed = self._client_ended
        poller.add(self._channel.fileno(), self, READABLE)
        self._channel.send(UP)

    def announce(self, *, ready: bool) -> bool:
        """Tell the parent whether commands succeed by now; return False if it reads too slowly."""
        return self._channel.send(READY, [int(ready)])

    def end(self) -> None:
        """Take no more clients."""
        self._server.when_closed = None
        self._poller.remove(self._channel.fileno())
        self._channel.close()

    def on_ready(self, events: int) -> None:  # noqa: ARG002 - the poller's signature
        """Carry out the parent's messages."""
        for _ in range(MESSAGES_A_TURN):
            try:
                message = self._channel.receive()
            except EOFError:
                logger.warning("the parent process is gone; this worker stops")
                self._stop()
                return
            if message is None:
                return
            if message.kind == CLIENT:
                self._take(message.descriptors)
            elif message.kind == COUNT:
                self._channel.send(COUNTERS, [*message.numbers, *self._broker.counters()])
            elif message.kind == TOTAL:
                number, answered, *counters = message.numbers
                self._siblings.answer(number, answered, counters)

    def _take(self, descriptors: list[int]) -> None:
        self._taken += 1
        self._tell_soon()
        if descriptors:
            self._server.adopt(socket.socket(fileno=descriptors[0]))
        else:
            logger.warning(
                "a client's connection was closed: this worker may not open more files; raise the limit (ulimit -n)"
            )
            self._client_ended()

    def _client_ended(self) -> None:
        self._ended += 1
        self._tell_soon()

    def _tell_soon(self) -> None:
        """Tell the parent in the next turn, with one message for all clients that come and go in this one."""
        if not self._telling:
            self._telling = True
            self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        self._telling = False
        if self._server.when_closed is not None and not self._channel.send(CLIENTS, [self._taken, self._ended]):
            self._telling = True
            self._loop.call_later(TELL_AGAIN_AFTER, self._tell)


class Others(Siblings):
    """The other workers. The parent asks them.

    Args:
        workers: How many there are, with this one.
        channel: The channel to the parent.
    """

    def __init__(self, workers: int, channel: Channel) -> None:
        super().__init__(workers)
        self._channel = channel
        self._asked = 0
        self._waiting: dict[int, Later] = {}

    def begin(self, broker: Broker, loop: AnyLoop) -> None:
        """Set the broker to call back, and the loop that calls when time is up."""
        self._broker = broker
        self._loop = loop

    def ask(self) -> Later:
        """Ask for their counters."""
        later = Later()
        self._asked += 1
        self._waiting[self._asked] = later
        number = self._asked
        if self.workers > 1 and self._channel.send(COUNT, [number]):
            self._loop.call_later(ANSWER_WITHIN, lambda: self._give_up(number))
        else:
            self.answer(number, 0, [])
        return later

    def answer(self, number: int, answered: int, counters: list[int]) -> None:
        """Take their counters. An answer may come too late."""
        later = self._waiting.pop(number, None)
        if later is not None:
            self.answered, self.counters = answered, counters
            later.settle()

    def _give_up(self, number: int) -> None:
        self.answer(number, 0, [])
        self._broker.end_turn()
