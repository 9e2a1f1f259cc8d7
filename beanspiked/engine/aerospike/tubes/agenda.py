"""What is in flight, and what begins next."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar, cast

from beanspiked.engine.aerospike.cluster.news import News
from beanspiked.engine.aerospike.segment.batch import Batch
from beanspiked.engine.aerospike.segment.committer import Committer
from beanspiked.engine.aerospike.segment.surroundings import Home
from beanspiked.engine.aerospike.store.request import Request
from beanspiked.engine.aerospike.store.tasks import Tasks

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore

__all__ = ["Agenda", "Requester"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class Requester:
    """What requests jobs for those who wait."""

    def request_jobs(self, tube: Home) -> None:
        """Request jobs of a tube for those who wait."""
        raise NotImplementedError

    def advance_seeks(self, tube: Home) -> None:
        """Go on with the questions about a tube: something was learnt of it."""
        raise NotImplementedError


class Agenda:
    """What is asked for in one pass of the event loop is sent in the next, together.

    Args:
        store: The store.
        news: This front-end's news.
        tasks: What runs coroutines.
        turn: Lets sessions go on.

    Attributes:
        requester: What requests jobs; to be set before anything is begun.
        running: Segments with an operation in flight.
        suspended: Segments that do not answer, of which no jobs are requested for now.
        looked_at: Segments that are being looked at, each by itself.
    """

    def __init__(self, store: "SegmentStore", news: News, tasks: Tasks, turn: Callable[[], None]) -> None:
        self.requester: Requester = Requester()
        self.running: dict[Committer, None] = {}
        self.suspended: dict[Committer, None] = {}
        self.looked_at: dict[Committer, None] = {}
        self._store = store
        self._news = news
        self._tasks = tasks
        self._turn = turn
        self._step: int = 0
        self._awake: dict[Committer, None] = {}
        self._to_request: dict[Home, None] = {}
        # Whether `_pass` is going to be called.
        self._due: bool = False
        self._sent: dict[Request, Committer] = {}

    def spawn(self, coroutine: Coroutine[Any, Any, Result]) -> "asyncio.Task[Result]":
        """Run a coroutine beside everything else. Its end ends a turn, so what it does last becomes known without a word of it."""
        task = self._tasks.spawn(coroutine)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:  # noqa: ARG002 - however it ended
        self.turn_over()

    def step(self) -> int:
        """Number one more moment, to tell which of two things was known first."""
        self._step += 1
        return self._step

    def request_soon(self, tube: Home) -> None:
        """Have jobs of a tube requested in the next pass, if somebody waits for them."""
        if tube.waited_for():
            self._to_request[tube] = None
            self._come_back()

    def wake(self, committer: Committer) -> None:
        """Have a segment's operation begin in the next pass."""
        self._awake[committer] = None
        self._come_back()

    def busy(self) -> list[Committer]:
        """List the segments with an operation or a look in flight, or an operation that is about to begin."""
        return [*self.running, *self._awake, *self.looked_at]

    def turn_over(self) -> None:
        """Let sessions go on, and send on what they ask for: something became known."""
        # The others hear of it before anybody learns here that it was done.
        self._news.flush()
        self._turn()

    def _come_back(self) -> None:
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._pass)

    def _pass(self) -> None:
        """Request jobs, and send the changes of all segments that are awake."""
        self._due = False
        while self._to_request:
            to_request = self._to_request
            self._to_request = {}
            for tube in to_request:
                try:
                    self.requester.request_jobs(tube)
                except Exception as error:
                    logger.error("internal error: no jobs were requested of tube %s", tube.name, exc_info=error)
        awake = self._awake
        self._awake = {}
        batches: list[Request] = []
        for committer in awake:
            if committer.gathers():
                self.wake(committer)
                continue
            batch = committer.begin()
            if batch is not None:
                batches.append(batch)
                self._sent[batch] = committer
        if batches:
            self._store.send(batches, self._told)

    def _told(self, requests: list[Request]) -> None:
        """Hand out the outcomes of changes, all before anybody goes on."""
        for request in requests:
            committer = self._sent.pop(request)
            try:
                committer.end(cast(Batch, request))
            except Exception as error:
                # The others of the same call must be told nevertheless.
                logger.error("internal error in segment %d", committer.number, exc_info=error)
        self.turn_over()
