"""What is in flight, and what begins at the end of this turn."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from beanspiked.engine.aerospike.cluster.news import News
from beanspiked.engine.aerospike.segment.committer import Committer
from beanspiked.engine.aerospike.segment.surroundings import Home
from beanspiked.engine.aerospike.store.tasks import Tasks

__all__ = ["Agenda", "Requester"]


class Requester:
    """What requests jobs for those who wait."""

    def request_jobs(self, tube: Home) -> None:
        """Request jobs of a tube for those who wait."""
        raise NotImplementedError

    def advance_seeks(self, tube: Home) -> None:
        """Go on with the questions about a tube: something was learnt of it."""
        raise NotImplementedError


class Agenda:
    """What the end of a turn does.

    Args:
        news: This front-end's news.
        tasks: What runs coroutines.
        turn: Lets sessions go on; calls `flush` at its end.

    Attributes:
        requester: What requests jobs; to be set before anything is begun.
        running: Segments with an operation in flight.
        suspended: Segments that do not answer, of which no jobs are requested for now.
        gathering: How many segments wait for what the sockets bring in this pass of the event loop.
    """

    def __init__(self, news: News, tasks: Tasks, turn: Callable[[], None]) -> None:
        self.requester: Requester = Requester()
        self.running: dict[Committer, None] = {}
        self.suspended: dict[Committer, None] = {}
        self.gathering: int = 0
        self._news = news
        self._tasks = tasks
        self._turn = turn
        self._step: int = 0
        self._awake: dict[Committer, None] = {}
        self._to_request: dict[Home, None] = {}

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run a coroutine beside everything else. Its end ends a turn, so what it does last becomes known without a word of it."""
        task = self._tasks.spawn(coroutine)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:  # noqa: ARG002 - however it ended
        self.turn_over()

    def step(self) -> int:
        """Number one more moment, to tell which of two things was known first."""
        self._step += 1
        return self._step

    def request_soon(self, tube: Home) -> None:
        """Have jobs of a tube requested at the end of this turn, if somebody waits for them."""
        if tube.waited_for():
            self._to_request[tube] = None

    def wake(self, committer: Committer) -> None:
        """Have a segment's operation begin at the end of this turn."""
        self._awake[committer] = None

    def busy(self) -> list[Committer]:
        """List the segments with an operation in flight, or one that is about to begin."""
        return [*self.running, *self._awake]

    def turn_over(self) -> None:
        """Let sessions go on, and send on what they ask for: something became known."""
        # The others hear of it before anybody learns here that it was done.
        self._news.flush()
        self._turn()

    def flush(self) -> None:
        """Send on what was asked for in this turn of the event loop, unless more comes in the same pass: then it goes along with that."""
        if not self.gathering:
            self.send_on()

    def send_on(self) -> None:
        """Send on what was asked for."""
        while self._to_request:
            to_request = self._to_request
            self._to_request = {}
            for tube in to_request:
                self.requester.request_jobs(tube)
        if self._awake:
            awake = self._awake
            self._awake = {}
            for committer in awake:
                committer.start()
