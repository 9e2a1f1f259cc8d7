"""The commands of beanstalkd 1.13's protocol as values, and the table of their words.

A verb is a small integer, so that a command is counted and dispatched by indexing a list. The order of `PREFIXES` is the
order in which beanstalkd compares prefixes (prot.c: which_cmd); it decides which command a mistyped word is.
"""

from typing import Final

from mypy_extensions import mypyc_attr

__all__ = ["PREFIXES", "STATS_NAMES", "VERB_COUNT", "Command"]

PUT: Final = 0
PEEK: Final = 1
PEEK_READY: Final = 2
PEEK_DELAYED: Final = 3
PEEK_BURIED: Final = 4
RESERVE: Final = 5
RESERVE_WITH_TIMEOUT: Final = 6
DELETE: Final = 7
RELEASE: Final = 8
USE: Final = 9
WATCH: Final = 10
IGNORE: Final = 11
BURY: Final = 12
KICK: Final = 13
TOUCH: Final = 14
STATS: Final = 15
STATS_JOB: Final = 16
STATS_TUBE: Final = 17
LIST_TUBES: Final = 18
LIST_TUBE_USED: Final = 19
LIST_TUBES_WATCHED: Final = 20
PAUSE_TUBE: Final = 21
# Not counted in `stats`.
RESERVE_JOB: Final = 22
KICK_JOB: Final = 23
QUIT: Final = 24
# Not words of the protocol, but other things that the parser finds on a connection.
BODY: Final = 25
REFUSED: Final = 26
PUT_TOO_BIG: Final = 27
FOREIGN: Final = 28
VERB_COUNT: Final = 29

# The kinds of a command's argument.
PLAIN: Final = 0
ID: Final = 1
TUBE: Final = 2
OTHER: Final = 3

# beanstalkd's order of comparison: `reserve` comes after the longer words that begin with it, and `pause-tube` has no space.
PREFIXES: Final[list[tuple[bytes, int, int]]] = [
    (b"put ", PUT, OTHER),
    (b"peek ", PEEK, ID),
    (b"peek-ready", PEEK_READY, PLAIN),
    (b"peek-delayed", PEEK_DELAYED, PLAIN),
    (b"peek-buried", PEEK_BURIED, PLAIN),
    (b"reserve-with-timeout ", RESERVE_WITH_TIMEOUT, OTHER),
    (b"reserve-job ", RESERVE_JOB, ID),
    (b"reserve", RESERVE, PLAIN),
    (b"delete ", DELETE, ID),
    (b"release ", RELEASE, OTHER),
    (b"bury ", BURY, OTHER),
    (b"kick ", KICK, OTHER),
    (b"kick-job ", KICK_JOB, ID),
    (b"touch ", TOUCH, ID),
    (b"stats-job ", STATS_JOB, ID),
    (b"stats-tube ", STATS_TUBE, TUBE),
    (b"stats", STATS, PLAIN),
    (b"use ", USE, TUBE),
    (b"watch ", WATCH, TUBE),
    (b"ignore ", IGNORE, TUBE),
    (b"list-tubes-watched", LIST_TUBES_WATCHED, PLAIN),
    (b"list-tube-used", LIST_TUBE_USED, PLAIN),
    (b"list-tubes", LIST_TUBES, PLAIN),
    (b"quit", QUIT, OTHER),
    (b"pause-tube", PAUSE_TUBE, OTHER),
]

# The `cmd-` fields of `stats`, in beanstalkd's order.
STATS_NAMES: Final[list[tuple[str, int]]] = [
    ("cmd-put", PUT),
    ("cmd-peek", PEEK),
    ("cmd-peek-ready", PEEK_READY),
    ("cmd-peek-delayed", PEEK_DELAYED),
    ("cmd-peek-buried", PEEK_BURIED),
    ("cmd-reserve", RESERVE),
    ("cmd-reserve-with-timeout", RESERVE_WITH_TIMEOUT),
    ("cmd-delete", DELETE),
    ("cmd-release", RELEASE),
    ("cmd-use", USE),
    ("cmd-watch", WATCH),
    ("cmd-ignore", IGNORE),
    ("cmd-bury", BURY),
    ("cmd-kick", KICK),
    ("cmd-touch", TOUCH),
    ("cmd-stats", STATS),
    ("cmd-stats-job", STATS_JOB),
    ("cmd-stats-tube", STATS_TUBE),
    ("cmd-list-tubes", LIST_TUBES),
    ("cmd-list-tube-used", LIST_TUBE_USED),
    ("cmd-list-tubes-watched", LIST_TUBES_WATCHED),
    ("cmd-pause-tube", PAUSE_TUBE),
]


@mypyc_attr(free_list_len=1)
class Command:
    """One command from a connection; arguments that its verb does not have are zero or empty.

    Attributes:
        verb: One of this module's verb numbers.
        id: A job id, or the bound of `kick`, or the timeout of `reserve-with-timeout` in seconds.
        pri: A priority, 0 (most urgent) to 2**32 - 1.
        delay: Seconds.
        ttr: Seconds.
        name: A tube name.
        body: A job's body; None in a `PUT` whose body is still on its way (a `BODY` follows).
        reply: For `REFUSED`, and for a put with a bad trailer, the reply that the client gets.
        counts: For `REFUSED`, the verb that `stats` counts nevertheless, or -1.
        since: When it was parsed, where it had to wait and may be measured; else 0.
    """

    def __init__(
        self,
        verb: int,
        id: int = 0,  # noqa: A002 - the protocol's own word
        pri: int = 0,
        delay: int = 0,
        ttr: int = 0,
        name: str = "",
        body: bytes | None = None,
        reply: bytes = b"",
        counts: int = -1,
    ) -> None:
        self.verb = verb
        self.id = id
        self.pri = pri
        self.delay = delay
        self.ttr = ttr
        self.name = name
        self.body = body
        self.reply = reply
        self.counts = counts
        self.since = 0.0
