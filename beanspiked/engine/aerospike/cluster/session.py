"""This front-end's session, and what is known of the others' sessions."""

import logging
from collections.abc import Callable, Sequence
from typing import Final

from beanspiked.engine.aerospike.cluster.listener import SessionListener
from beanspiked.engine.aerospike.cluster.usage import unpack_many, unpack_usage
from beanspiked.engine.aerospike.segment.surroundings import LeaseSource
from beanspiked.engine.aerospike.store.keys import SERIAL_BITS, lease_key
from beanspiked.engine.aerospike.store.seam import FIRST, SessionRecord

__all__ = ["KnownSession", "Session", "Sessions"]

logger = logging.getLogger(__name__)

LAST_SERIAL: Final = (1 << SERIAL_BITS) - 1
# For a session that is silent for longer than this, in ms, the start of the silence is noted.
QUIET_MS: Final = 3000


class Session(LeaseSource):
    """A session's number and the leases under it.

    Attributes:
        number: The number; 0 before there is one.
        over: Whether it was declared dead, stopped on its own or has ended.
        offset_ms: How far the server's clock is ahead of this process's.
        since: When it began, by a clock that goes on while the machine sleeps.
    """

    def __init__(self, number: int, offset_ms: int, since: float = 0.0) -> None:
        self.number: int = number
        self.over: bool = False
        self.offset_ms: int = offset_ms
        self.since: float = since
        self._serial = 0

    def next_lease(self) -> int:
        """Return the name of a lease that was never used."""
        self._serial += 1
        assert self._serial <= LAST_SERIAL
        return lease_key(self.number, self._serial)


class KnownSession:
    """A session as last read.

    Attributes:
        number, dead, silent_ms, reads, newer, address, listens, tells: See SessionRecord.
        quiet_since: When it was first seen silent for longer than QUIET_MS, by this process's clock; 0 if it was not, or has spoken since.
    """

    def __init__(self, number: int) -> None:
        self.number: int = number
        self.dead: bool = False
        self.silent_ms: int = 0
        self.address: str = ""
        self.listens: Sequence[int] | None = None
        self.tells: bool = True
        self.reads: int = FIRST
        self.newer: bool = False
        self.quiet_since: float = 0.0
        self._payload = b""
        self._usage: dict[str, list[int]] | None = None
        # A fault in what it publishes is logged once.
        self._told_odd = False

    def read(self, record: SessionRecord, now: float) -> "KnownSession":
        """Take in its record. What it tells of its tubes is parsed once, and only when somebody asks."""
        self.dead = record.dead
        self.silent_ms = record.silent_ms
        self.address = record.address
        self.listens = record.listens
        self.tells = record.tells
        self.reads = record.reads
        self.newer = record.newer
        if record.silent_ms <= QUIET_MS:
            self.quiet_since = 0.0
        elif not self.quiet_since:
            self.quiet_since = now
        if record.payload != self._payload:
            self._payload = record.payload
            self._usage = None
        return self

    def usage(self) -> dict[str, list[int]]:
        """Return what it published: tube to using, watching, waiting, total jobs, deletes, pauses."""
        if self._usage is None:
            self._usage = {}
            try:
                if self._payload:
                    self._usage = unpack_usage(self._payload)
            except ValueError as error:
                if not self._told_odd:
                    logger.warning("the tubes of session %d cannot be read: %s", self.number, error)
                self._told_odd = True
        return self._usage

    async def learn_usage(self) -> None:
        """Parse what it published; where that is much, let other work run in between."""
        payload = self._payload
        if self._usage is not None or not payload:
            return
        try:
            usage = await unpack_many(payload)
        except ValueError:
            # `usage` logs the fault.
            return
        if self._payload is payload:
            self._usage = usage


class Sessions:
    """All sessions as last read, among them this front-end's.

    Args:
        monotonic: A clock in seconds that goes on while the machine sleeps (CLOCK_BOOTTIME).

    Attributes:
        session: The session in force; `over` before the first and between two.
        entering: A session that has joined and may not serve yet, or 0.
        others: The sessions of other front-ends that live.
        records: All sessions.
        healthy_since: Since when nothing of the session has failed, by `monotonic`.
        listener: Hears what happens; set it before anything begins.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.session: Session = Session(0, 0)
        self.session.over = True
        self.entering: int = 0
        self.others: list[int] = []
        self.records: list[KnownSession] = []
        self.healthy_since: float = 0.0
        self.listener: SessionListener = SessionListener()
        self._monotonic = monotonic

    def session_age(self) -> float:
        """Return the age of the session, in seconds; 0 without one."""
        return 0.0 if self.session.over else self._monotonic() - self.session.since

    def doubt(self) -> None:
        """Judge no other session for a while: something failed here."""
        self.healthy_since = self._monotonic()

    def listens_here(self, record: KnownSession) -> bool:
        """Tell whether a front-end reads the news of this one from its record."""
        return record.listens is None or self.session.number in record.listens

    def forget_other(self, number: int) -> None:
        """Drop a session that was declared dead: the tubes that it uses do not count any more."""
        self.others = [other for other in self.others if other != number]

    async def usages(self) -> list[dict[str, list[int]]]:
        """List how the live sessions of others use tubes; where that is much, let other work run in between."""
        live = set(self.others)
        for record in list(self.records):
            if record.number in live:
                await record.learn_usage()
        return self.live_usages()

    def live_usages(self) -> list[dict[str, list[int]]]:
        """List how the live sessions of others use tubes."""
        live = set(self.others)
        return [record.usage() for record in self.records if record.number in live]

    def used_elsewhere(self, name: str) -> bool:
        """Tell whether a live session of others uses or watches a tube."""
        uses = [usage.get(name) for usage in self.live_usages()]
        return any(use is not None and (use[0] or use[1]) for use in uses)
