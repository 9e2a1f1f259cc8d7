"""The channel between a server's parent process and one of its workers. It carries whole messages, some with descriptors."""

from __future__ import annotations

import array
import socket
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "CLIENT",
    "CLIENTS",
    "COUNT",
    "COUNTERS",
    "HELLO",
    "READY",
    "TOTAL",
    "UP",
    "VARIABLE",
    "Channel",
    "Message",
    "pair",
]

# The variable that tells a worker the descriptor of its end.
VARIABLE: Final = "BEANSPIKED_CHANNEL"

# From the parent, as the first message: the worker's number, and the admin port's socket if it serves that.
HELLO: Final = "hello"
# From the parent: a client's socket.
CLIENT: Final = "client"
# To the parent: the worker takes clients.
UP: Final = "up"
# To the parent: whether it has a session with the store, so that commands succeed.
READY: Final = "ready"
# To the parent: how many clients it has taken since it began, and how many of these have gone.
CLIENTS: Final = "clients"
# A question for counters, with a number that the asker chose: to the parent for those of the other workers, from it for this one's own.
COUNT: Final = "count"
# To the parent: a worker's counters, with the number of the question.
COUNTERS: Final = "counters"
# From the parent: how many workers answered, and the sums of their counters, with the question's number.
TOTAL: Final = "total"

# The size of the longest message, in bytes. It has some fifty numbers.
MAX_MESSAGE: Final = 8192
DESCRIPTORS_AT_ONCE: Final = 1


class Message(NamedTuple):
    """A message: a word, numbers, and descriptors that the receiver now owns."""

    kind: str
    numbers: list[int]
    descriptors: list[int]


class Channel:
    """One end of a channel.

    Args:
        sock: A socket that keeps messages whole.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock

    def fileno(self) -> int:
        """Return the descriptor, which is readable when there is a message."""
        return self._sock.fileno()

    def send(self, kind: str, numbers: Iterable[int] = (), descriptors: Sequence[int] = ()) -> bool:
        """Send a message. Returns False if the other end reads too slowly or is gone; `receive` tells if it is gone."""
        try:
            socket.send_fds(self._sock, [" ".join((kind, *map(str, numbers))).encode()], descriptors)
        except OSError:
            return False
        return True

    def receive(self) -> Message | None:
        """Return the next message, or None if there is none now.

        The message lacks descriptors for which this process has no room.

        Raises:
            EOFError: The other end is gone.
        """
        descriptors = array.array("i")
        try:
            data, ancillary, _, _ = self._sock.recvmsg(
                MAX_MESSAGE, socket.CMSG_LEN(DESCRIPTORS_AT_ONCE * descriptors.itemsize), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return None
        except OSError as error:
            raise EOFError from error
        if not data:
            raise EOFError
        for _, _, content in ancillary:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
        kind, *numbers = data.decode().split(" ")
        return Message(kind, [int(number) for number in numbers], descriptors.tolist())

    def close(self) -> None:
        """Close this end."""
        self._sock.close()


def pair() -> tuple[Channel, socket.socket]:
    """Make both ends: one for the parent, and one that a worker inherits."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.set_inheritable(True)
    return Channel(ours), theirs
