"""The way between a server's parent process and one of its workers: whole messages, some of which carry descriptors."""

from __future__ import annotations

import array
import socket
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["CLIENT", "COUNT", "COUNTERS", "ENDED", "HELLO", "TOTAL", "UP", "VARIABLE", "Channel", "Message", "pair"]

# The variable that tells a worker the descriptor of its end.
VARIABLE: Final = "BEANSPIKED_CHANNEL"

# From the parent: who the worker is, and the admin port's socket if it serves that; the first message.
HELLO: Final = "hello"
# From the parent: a client's socket.
CLIENT: Final = "client"
# To the parent: the worker takes clients.
UP: Final = "up"
# To the parent: how many of its clients have gone since it began.
ENDED: Final = "ended"
# A question for counters under a number that the asker chose: to the parent for those of the other workers, from it for this one's own.
COUNT: Final = "count"
# To the parent: a worker's counters, under the number of its question.
COUNTERS: Final = "counters"
# From the parent: under the question's number how many workers answered, and the sums of their counters.
TOTAL: Final = "total"

# In bytes; the longest message has some fifty numbers.
MAX_MESSAGE: Final = 8192
DESCRIPTORS_AT_ONCE: Final = 1


class Message(NamedTuple):
    """What one end has sent: a word, numbers, and descriptors of which the receiver is the owner now."""

    kind: str
    numbers: list[int]
    descriptors: list[int]


class Channel:
    """One end.

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
        """Send a message. False if it cannot be sent: the other end reads too slowly, or is gone, which `receive` will tell."""
        try:
            socket.send_fds(self._sock, [" ".join((kind, *map(str, numbers))).encode()], descriptors)
        except OSError:
            return False
        return True

    def receive(self) -> Message | None:
        """Return the next message, or None if there is none now.

        A descriptor that this process has no room for is missing in the message.

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
