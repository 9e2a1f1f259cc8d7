"""Everything in which the two servers may differ: one table, and the comparison that applies it.

An allowance works in one of two ways. `rewrite` changes a command line before it is sent, so that the situation does not arise.
`fields` names keys of the YAML replies that are compared within `slack`, or not at all when slack is None.
Sections are those of the project's reference of beanstalkd's behaviour; test_allowed.py shows the ones that can be shown.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from twins.framing import LINE_LIMIT
from twins.replies import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """One permitted difference, why it is permitted and how the harness steps around it."""

    name: str
    section: str
    reason: str
    rewrite: Callable[[bytes], bytes] | None = None
    fields: frozenset[str] = field(default_factory=frozenset)
    slack: int | None = None


_TIMEOUT = re.compile(rb"reserve-with-timeout (?! *\d).*|reserve-with-timeout  *(\d++).*", re.DOTALL)
_CR_PLACE = LINE_LIMIT - 1


def _without_cr(line: bytes) -> bytes:
    return line.replace(b"\r", b"?")


def _off_the_boundary(line: bytes) -> bytes:
    return line + b"?" if len(line) % LINE_LIMIT == _CR_PLACE else line


def _strict_timeout(line: bytes) -> bytes:
    match = _TIMEOUT.fullmatch(line)
    if match is None or (match[1] is not None and int(match[1]) < 2**31):
        return line
    return b"reserve-with-timeout 0"


ALLOWED: tuple[Allowance, ...] = (
    Allowance(
        name="quoted names",
        section="head, 1",
        reason='1.13 writes tube: "x" and name: "x", 1.12 leaves them bare',
        # No field is let off: `unquoted` takes the quotes away, and what is between them is compared.
    ),
    Allowance(
        name="reserve-with-timeout argument",
        section="head, 2",
        reason="1.12 reads it with strtol (empty, letters and signs are accepted), 1.13 strictly",
        rewrite=_strict_timeout,
    ),
    Allowance(
        name="first CR only",
        section="1.1",
        reason="beanstalkd looks at the first CR in its buffer only, and hangs when it is not followed by LF",
        rewrite=_without_cr,
    ),
    Allowance(
        name="CR at byte 224",
        section="1.1",
        reason="beanstalkd throws such a CR away with its buffer, misses the end of the line and swallows the next command",
        rewrite=_off_the_boundary,
    ),
    Allowance(
        name="another protocol",
        section="1.1",
        reason="beanstalkd executes what follows the first line of an HTTP request, or a TLS handshake; the grammar has neither",
    ),
    Allowance(
        name="half-uploaded jobs",
        section="2.1",
        reason="beanstalkd lets peek and stats-job see a job whose body is still arriving; the machine asks for no id it was not told",
    ),
    Allowance(
        name="order of waiters",
        section="2.2",
        reason="beanstalkd serves waiters on one tube only roughly in order; the machine lets one connection wait on a tube at a time",
    ),
    Allowance(
        name="TTR of an idle holder",
        section="2.3",
        reason="beanstalkd forgets about half of its TTR timers (one that fires within the deadline's own microsecond is not set again)"
        " until the holder speaks; the timed scenarios make every holder speak first",
    ),
    Allowance(
        name="closed behind a reserve",
        section="2.5",
        reason="what stands behind the blocked reserve of a closed connection runs or not as the packets fall;"
        " the machine ends its sending side first",
    ),
    Allowance(
        name="process and host",
        section="2.9",
        reason="the two are different programs: who they are, how long they ran and what they used",
        fields=frozenset(
            {"stats.pid", "stats.version", "stats.rusage-utime", "stats.rusage-stime", "stats.uptime"}
            | {"stats.id", "stats.hostname", "stats.os", "stats.platform"}
        ),
    ),
    Allowance(
        name="beanspiked-version",
        section="2.11",
        reason="our stats end with two more keys, which no client's test forbids",
        fields=frozenset({"stats.beanspiked-io", "stats.beanspiked-version"}),
    ),
    Allowance(
        name="journal",
        section="2.9, 2.10",
        reason="our journal is not beanstalkd's binlog, which runs without one here: no file numbers to compare",
        fields=frozenset(
            {"stats.binlog-oldest-index", "stats.binlog-current-index", "stats.binlog-records-migrated"}
            | {"stats.binlog-records-written", "stats.binlog-max-size", "stats-job.file"}
        ),
    ),
    Allowance(
        name="the clock",
        section="2.10, 2.11",
        reason="both count whole seconds, and a second may pass between the two answers",
        fields=frozenset({"stats-job.age", "stats-job.time-left", "stats-tube.pause-time-left"}),
        slack=1,
    ),
    Allowance(
        name="the harness's own questions",
        section="none",
        reason="the harness asks each server for stats until it is at rest, and peeks when a waiter wakes; test_counters.py counts them",
        fields=frozenset({"stats.cmd-stats", "stats.cmd-peek"}),
    ),
)

# Keys of one side, and only there.
EXTRA_KEYS = frozenset({"stats.beanspiked-io", "stats.beanspiked-version"})
_SLACK = {name: allowance.slack for allowance in ALLOWED for name in allowance.fields}
_QUOTED = frozenset({"stats-job.tube", "stats-tube.name"})
_KINDS = {b"current-jobs-urgent": "stats", b"id": "stats-job", b"name": "stats-tube"}


def avoid(line: bytes) -> bytes:
    """Rewrite a command line that would run into a listed difference."""
    for allowance in ALLOWED:
        if allowance.rewrite is not None:
            line = allowance.rewrite(line)
    return line


def unquoted(value: bytes) -> bytes:
    """Take away the quotes that 1.13 writes around a name."""
    return value[1:-1] if len(value) > 1 and value[:1] == value[-1:] == b'"' else value


def _mapping(reply: Reply) -> tuple[str, list[tuple[str, bytes]]] | None:
    """Read a stats body: its kind, and its keys and values in order."""
    if not reply.line.startswith(b"OK ") or reply.body is None or not reply.body.startswith(b"---\n"):
        return None
    pairs = [line.partition(b": ")[::2] for line in reply.body[4:].removesuffix(b"\n").split(b"\n")]
    kind = _KINDS.get(pairs[0][0])
    if kind is None:
        return None
    named = [(f"{kind}.{key.decode('latin-1')}", value) for key, value in pairs]
    return kind, [pair for pair in named if pair[0] not in EXTRA_KEYS]


def _same_value(name: str, left: bytes, right: bytes) -> bool:
    if name in _QUOTED:
        left, right = unquoted(left), unquoted(right)
    if left == right:
        return True
    if name not in _SLACK:
        return False
    slack = _SLACK[name]
    return slack is None or (left.isdigit() and right.isdigit() and abs(int(left) - int(right)) <= slack)


def same(left: Reply, right: Reply) -> bool:
    """Tell whether two replies are equal but for what ALLOWED permits."""
    if left == right:
        return True
    one, other = _mapping(left), _mapping(right)
    if one is None or other is None or len(one[1]) != len(other[1]):
        return False
    return all(a == b and _same_value(a, x, y) for (a, x), (b, y) in zip(one[1], other[1], strict=True))
