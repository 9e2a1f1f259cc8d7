"""The client's errors. Impossible arguments raise ValueError instead.

ClientError
├── ServerGone          there is no connection: refused, closed, reset, or silent for too long
├── BrokenReply         the bytes are no reply of the protocol, or none to this command; the connection cannot be used again
├── AdminRefused        the admin port refused a request, or a change of many jobs ended early
└── Refused             the server refused the command and did nothing; the connection goes on
    ├── JobNotFound     there is no such job, or not in a state that allows this
    ├── JobLost         this connection does not hold the job any more: stop working on it
    ├── TubeNotFound    there is no such tube
    ├── JobTooBig       the body is larger than the server accepts
    ├── Draining        the server accepts no more jobs
    ├── StoreFull       the server has no room (OUT_OF_MEMORY)
    │   └── JobBuried   the server has no room for a ready job, and keeps it buried
    ├── StoreFailed     the server failed (INTERNAL_ERROR); it may have carried out the command
    ├── DeadlineSoon    a job held by this connection times out within a second
    ├── NotIgnored      a connection watches at least one tube
    └── NotUnderstood   the server does not know the command or its arguments
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
    """There is no connection: the server refused, closed or reset it, or was silent for too long.

    The server may have carried out commands on their way.
    """


class BrokenReply(ClientError):  # noqa: N818 - likewise
    """The bytes are no reply of the protocol, or none to this command. The connection cannot be used again."""


class AdminRefused(ClientError):  # noqa: N818 - likewise
    """The admin port refused a request, or a change of many jobs ended early. The jobs that were changed by then stay changed.

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
    """This connection does not hold the job any more: its time to run is over, or it was deleted. Stop working on it."""

    text = "the job is not held any more"


class TubeNotFound(Refused):
    """There is no such tube: it has no job, and nobody uses or watches it."""

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
    """The server failed. It may have carried out the command."""

    text = "the server failed (INTERNAL_ERROR); its log says why"


class DeadlineSoon(Refused):
    """A job that this connection holds times out within a second. Touch it or finish it before the next reserve."""

    text = "a job held by this connection times out within a second"


class NotIgnored(Refused):
    """A connection watches at least one tube."""

    text = "a connection watches at least one tube"


class NotUnderstood(Refused):
    """The server does not know the command or its arguments: it is older, or not beanstalkd."""

    text = "the server does not understand this command"
