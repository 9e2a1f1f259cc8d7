"""Functions that make a request for each command of the protocol. A request knows its bytes and the meaning of the replies.

Names, defaults and results are those of the library if they mean the same: peeks and stats return None if there is nothing, `delete`
returns whether it deleted the job, `reserve` returns None when the time is up. Times are whole seconds, as on the wire.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from beanspiked.client import documents
from beanspiked.client.errors import (
    DeadlineSoon,
    Draining,
    JobBuried,
    JobLost,
    JobNotFound,
    JobTooBig,
    NotIgnored,
    NotUnderstood,
    Refused,
    StoreFailed,
    StoreFull,
    TubeNotFound,
)
from beanspiked.protocol.lines import MAX_TIMEOUT, MAX_U32, MAX_U64, valid_tube_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from beanspiked.client.documents import Stats
    from beanspiked.client.replies import Reply

__all__ = [
    "DEFAULT_PRIORITY",
    "DEFAULT_TTR",
    "Job",
    "Request",
    "accepted",
    "bury",
    "delete",
    "ignore",
    "kick",
    "kick_job",
    "list_tube_used",
    "list_tubes",
    "list_tubes_watched",
    "pause_tube",
    "peek",
    "peek_buried",
    "peek_delayed",
    "peek_ready",
    "put",
    "quit_",
    "release",
    "reserve",
    "reserve_job",
    "reserve_with_timeout",
    "stats",
    "stats_job",
    "stats_tube",
    "touch",
    "use",
    "watch",
]

DEFAULT_PRIORITY: Final = 1024
DEFAULT_TTR: Final = 60
# `stats` has an id of 16 hexadecimal digits.
SERVER_TEXT: Final = documents.TEXT | {"id"}

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

REFUSALS: Final[dict[str, type[Refused]]] = {
    "OUT_OF_MEMORY": StoreFull,
    "INTERNAL_ERROR": StoreFailed,
    "BAD_FORMAT": NotUnderstood,
    "UNKNOWN_COMMAND": NotUnderstood,
    "EXPECTED_CRLF": NotUnderstood,
    "JOB_TOO_BIG": JobTooBig,
    "DRAINING": Draining,
    "DEADLINE_SOON": DeadlineSoon,
    "NOT_IGNORED": NotIgnored,
}


@dataclass(frozen=True, slots=True)
class Request(Generic[T_co]):
    """One command.

    Attributes:
        verb: Its first word.
        command: Its line, for errors.
        data: Its bytes.
        read: Makes the result from a reply that is not a refusal.
        missing: The error that NOT_FOUND raises; None if `read` handles it.
        wait: How many seconds the server may take, because the command waits; None for no limit.
    """

    verb: str
    command: str
    data: bytes
    read: Callable[[Reply], T_co]
    missing: type[Refused] | None = None
    wait: float | None = 0

    def outcome(self, reply: Reply) -> T_co:
        """Return the result. Raises Refused."""
        refusal = self.missing if reply.word == "NOT_FOUND" else REFUSALS.get(reply.word)
        if refusal is None and reply.word == "BURIED" and self.verb != "bury":
            refusal = JobBuried
        if refusal is not None:
            raise refusal(self.command)
        return self.read(reply)


@dataclass(frozen=True, slots=True)
class Job:
    """A job that was reserved or peeked at.

    Attributes:
        id: Its id.
        body: Its body.
    """

    id: int
    body: bytes


def accepted(outcomes: Iterable[T | Refused]) -> list[T]:
    """Return the outcomes of `ask_all`; raise the first Refused among them."""
    results: list[T] = []
    for outcome in outcomes:
        if isinstance(outcome, Refused):
            raise outcome
        results.append(outcome)
    return results


def put(body: bytes, *, priority: int = DEFAULT_PRIORITY, delay: int = 0, ttr: int = DEFAULT_TTR) -> Request[int]:
    """Add a job to the used tube; the result is its id. A time to run of 0 becomes one second."""
    numbers = f"{_u32(priority, 'priority')} {_u32(delay, 'delay')} {_u32(ttr, 'ttr')}"
    line = f"put {numbers} {_u32(len(body), 'size of the body')}"
    return Request("put", line, b"%b\r\n%b\r\n" % (line.encode(), body), _number)


def use(tube: str) -> Request[str]:
    """Choose the tube for puts, kicks and peeks; the result is its name."""
    return _request("use", _tube(tube), read=_name)


def reserve() -> Request[Job | None]:
    """Take the most urgent ready job of the watched tubes, or wait for one; None only if the server ends the wait."""
    return _request("reserve", read=_job, wait=None)


def reserve_with_timeout(timeout: int) -> Request[Job | None]:
    """Take the most urgent ready job of the watched tubes, or wait for one; None after this many seconds without one."""
    return _request("reserve-with-timeout", _checked(timeout, MAX_TIMEOUT, "timeout"), read=_job, wait=timeout)


def reserve_job(job_id: int) -> Request[Job | None]:
    """Take the job with this id, of any tube, unless it is reserved; None when there is none. Needs beanstalkd 1.12."""
    return _request("reserve-job", _id(job_id), read=_job)


def delete(job_id: int) -> Request[bool]:
    """Delete a job that this connection or nobody holds; False when there is none, or somebody else holds it."""
    return _request("delete", _id(job_id), read=lambda reply: reply.word == "DELETED")


def release(job_id: int, *, priority: int = DEFAULT_PRIORITY, delay: int = 0) -> Request[None]:
    """Make a held job ready or delayed, with this priority and delay. Refused with JobLost."""
    return _request(
        "release", _id(job_id), _u32(priority, "priority"), _u32(delay, "delay"), read=_nothing, missing=JobLost
    )


def bury(job_id: int, *, priority: int = DEFAULT_PRIORITY) -> Request[None]:
    """Bury a held job until somebody kicks it. Refused with JobLost."""
    return _request("bury", _id(job_id), _u32(priority, "priority"), read=_nothing, missing=JobLost)


def touch(job_id: int) -> Request[None]:
    """Start a held job's time to run again. Refused with JobLost."""
    return _request("touch", _id(job_id), read=_nothing, missing=JobLost)


def watch(tube: str) -> Request[int]:
    """Also reserve from this tube; the result is how many are watched."""
    return _request("watch", _tube(tube), read=_number)


def ignore(tube: str) -> Request[int]:
    """Stop reserving from this tube; the result is how many are watched. Refused with NotIgnored."""
    return _request("ignore", _tube(tube), read=_number)


def peek(job_id: int) -> Request[Job | None]:
    """Show a job of any tube and state."""
    return _request("peek", _id(job_id), read=_job)


def peek_ready() -> Request[Job | None]:
    """Show the used tube's job that is reserved next."""
    return _request("peek-ready", read=_job)


def peek_delayed() -> Request[Job | None]:
    """Show the used tube's delayed job that is due first."""
    return _request("peek-delayed", read=_job)


def peek_buried() -> Request[Job | None]:
    """Show the used tube's job that was buried first."""
    return _request("peek-buried", read=_job)


def kick(number: int) -> Request[int]:
    """Make up to `number` buried jobs of the used tube ready, or delayed ones if none is buried; the result is how many."""
    return _request("kick", _u32(number, "number"), read=_number)


def kick_job(job_id: int) -> Request[None]:
    """Make a buried or delayed job ready. Refused with JobNotFound."""
    return _request("kick-job", _id(job_id), read=_nothing, missing=JobNotFound)


def stats() -> Request[Stats]:
    """Return the server's statistics."""
    return _request("stats", read=lambda reply: documents.mapping(reply.body, SERVER_TEXT))


def stats_job(job_id: int) -> Request[Stats | None]:
    """Return the statistics of a job of any tube and state."""
    return _request("stats-job", _id(job_id), read=_stats)


def stats_tube(tube: str) -> Request[Stats | None]:
    """Return a tube's statistics."""
    return _request("stats-tube", _tube(tube), read=_stats)


def list_tubes() -> Request[list[str]]:
    """List all tubes."""
    return _request("list-tubes", read=_names)


def list_tube_used() -> Request[str]:
    """Return the name of the used tube."""
    return _request("list-tube-used", read=_name)


def list_tubes_watched() -> Request[list[str]]:
    """List the watched tubes."""
    return _request("list-tubes-watched", read=_names)


def pause_tube(tube: str, seconds: int) -> Request[None]:
    """Pause a tube for this many seconds; 0 ends the pause. Refused with TubeNotFound."""
    return _request("pause-tube", _tube(tube), _u32(seconds, "seconds"), read=_nothing, missing=TubeNotFound)


def quit_() -> Request[None]:
    """Ask the server to close the connection. Its end is the reply."""
    return _request("quit", read=_nothing)


def _request(
    verb: str,
    *words: str | int,
    read: Callable[[Reply], T],
    missing: type[Refused] | None = None,
    wait: float | None = 0,
) -> Request[T]:
    line = " ".join([verb, *map(str, words)])
    return Request(verb, line, f"{line}\r\n".encode(), read, missing, wait)


def _tube(name: str) -> str:
    if not valid_tube_name(name.encode("utf-8", "surrogateescape")):
        raise ValueError(f"{name!r} is not a valid tube name")
    return name


def _id(job_id: int) -> int:
    return _checked(job_id, MAX_U64, "id")


def _u32(value: int, name: str) -> int:
    return _checked(value, MAX_U32, name)


def _checked(value: int, limit: int, name: str) -> int:
    if not 0 <= value <= limit:
        raise ValueError(f"{name}: from 0 to {limit}, not {value}")
    return value


def _number(reply: Reply) -> int:
    return reply.number


def _name(reply: Reply) -> str:
    return reply.name


def _names(reply: Reply) -> list[str]:
    return documents.sequence(reply.body)


def _nothing(reply: Reply) -> None:
    """Read a reply that is a word only."""


def _job(reply: Reply) -> Job | None:
    return Job(reply.number, reply.body) if reply.word in ("FOUND", "RESERVED") else None


def _stats(reply: Reply) -> Stats | None:
    return documents.mapping(reply.body) if reply.word == "OK" else None
