"""What was said on the wire, and what was done to the servers, on one monotonic clock."""

from __future__ import annotations

import random
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from pathlib import Path

# What a delete came to.
DELETED = "deleted"
NOT_FOUND = "not found"
DOUBT = "doubt"


@dataclass
class Delete:
    """One delete of a job: when it was sent, and when and how it was answered."""

    who: str
    sent: float
    answered: float
    outcome: str


@dataclass
class Delivery:
    """One RESERVED.

    Attributes:
        sent: When the reserve was sent.
        read: When its reply was read.
        left: When the holder sent what gave the job away (release, bury, delete), closed its connection or lost it; 0 before.
        touched: When its time to run began anew: a touch was sent, and acknowledged.
        delete: Its holder's delete.
    """

    who: str
    front: int
    job_id: int
    sent: float
    read: float
    ttr: float
    left: float = 0.0
    how: str = ""
    touched: float = 0.0
    delete: Delete | None = None


@dataclass
class Job:
    """One put, and everything that was said about it."""

    tag: str
    tube: str
    size: int
    ttr: int
    who: str
    sent: float
    acknowledged: float = 0.0
    job_id: int = 0
    deliveries: list[Delivery] = field(default_factory=list)
    deletes: list[Delete] = field(default_factory=list)

    def body(self) -> bytes:
        """Make the body, which names the job and says what must follow."""
        head = self.tag.encode() + b" "
        fill = self.size - len(head)
        if fill <= 0:
            return head
        return head + random.Random(zlib.crc32(head)).randbytes(fill)

    def ended(self) -> bool:
        """Tell whether a delete of it was acknowledged."""
        return any(delete.outcome == DELETED for delete in self.deletes)

    def doubted(self) -> bool:
        """Tell whether a delete of it may have been done without a reply."""
        return any(delete.outcome == DOUBT for delete in self.deletes)


@dataclass
class Outage:
    """A time for which a front-end was frozen or dead."""

    front: int
    kind: str
    began: float
    ended: float = 0.0


class Record:
    """Everything together, and a file in which it can be read.

    Attributes:
        strange: Replies that no server may give, whatever happens to it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.jobs: dict[str, Job] = {}
        self.outages: list[Outage] = []
        self.strange: list[str] = []
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.began = time.monotonic()
        self._file: TextIO = path.open("w", buffering=1 << 16)

    def now(self) -> float:
        """Return the time since the run began."""
        return time.monotonic() - self.began

    def log(self, *words: object) -> None:
        """Write one line of the log."""
        self._file.write(f"{self.now():.4f} {' '.join(map(str, words))}\n")

    def say(self, *words: object) -> None:
        """Write a line of the log that is shown as well."""
        self.log(*words)
        print(f"{self.now():7.1f} s  {' '.join(map(str, words))}", flush=True)

    def odd(self, *words: object) -> None:
        """Note a reply that must not be."""
        self.strange.append(f"{self.now():.4f} s: {' '.join(map(str, words))}")
        self.say("STRANGE", *words)

    def delivered(self, body: bytes, delivery: Delivery) -> Job | None:
        """Note a RESERVED; return the job that its body names."""
        tag = body.partition(b" ")[0].decode("latin-1")
        self.log("reserved", delivery.who, delivery.job_id, tag, f"sent {delivery.sent:.4f}")
        self.counts["deliveries"] += 1
        job = self.jobs.get(tag)
        if job is None or job.body() != body:
            self.odd("job", delivery.job_id, "has a body that was never put:", body[:40], len(body), "bytes")
            return None
        job.deliveries.append(delivery)
        return job

    def close(self) -> None:
        """End the log."""
        self._file.close()
