"""The replies of the protocol as values, and the possible replies of each command."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

__all__ = ["ANY_TIME", "EXPECTED", "Reply", "Shape"]


class Shape(Enum):
    """The kind of data after a reply's word."""

    BARE = "nothing"
    NUMBER = "a number"
    NAME = "a name"
    DOCUMENT = "a size, and on the next lines this many bytes"
    JOB = "an id and a size, and on the next lines this many bytes"


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply. Fields that its word does not have are zero or empty.

    Attributes:
        word: Its first word, such as `INSERTED`; empty when the server closed the connection after `quit`.
        number: A job's id, or a count.
        name: A tube's name.
        body: A job's body, or a YAML document.
    """

    word: str
    number: int = 0
    name: str = ""
    body: bytes = b""


# protocol.txt: "There are several error responses [...] any command".
ANY_TIME: Final = dict.fromkeys(("OUT_OF_MEMORY", "INTERNAL_ERROR", "BAD_FORMAT", "UNKNOWN_COMMAND"), Shape.BARE)

_BARE: Final = Shape.BARE
_NUMBER: Final = Shape.NUMBER
_DOCUMENT: Final = {"OK": Shape.DOCUMENT}
_DOCUMENT_OF: Final = {"OK": Shape.DOCUMENT, "NOT_FOUND": _BARE}
_LOOK: Final = {"FOUND": Shape.JOB, "NOT_FOUND": _BARE}
_RESERVE: Final = {"RESERVED": Shape.JOB, "DEADLINE_SOON": _BARE, "TIMED_OUT": _BARE}

# The replies besides those of `ANY_TIME`. `put` and `release` get BURIED when the queue has no memory.
EXPECTED: Final[dict[str, dict[str, Shape]]] = {
    "put": {
        "INSERTED": _NUMBER,
        "BURIED": _NUMBER,
        "EXPECTED_CRLF": _BARE,
        "JOB_TOO_BIG": _BARE,
        "DRAINING": _BARE,
    },
    "use": {"USING": Shape.NAME},
    "reserve": _RESERVE,
    "reserve-with-timeout": _RESERVE,
    "reserve-job": {"RESERVED": Shape.JOB, "NOT_FOUND": _BARE},
    "delete": {"DELETED": _BARE, "NOT_FOUND": _BARE},
    "release": {"RELEASED": _BARE, "BURIED": _BARE, "NOT_FOUND": _BARE},
    "bury": {"BURIED": _BARE, "NOT_FOUND": _BARE},
    "touch": {"TOUCHED": _BARE, "NOT_FOUND": _BARE},
    "watch": {"WATCHING": _NUMBER},
    "ignore": {"WATCHING": _NUMBER, "NOT_IGNORED": _BARE},
    "peek": _LOOK,
    "peek-ready": _LOOK,
    "peek-delayed": _LOOK,
    "peek-buried": _LOOK,
    "kick": {"KICKED": _NUMBER},
    "kick-job": {"KICKED": _BARE, "NOT_FOUND": _BARE},
    "stats": _DOCUMENT,
    "stats-job": _DOCUMENT_OF,
    "stats-tube": _DOCUMENT_OF,
    "list-tubes": _DOCUMENT,
    "list-tube-used": {"USING": Shape.NAME},
    "list-tubes-watched": _DOCUMENT,
    "pause-tube": {"PAUSED": _BARE, "NOT_FOUND": _BARE},
    "quit": {},
}
