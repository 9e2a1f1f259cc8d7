"""What goes to the journal and what comes back from it."""

from typing import Final, cast

from beanspiked.engine.contract import BURIED, DELAYED, PLAIN, READY, Details, Job, Tube
from beanspiked.engine.later import Later
from beanspiked.engine.timers import NEVER

__all__ = [
    "BURY",
    "COLUMNS",
    "DELETE",
    "DROP",
    "KICK",
    "MOVE",
    "PAUSE",
    "PUT",
    "RELEASE",
    "UPDATE",
    "Row",
    "Write",
    "fault_of",
    "is_tube_name",
    "job_of",
]

# One job as the journal keeps it. SQLite holds any column to no type, so each is looked at.
Row = tuple[object, ...]
COLUMNS: Final = (
    "id, tube, state, pri, delay, ttr, born, place, body, reserves, timeouts, releases, buries, kicks,"
    " metadata, reason, retries, failed, raw_size"
)

MAX_PRI: Final = 4294967295
MAX_NAME: Final = 200
NAME_CHARS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-+/;.$_()")

PUT: Final = 0
DELETE: Final = 1
RELEASE: Final = 2
BURY: Final = 3
KICK: Final = 4
PAUSE: Final = 5
UPDATE: Final = 6
# Any number of jobs deleted.
DROP: Final = 7
# Any number of jobs moved to another tube.
MOVE: Final = 8


class Write(Later):
    """One change on its way to the journal, with the values that it sets.

    Attributes:
        op: Which change.
        jobs: The jobs that are changed: one, but any number for KICK, DROP and MOVE, and none for PAUSE.
        pri: Its new priority.
        delay: Its new delay, or how long a pause lasts, in seconds.
        due: When a job that was put or released with a delay becomes ready, in seconds since the epoch.
        burial, reason: The number of a burial, and why.
        tube, name: The tube that is paused or moved to; of a paused one that is gone its name only.
        until: When the pause ends, in seconds since the epoch.
        body, raw_size: The new body.
    """

    def __init__(self, op: int, job: Job | None = None, name: str = "") -> None:
        super().__init__()
        self.op: int = op
        self.jobs: list[Job] = [] if job is None else [job]
        self.pri: int = 0
        self.delay: float = 0.0
        self.due: float = 0.0
        self.burial: int = 0
        self.reason: str = ""
        self.name: str = name
        self.until: float = 0.0
        self.body: bytes = b""
        self.raw_size: int = -1
        self.tube: Tube | None = None


def fault_of(row: Row) -> str:
    """Tell what keeps a row from being a job; nothing when it is one. Its tube's name is looked at once for all rows of it."""
    # Written out, without loops: it runs a million times before a server can answer.
    job_id, tube, state, pri, delay, ttr, born, place = row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7]
    if not isinstance(job_id, int) or job_id <= 0:
        return "its id is not positive"
    if not isinstance(tube, str):
        return "its tube is no text"
    if not isinstance(state, int) or (state != READY and state != DELAYED and state != BURIED):  # noqa: PLR1714 - as above
        return "its state is unknown"
    if not isinstance(pri, int) or not 0 <= pri <= MAX_PRI:
        return "its priority is out of range"
    if not isinstance(delay, float) or not 0.0 <= delay < NEVER or not isinstance(ttr, float) or not 0.0 <= ttr < NEVER:
        return "its delay or its time to run is no number of seconds"
    if not isinstance(born, float) or not -NEVER < born < NEVER:
        return "its time of birth is no number"
    if not isinstance(place, float) or not -NEVER < place < NEVER:
        return "its place is no number"
    if not isinstance(row[8], bytes):
        return "its body is no blob"
    if (
        not isinstance(row[9], int)
        or not isinstance(row[10], int)
        or not isinstance(row[11], int)
        or not isinstance(row[12], int)
        or not isinstance(row[13], int)
    ):
        return "one of its counters is no number"
    if not isinstance(row[14], str) or not isinstance(row[15], str):
        return "its metadata or its reason is no text"
    if not isinstance(row[16], int) or not isinstance(row[17], int) or not isinstance(row[18], int):
        return "what the library noted of it is no number"
    return ""


def job_of(row: Row, tube: Tube, born: float) -> Job:
    """Make the job that a row without a fault is of."""
    metadata, reason = cast(str, row[14]), cast(str, row[15])
    retries, failed, raw_size = cast(int, row[16]), cast(int, row[17]), cast(int, row[18])
    details: Details | None = None
    if metadata or reason or retries or failed or raw_size != PLAIN:
        details = Details(metadata, reason, retries, failed != 0, raw_size)
    pri, delay, ttr = cast(int, row[3]), cast(float, row[4]), cast(float, row[5])
    job = Job(cast(int, row[0]), tube, pri, delay, ttr, born, cast(bytes, row[8]), details)
    job.reserves = cast(int, row[9])
    job.timeouts = cast(int, row[10])
    job.releases = cast(int, row[11])
    job.buries = cast(int, row[12])
    job.kicks = cast(int, row[13])
    return job


def is_tube_name(name: object) -> bool:
    """Tell whether a tube may have this name (protocol.txt: NAME_CHARS, at most 200 of them, no leading hyphen)."""
    return isinstance(name, str) and 0 < len(name) <= MAX_NAME and name[0] != "-" and set(name) <= NAME_CHARS
