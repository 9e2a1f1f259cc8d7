"""How a job is packed: everything that a segment keeps of it besides its slot and its key.

A packed job begins with flags, priority, delay, time to run and time of its put; what only some jobs have follows, each part only where
its flag is set, and the body comes last. A plain job, which has no flag set, is these five numbers and its body.

Large bodies are compressed on request, and those that are still large lie in a record of their own.

This is the first format. A job of a later one begins with a byte of LATER and the format's number, which no flags reach, so that the
first format costs nothing for it. A job that is changed keeps its format.
"""

import struct
from collections.abc import Callable
from typing import Final

from beanspiked.engine.aerospike.store.seam import FIRST
from beanspiked.engine.errors import DamagedEntry, NewerEntry

__all__ = [
    "COUNTED",
    "DETAILED",
    "FAILED",
    "FORMATS",
    "HEAD_SIZE",
    "INLINE_MAX",
    "OUTSIDE",
    "RESIZED",
    "SKIPPED",
    "Formats",
    "Packed",
    "pack",
    "pack_plain",
    "unpack",
]

# The five counters follow.
COUNTED: Final = 0x01
# The body's size before compression follows; the body, wherever it lies, is an LZ4 block.
RESIZED: Final = 0x02
# The body's number and its stored size follow; the body lies in a record of its own.
OUTSIDE: Final = 0x04
# Time of birth, retries, metadata and reason follow.
DETAILED: Final = 0x08
# Compression was tried and given up.
SKIPPED: Final = 0x10
# The job's last try failed.
FAILED: Final = 0x20
# Whatever the flags: less than this.
LATER: Final = 0x40

# Stored bodies of more bytes lie in a record of their own: each change of a segment copies all of it.
INLINE_MAX: Final = 1024

# Flags, priority, delay, time to run, time of the put.
HEAD: Final = struct.Struct(">BIQQQ")
HEAD_SIZE: Final = 29
# Reserves, timeouts, releases, buries, kicks.
COUNTERS: Final = struct.Struct(">IIIII")
COUNTERS_SIZE: Final = 20
RAW_SIZE: Final = struct.Struct(">I")
RAW_SIZE_SIZE: Final = 4
# Body number, stored size.
PLACE: Final = struct.Struct(">II")
PLACE_SIZE: Final = 8
# Time of birth, retries, length of the metadata, length of the reason.
DETAILS: Final = struct.Struct(">QIHH")
DETAILS_SIZE: Final = 16
TEXT_MAX: Final = 65535


class Packed:
    """A job, taken apart.

    Attributes:
        pri: 0 (most urgent) to 2**32 - 1.
        delay_ms: The delay of its last put or release.
        ttr_ms: Time to run; 0 means that it never times out.
        put_us: When it was put, in microseconds since the epoch by the server's clock.
        body: Its body as stored, b"" when it lies outside.
        reserves, timeouts, releases, buries, kicks: How often each happened to it.
        raw_size: The body's size in bytes before compression; -1 when it is not compressed.
        body_number: Which of the segment's body records has the body; 0 when it is in `body`.
        stored_size: The size of the body as stored, in bytes, wherever it lies.
        skipped: Whether compression was tried and given up.
        failed: Whether its last try failed.
        born_ms: When its producer says that it was made, in milliseconds since the epoch; 0 when it was made with its put.
        retries: How often it was released to be tried again.
        metadata: A string to find jobs by.
        reason: Why it was buried.
        form: The format that it has when it is packed.
    """

    __slots__ = (
        "body",
        "body_number",
        "born_ms",
        "buries",
        "delay_ms",
        "failed",
        "form",
        "kicks",
        "metadata",
        "pri",
        "put_us",
        "raw_size",
        "reason",
        "releases",
        "reserves",
        "retries",
        "skipped",
        "stored_size",
        "timeouts",
        "ttr_ms",
    )

    def __init__(
        self,
        pri: int,
        delay_ms: int,
        ttr_ms: int,
        put_us: int,
        body: bytes,
        reserves: int = 0,
        timeouts: int = 0,
        releases: int = 0,
        buries: int = 0,
        kicks: int = 0,
        raw_size: int = -1,
        body_number: int = 0,
        stored_size: int = 0,
        skipped: bool = False,
        failed: bool = False,
        born_ms: int = 0,
        retries: int = 0,
        metadata: str = "",
        reason: str = "",
        form: int = FIRST,
    ) -> None:
        self.pri: int = pri
        self.delay_ms: int = delay_ms
        self.ttr_ms: int = ttr_ms
        self.put_us: int = put_us
        self.body: bytes = body
        self.reserves: int = reserves
        self.timeouts: int = timeouts
        self.releases: int = releases
        self.buries: int = buries
        self.kicks: int = kicks
        self.raw_size: int = raw_size
        self.body_number: int = body_number
        self.stored_size: int = stored_size if body_number else len(body)
        self.skipped: bool = skipped
        self.failed: bool = failed
        self.born_ms: int = born_ms
        self.retries: int = retries
        self.metadata: str = metadata
        self.reason: str = reason
        self.form: int = form


def pack_plain(pri: int, delay_ms: int, ttr_ms: int, put_us: int, body: bytes) -> bytes:
    """Pack a job that has nothing but these, as most have. Raises ValueError for a number that is out of range."""
    try:
        return HEAD.pack(0, pri, delay_ms, ttr_ms, put_us) + body
    except struct.error as error:
        raise ValueError(f"a job that cannot be packed: {error}") from error


def pack(job: Packed) -> bytes:
    """Pack a job. Raises ValueError for a number that is out of range or a text of more than 65,535 bytes."""
    flags = 0
    if job.reserves or job.timeouts or job.releases or job.buries or job.kicks:
        flags |= COUNTED
    if job.raw_size >= 0:
        flags |= RESIZED
    if job.body_number:
        flags |= OUTSIDE
    if job.born_ms or job.retries or job.metadata or job.reason:
        flags |= DETAILED
    if job.skipped:
        flags |= SKIPPED
    if job.failed:
        flags |= FAILED
    if flags == 0:
        return pack_plain(job.pri, job.delay_ms, job.ttr_ms, job.put_us, job.body)
    try:
        parts = [HEAD.pack(flags, job.pri, job.delay_ms, job.ttr_ms, job.put_us)]
        if flags & COUNTED:
            parts.append(COUNTERS.pack(job.reserves, job.timeouts, job.releases, job.buries, job.kicks))
        if flags & RESIZED:
            parts.append(RAW_SIZE.pack(job.raw_size))
        if flags & OUTSIDE:
            if job.body:
                raise ValueError("a job whose body lies outside has no body to pack")
            parts.append(PLACE.pack(job.body_number, job.stored_size))
        if flags & DETAILED:
            metadata = job.metadata.encode()
            reason = job.reason.encode()
            if len(metadata) > TEXT_MAX or len(reason) > TEXT_MAX:
                raise ValueError(f"metadata and reason take {len(metadata)} and {len(reason)} bytes of {TEXT_MAX}")
            parts.append(DETAILS.pack(job.born_ms, job.retries, len(metadata), len(reason)))
            parts.append(metadata)
            parts.append(reason)
        parts.append(job.body)
        return b"".join(parts)
    except struct.error as error:
        raise ValueError(f"a job that cannot be packed: {error}") from error


def unpack(packed: bytes) -> Packed:
    """Take a packed job apart. Raises DamagedEntry where it cannot be one, NewerEntry where it is of a later format."""
    try:
        flags, pri, delay_ms, ttr_ms, put_us = HEAD.unpack_from(packed)
    except struct.error as error:
        raise DamagedEntry(f"a packed job of {len(packed)} bytes") from error
    if flags == 0:
        return Packed(pri, delay_ms, ttr_ms, put_us, packed[HEAD_SIZE:])
    return _unpack_rest(packed, flags, pri, delay_ms, ttr_ms, put_us)


def _unpack_rest(packed: bytes, flags: int, pri: int, delay_ms: int, ttr_ms: int, put_us: int) -> Packed:
    """Take the parts apart that follow the head."""
    if flags >= LATER:
        raise NewerEntry(f"it is of format {flags - LATER}, which this version does not know")
    job = Packed(pri, delay_ms, ttr_ms, put_us, b"")
    job.skipped = flags & SKIPPED != 0
    job.failed = flags & FAILED != 0
    at = HEAD_SIZE
    try:
        if flags & COUNTED:
            job.reserves, job.timeouts, job.releases, job.buries, job.kicks = COUNTERS.unpack_from(packed, at)
            at += COUNTERS_SIZE
        if flags & RESIZED:
            (job.raw_size,) = RAW_SIZE.unpack_from(packed, at)
            at += RAW_SIZE_SIZE
        if flags & OUTSIDE:
            job.body_number, job.stored_size = PLACE.unpack_from(packed, at)
            at += PLACE_SIZE
        if flags & DETAILED:
            job.born_ms, job.retries, metadata_size, reason_size = DETAILS.unpack_from(packed, at)
            at += DETAILS_SIZE
            end = at + metadata_size + reason_size
            if end > len(packed):
                raise DamagedEntry(f"a packed job whose metadata and reason end at byte {end} of {len(packed)}")
            job.metadata = packed[at : at + metadata_size].decode()
            job.reason = packed[at + metadata_size : end].decode()
            at = end
    except struct.error as error:
        raise DamagedEntry(f"a packed job with flags {flags:#x} of {len(packed)} bytes") from error
    except UnicodeDecodeError as error:
        raise DamagedEntry("a packed job whose metadata or reason is not text") from error
    if flags & OUTSIDE:
        if job.body_number == 0 or at != len(packed):
            raise DamagedEntry("a packed job with its body both inside and outside, or in neither")
        return job
    job.body = packed[at:]
    job.stored_size = len(job.body)
    return job


# An encoder and a decoder.
Coder = tuple[Callable[[Packed], bytes], Callable[[bytes], Packed]]


class Formats:
    """The formats of jobs that a version reads and writes.

    Args:
        later: Of each format after the first its number, its encoder and its decoder; these see nothing of the byte that names it.

    Attributes:
        newest: The newest of them.
    """

    def __init__(self, later: dict[int, Coder] | None = None) -> None:
        self._later: dict[int, Coder] = later or {}
        self.newest: int = max(self._later, default=FIRST)

    def pack(self, job: Packed) -> bytes:
        """Pack a job in its format. Raises ValueError, see pack."""
        if job.form == FIRST:
            return pack(job)
        return bytes([LATER + job.form]) + self._later[job.form][0](job)

    def knows(self, packed: bytes) -> bool:
        """Tell whether a packed job is of a format that is known."""
        return not packed or packed[0] < LATER or packed[0] - LATER in self._later

    def unpack(self, packed: bytes) -> Packed:
        """Take a packed job of any format apart. Raises DamagedEntry, and NewerEntry where the format is not known."""
        if self._later and packed and packed[0] >= LATER:
            form = packed[0] - LATER
            known = self._later.get(form)
            if known is not None:
                job = known[1](packed[1:])
                job.form = form
                return job
        return unpack(packed)


# What this version knows. The newest is also that of its records: store/formats.py.
FORMATS: Final = Formats()
