"""Sessions in memory, their news, and the counters that number them; see memory.py."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Final

from memory_directories import Calls

from beanspiked.engine.aerospike.store.seam import (
    FIRST,
    NEVER_WROTE,
    Fenced,
    Refused,
    SessionRecord,
    TooBig,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


__all__ = ["SessionCalls", "SessionRecords", "SessionState"]

# How often a session that joins looks for a slot.
LISTINGS_MAX: Final = 50


class SessionState:
    """One session's record."""

    def __init__(self, number: int, now_ms: int, form: int = FIRST, reads: int = FIRST, *, dead: bool = False) -> None:
        self.number = number
        self.form = form
        self.reads = reads
        self.writes = FIRST
        self.dead = dead
        self.written_ms = now_ms
        self.payload = b""
        self.address = ""
        self.listens: Sequence[int] | None = ()
        self.tells = True


class SessionRecords:
    """The part of a cluster that has the sessions.

    Args:
        now_ms: The server's clock.
        record_max: The largest record, in bytes.
    """

    def __init__(self, now_ms: Callable[[], int], record_max: int) -> None:
        self.now_ms = now_ms
        self.record_max = record_max
        self.key = b"known to this cluster's own only"
        self._counters: dict[str, int] = {}
        # The slot of each listed session, and the last slots of sessions that are not listed any more.
        self._listed: dict[int, int] = {}
        self._slots: dict[int, int] = {}
        # By slot.
        self._sessions: dict[int, SessionState] = {}
        self._news: dict[int, tuple[int, bytes]] = {}
        # The news of each session.
        self._news_forms: dict[int, int] = {}

    def reserve_numbers(self, counter: str, count: int) -> int:
        """See SegmentStore."""
        last = self._counters.get(counter, 0)
        self._counters[counter] = last + count
        return last + 1

    def listed_sessions(self) -> dict[int, int]:
        """Read the list of sessions: the slot of each by its number."""
        return dict(self._listed)

    def list_session(self, session: int, slot: int) -> None:
        """List a session with a slot that no other has."""
        if slot in self._listed.values():
            raise Refused(f"slot {slot} is taken")
        self._listed[session] = self._slots[session] = slot

    def claim(self, session: int, form: int = FIRST, reads: int = FIRST) -> None:
        """Make the record of a session that is listed."""
        if not self._left_by_earlier(session):
            raise Refused(f"session {session} may not join")
        self._sessions[self._slots[session]] = SessionState(session, self.now_ms(), form, reads)

    def _left_by_earlier(self, session: int) -> bool:
        record = self._sessions.get(self._slots[session])
        return record is None or (record.number < session and record.dead)

    def session(self, number: int) -> SessionState | None:
        """Return a session's record; None if it never had one, or another session has it by now."""
        record = self._sessions.get(self._slots.get(number, 0))
        return record if record is not None and record.number == number else None

    def heartbeat(self, session: int, payload: bytes | None, writes: int) -> int:
        """See SegmentStore."""
        if session in self._listed and self._slots.get(session, 0) not in self._sessions:
            raise Fenced(f"session {session} never joined")
        record = self.session(session)
        if session not in self._listed or record is None or record.dead:
            raise Refused(f"session {session} is dead")
        if payload is not None and len(payload) > self.record_max:
            raise TooBig(f"a payload of {len(payload)} bytes")
        record.written_ms = self.now_ms()
        record.writes = writes
        if payload is not None:
            record.payload = payload
        return record.written_ms

    def announce(self, session: int, address: str, listens: Sequence[int], tells: bool) -> None:
        """See SegmentStore."""
        record = self.session(session)
        if record is None or record.dead:
            raise Refused(f"session {session} is dead")
        record.written_ms = self.now_ms()
        record.address = address
        record.listens = listens
        record.tells = tells

    def secret(self) -> bytes:
        """See SegmentStore."""
        return self.key

    def resign(self, session: int) -> None:
        """See SegmentStore."""
        record = self.session(session)
        if session in self._listed and record is not None:
            record.dead = True

    def kill(self, session: int, silent_ms: int) -> bool:
        """See SegmentStore."""
        if session not in self._listed:
            return False
        record = self.session(session)
        if record is None:
            if not self._left_by_earlier(session):
                return False
            self._sessions[self._slots[session]] = SessionState(session, self.now_ms(), dead=True)
            return True
        if record.dead or self.now_ms() - record.written_ms <= silent_ms:
            return False
        record.dead = True
        return True

    def sessions(self, newest: int) -> list[SessionRecord]:
        """See SegmentStore."""
        return [self._session_record(number, newest) for number in sorted(self._listed)]

    def _session_record(self, number: int, newest: int) -> SessionRecord:
        record = self._sessions.get(self._slots[number])
        if record is None or record.number < number:
            return SessionRecord(number, False, NEVER_WROTE, b"")
        if record.number > number:
            return SessionRecord(number, True, 0, b"")
        silent_ms = self.now_ms() - record.written_ms
        if record.form > newest:
            return SessionRecord(number, False, silent_ms, b"", record.reads, record.writes, newer=True)
        return SessionRecord(
            number,
            record.dead,
            silent_ms,
            record.payload,
            record.reads,
            record.writes,
            address=record.address,
            listens=record.listens,
            tells=record.tells,
        )

    def forget_session(self, session: int) -> None:
        """See SegmentStore."""
        record = self.session(session)
        if session in self._listed and record is not None:
            record.payload = b""
        if self.one_news(session):
            self._news[self._slots[session]] = (session, b"")
        self._listed.pop(session, None)

    def publish(self, session: int, news: bytes, form: int = FIRST) -> None:
        """See SegmentStore."""
        if session not in self._listed or self._news.get(self._slots[session], (0, b""))[0] > session:
            raise Refused(f"session {session} is over")
        self._news[self._slots[session]] = (session, news)
        self._news_forms[session] = form

    def news_form(self, session: int) -> int:
        """Return the format of a session's news."""
        return self._news_forms.get(session, FIRST)

    def one_news(self, session: int) -> bytes:
        """Read one session's news."""
        number, news = self._news.get(self._listed.get(session, 0), (0, b""))
        return news if number == session else b""


class SessionCalls(Calls):
    """The part of a store in memory that has the sessions; see SegmentStore for its methods."""

    newest: int

    async def reserve_numbers(self, counter: str, count: int) -> int:
        """See SegmentStore."""
        first: int = await self._send("reserve_numbers", self._cluster.reserve_numbers, counter, count)
        return first

    async def join(self, session: int, form: int = FIRST) -> None:
        """See SegmentStore."""
        for _ in range(LISTINGS_MAX):
            listed: dict[int, int] = await self._send("listed", self._cluster.listed_sessions)
            if session in listed:
                break
            slot = next(slot for slot in itertools.count(1) if slot not in listed.values())
            try:
                await self._send("list_session", self._cluster.list_session, session, slot)
            except Refused:
                continue
            await self._send("claim", self._cluster.claim, session, form, self.newest)
            return
        raise Refused(f"session {session} cannot be listed")

    async def heartbeat(self, session: int, payload: bytes | None, writes: int = FIRST) -> int:
        """See SegmentStore."""
        now_ms: int = await self._send("heartbeat", self._cluster.heartbeat, session, payload, writes)
        return now_ms

    async def announce(self, session: int, address: str, listens: Sequence[int], tells: bool) -> None:
        """See SegmentStore."""
        await self._send("announce", self._cluster.announce, session, address, listens, tells)

    async def secret(self) -> bytes:
        """See SegmentStore."""
        secret: bytes = await self._send("secret", self._cluster.secret)
        return secret

    async def resign(self, session: int) -> None:
        """See SegmentStore."""
        await self._send("resign", self._cluster.resign, session)

    async def kill(self, session: int, silent_ms: int) -> bool:
        """See SegmentStore."""
        killed: bool = await self._send("kill", self._cluster.kill, session, silent_ms)
        return killed

    async def sessions(self) -> list[SessionRecord]:
        """See SegmentStore."""
        records: list[SessionRecord] = await self._send("sessions", self._cluster.sessions, self.newest)
        return records

    async def forget_session(self, session: int) -> None:
        """See SegmentStore."""
        await self._send("forget_session", self._cluster.forget_session, session)

    async def publish(self, session: int, news: bytes, form: int = FIRST) -> None:
        """See SegmentStore."""
        await self._send("publish", self._cluster.publish, session, news, form)

    async def news(
        self, sessions: Sequence[int], known: Sequence[bytes] = (), within: float = 0.0, every: float = 0.0
    ) -> list[bytes]:
        """See SegmentStore."""
        loop = asyncio.get_running_loop()
        until = loop.time() + within
        while True:
            if every:
                await asyncio.sleep(every)
            told = [await self._send("news", self._one_news, session) for session in sessions]
            if told != list(known) or loop.time() >= until:
                return told

    def _one_news(self, session: int) -> bytes:
        return self._cluster.one_news(session) if self._cluster.news_form(session) <= self.newest else b""
