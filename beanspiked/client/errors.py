"""The client's errors. Impossible arguments raise ValueError instead.

ClientError
├── ServerGone          there is no connection: refused, closed, reset, or silent for too long
├── BrokenReply         the bytes are not a reply of the protocol, or not one to this command; the connection cannot be used again
├── AdminRefused        the admin port refused a request, or a change of many jobs ended early
└── Refused             the server refused the command; it did nothing, and the connection goes on
    ├── JobNotFound     there is no such job, or not in a state that allows this
    ├── JobLost         this connection does not hold the job any more: abandon the work
    ├── TubeNotFound    there is no such tube
    ├── JobTooBig       the body is larger than the server accepts
    ├── Draining        the server accepts no more jobs
    ├── StoreFull       it has no room (OUT_OF_MEMORY)
    │   └── JobBuried   it has no room for a ready job, and keeps it buried
    ├── StoreFailed     it failed (INTERNAL_ERROR); the command may have been carried out
    ├── DeadlineSoon    a job held by this connection times out within a second
    ├── NotIgnored      a connection watches at least one tube
    └── NotUnderstood   it does not know the command or its arguments
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AdminRefused",
    "BrokenReply",
    "ClientError",
    "DeadlineSoon",
    "Draining",
    "JobBuried",
    "JobLost",
    "JobNotFound",
    "JobTooBig",
    "NotIgnored",
    "NotUnderstood",
    "Refused",
    "ServerGone",
    "StoreFailed",
    "StoreFull",
    "TubeNotFound",
]


class ClientError(Exception):
    """A command was not carried out, or its outcome is unknown."""


class ServerGone(ClientError):  # noqa: N818 - it says what happened
    """There is no connection to the server: it refused, closed or reset it, or was silent for too long.

    Commands on their way may have been carried out.
    """


class BrokenReply(ClientError):  # noqa: N818 - likewise
    """The bytes are not a reply of the protocol, or not one to this command; the connection cannot be used again."""


class AdminRefused(ClientError):  # noqa: N818 - likewise
    """The admin port refused a request, or a change of many jobs ended early: what was done by then stays done.

    Attributes:
        status: The status of the HTTP response.
    """

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status: int = status


class Refused(ClientError):  # noqa: N818 - likewise
    """The server refused a command.

    Attributes:
        command: The command without its body, such as `delete 12`.
    """

    text: ClassVar[str] = "the server refuses"

    def __init__(self, command: str) -> None:
        super().__init__(command)
        self.command: str = command

    def __str__(self) -> str:
        return f"{self.command}: {self.text}"


class JobNotFound(Refused):
    """There is no such job, or it is not in a state that allows this."""

    text = "there is no such job, or it is in another state"


class JobLost(Refused):
    """This connection does not hold the job any more: its time to run is over, or it was deleted. Abandon the work."""

    text = "the job is not held any more"


class TubeNotFound(Refused):
    """There is no such tube: nothing is in it, and nobody uses or watches it."""

    text = "there is no such tube"


class JobTooBig(Refused):
    """The body is larger than the server accepts (its `max-job-size`)."""

    text = "the job is larger than the server accepts"


class Draining(Refused):
    """The server is draining and accepts no more jobs."""

    text = "the server is draining and accepts no more jobs"


class StoreFull(Refused):
    """The server has no room."""

    text = "the server has no room"


class JobBuried(StoreFull):
    """The server has no room for a ready job, and keeps it buried."""

    text = "the server has no room, and buried the job"


class StoreFailed(Refused):
    """The server failed; the command may have been carried out."""

    text = "the server failed (INTERNAL_ERROR); its log says why"


class DeadlineSoon(Refused):
    """A job that this connection holds times out within a second: touch it or finish it before the next reserve."""

    text = "a job held by this connection times out within a second"


class NotIgnored(Refused):
    """A connection watches at least one tube."""

    text = "a connection watches at least one tube"


class NotUnderstood(Refused):
    """The server does not know the command or its arguments: it is older, or not beanstalkd."""

    text = "the server does not understand this command"
