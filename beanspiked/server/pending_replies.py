"""Replies to changes that are on their way, which say more than success or undo something after a failure."""

from beanspiked.engine.contract import Job
from beanspiked.engine.later import Later
from beanspiked.protocol import replies
from beanspiked.server.broker import Broker
from beanspiked.server.holds import Holds
from beanspiked.server.reply_queue import PendingReply, ReplyQueue

__all__ = ["HeldReply", "KickReply", "PutReply"]


class PutReply(PendingReply):
    """The reply to a put that is on its way."""

    def __init__(self, queue: ReplyQueue, broker: Broker) -> None:
        super().__init__(queue, b"", replies.INTERNAL_ERROR if broker.engine.shared else replies.OUT_OF_MEMORY)
        self._broker = broker

    def made(self, outcome: Later) -> bytes:
        """Return the reply to a put. Only now its id is known."""
        self._broker.total_jobs += 1
        return replies.inserted(outcome.value)


class KickReply(PendingReply):
    """The reply to a kick that is on its way."""

    def made(self, outcome: Later) -> bytes:
        """Return how many jobs were kicked."""
        return replies.kicked(outcome.value)


class HeldReply(PendingReply):
    """The reply to a change of a job that was held until now. If the change fails, the connection holds the job again."""

    def __init__(self, queue: ReplyQueue, success: bytes, holds: Holds, job: Job) -> None:
        super().__init__(queue, success)
        self._holds = holds
        self._job = job

    def undo(self) -> None:
        """Hold the job again."""
        self._holds.take_back(self._job)
