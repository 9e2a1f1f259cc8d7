"""A job of a segment as this front-end knows it, and the changes of jobs that are on their way."""

from typing import TYPE_CHECKING, Final

from beanspiked.engine.aerospike.segment.codec import Packed
from beanspiked.engine.aerospike.store.keys import SLOT_BITS, job_slot, ready_key
from beanspiked.engine.aerospike.store.tasks import ANSWER_WITHIN
from beanspiked.engine.compression import expand
from beanspiked.engine.contract import READY, Details, Job, Tube
from beanspiked.engine.errors import EngineError
from beanspiked.engine.later import Later

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.segment.view import View

__all__ = ["ANSWER_WITHIN", "BATCH_MAX", "Command", "HeldChange", "Put", "SharedJob", "Steal", "job_id"]

# How many jobs one operation changes at most.
BATCH_MAX: Final = 512
MASK: Final = (1 << SLOT_BITS) - 1


def job_id(number: int, slot: int) -> int:
    """Return the id of the job in a slot of a segment."""
    return number << SLOT_BITS | slot


class SharedJob(Job):
    """A job that this front-end holds, or that it has looked at.

    Attributes:
        number: Its segment.
        place: Its key where it stands: in the lease, or in a queue.
        committer: This front-end's side of its segment while it is held here, else None.
        put_us: When it was put, in microseconds by the server's clock.
        stored: Its body as stored, b"" when it lies outside.
        raw_size, body_number, stored_size, skipped: See Packed.
        born_ms: When its producer says that it was made, or 0.
        form: The format that it is packed in.
        leaving: Whether its place in the lease is being given up: nothing else may move it then.
    """

    __slots__ = (
        "body_number",
        "born_ms",
        "committer",
        "form",
        "leaving",
        "number",
        "place",
        "put_us",
        "raw_size",
        "skipped",
        "stored",
        "stored_size",
    )

    def __init__(self, number: int, place: bytes, tube: Tube, packed: Packed, offset_ms: int) -> None:
        details: Details | None = None
        if packed.metadata or packed.reason or packed.retries or packed.failed:
            details = Details(packed.metadata, packed.reason, packed.retries, packed.failed)
        super().__init__(
            job_id(number, job_slot(place)),
            tube,
            packed.pri,
            packed.delay_ms / 1000,
            packed.ttr_ms / 1000,
            (packed.born_ms or packed.put_us // 1000 - offset_ms) / 1000,
            packed.body,
            details,
        )
        self.number: int = number
        self.place: bytes = place
        self.committer: View | None = None
        self.put_us: int = packed.put_us
        self.stored: bytes = packed.body
        self.raw_size: int = packed.raw_size
        self.body_number: int = packed.body_number
        self.stored_size: int = packed.stored_size
        self.skipped: bool = packed.skipped
        self.born_ms: int = packed.born_ms
        self.form: int = packed.form
        self.leaving: bool = False
        self.reserves = packed.reserves
        self.timeouts = packed.timeouts
        self.releases = packed.releases
        self.buries = packed.buries
        self.kicks = packed.kicks
        self.state = READY

    def slot(self) -> int:
        """Return its slot in its segment."""
        return self.id & MASK

    def lacks_body(self) -> bool:
        """Tell whether its body lies outside and is not there yet: it is never empty."""
        return self.body_number > 0 and not self.body

    def unfold(self, outside: bytes | None) -> None:
        """Make its body what was put, from what is stored here or outside. Raises DamagedEntry."""
        stored = self.stored if outside is None else outside
        self.body = expand(stored, self.raw_size) if self.raw_size >= 0 else stored

    def packed(self) -> Packed:
        """Return everything that a segment keeps of it."""
        details = self.details
        return Packed(
            self.pri,
            round(self.delay * 1000),
            round(self.ttr * 1000),
            self.put_us,
            self.stored,
            self.reserves,
            self.timeouts,
            self.releases,
            self.buries,
            self.kicks,
            self.raw_size,
            self.body_number,
            self.stored_size,
            self.skipped,
            details is not None and details.failed,
            self.born_ms,
            0 if details is None else details.retries,
            "" if details is None else details.metadata,
            "" if details is None else details.reason,
            self.form,
        )


class Command(Later):
    """What was asked of a segment, on its way.

    Attributes:
        until: When it fails if the store cannot be reached, in seconds since the epoch.
    """

    def __init__(self, until: float) -> None:
        super().__init__()
        self.until: float = until

    def fail(self, reason: EngineError) -> None:
        """Tell that it was not done, or that nobody knows."""
        self.settle(reason)


class Put(Command):
    """A put on its way.

    Attributes:
        tube: Where it goes.
        pri: Its priority.
        put_us: Its time in microseconds, by the server's clock; with the priority its place among the ready jobs.
        due_ms: When it is due, by the server's clock; 0 when it is ready at once.
        packed: What the segment will keep of it.
        form: The format that it is packed in: that of the segment which takes it.
        outside: The stored body that will lie outside, or None.
        job: What the packed form is made of when the body lies outside, or None.
        slot: Its slot, given anew each time that it is tried.
    """

    def __init__(self, tube: Tube, pri: int, put_us: int, due_ms: int, packed: bytes, form: int, until: float) -> None:
        super().__init__(until)
        self.tube: Tube = tube
        self.pri: int = pri
        self.put_us: int = put_us
        self.due_ms: int = due_ms
        self.packed: bytes = packed
        self.form: int = form
        self.outside: bytes | None = None
        self.job: Packed | None = None
        self.slot: int = 0


class HeldChange(Command):
    """A held job on its way out of the lease, or to a new value in it.

    Attributes:
        job: The job.
        queue: Where it goes, None to delete it.
        new_key: Its key there.
        packed: What stands there.
        stays: Whether it stays in the lease with a new value.
        insists: Whether it is tried for as long as the lease is there: nobody is left who would try it again.
    """

    def __init__(self, job: SharedJob, queue: str | None, new_key: bytes, packed: bytes, until: float) -> None:
        super().__init__(until)
        self.job: SharedJob = job
        self.queue: str | None = queue
        self.new_key: bytes = new_key
        self.packed: bytes = packed
        self.stays: bool = False
        self.insists: bool = False

    def fail(self, reason: EngineError) -> None:
        """Tell that it was not done, or that nobody knows: the job stays where it was, as far as is known."""
        self.job.leaving = False
        self.job.moving = None
        self.settle(reason)


class Steal(Command):
    """A job on its way from a queue into the lease: reserve-job.

    Attributes:
        job: The job as it was looked at; its place is its key in the queue.
        queue: Which queue.
        key: Its key in the lease.
    """

    def __init__(self, job: SharedJob, queue: str, until: float) -> None:
        super().__init__(until)
        self.job: SharedJob = job
        self.queue: str = queue
        self.key: bytes = ready_key(job.pri, job.put_us, job.slot())
