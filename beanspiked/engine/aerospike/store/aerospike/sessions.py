"""Sessions in Aerospike, and their news: a list of all, and two records for each, in a slot that later sessions use again."""

from __future__ import annotations

import contextlib
import itertools
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import aerospike
from aerospike_helpers.expressions import base as exp
from aerospike_helpers.expressions import map as exp_map
from aerospike_helpers.operations import expression_operations, map_operations, operations

from beanspiked.engine.aerospike.store import formats as decoding
from beanspiked.engine.aerospike.store.aerospike.calls import SORTED
from beanspiked.engine.aerospike.store.aerospike.conditions import numbered
from beanspiked.engine.aerospike.store.aerospike.deadline import NODE_NOW_MS
from beanspiked.engine.aerospike.store.aerospike.records import Records
from beanspiked.engine.aerospike.store.aerospike.workers import look_until
from beanspiked.engine.aerospike.store.formats import NEWEST
from beanspiked.engine.aerospike.store.seam import FIRST, Fenced, Newer, Refused, SessionRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from beanspiked.engine.aerospike.store.aerospike.calls import Key

__all__ = ["Sessions"]

# The format of the records of sessions and of news.
FORMAT: Final = 1
# How often a session that joins tries to get a slot, since others may be quicker.
LISTINGS_MAX: Final = 50
# A session that is silent for longer, in ms, is over, whatever its record says.
SURELY_OVER_MS: Final = 60_000
ALIVE: Final = exp.Eq(exp.IntBin("dead"), 0)
# The record does not say whether its session is dead, or which session it belongs to.
UNSAID: Final = exp.NE(exp.BinType("dead"), aerospike.AS_BYTES_INTEGER)
NAMELESS: Final = exp.NE(exp.BinType("no"), aerospike.AS_BYTES_INTEGER)
SESSION_READS: Final = [
    *[operations.read(name) for name in ("f", "no", "reads", "writes", "dead", "payload", "at", "listens", "tells")],
    expression_operations.expression_read("silent", exp.SinceUpdateTime().compile()),
]
NEWS_READS: Final = [operations.read(name) for name in ("f", "no", "news")]


class Sessions(Records):
    """The part of the store that has the sessions and their news; see SegmentStore for the methods."""

    def __init__(self, client: Any, namespace: str, prefix: str = "bsd_", newest: int = NEWEST) -> None:
        super().__init__(client, namespace, prefix, newest)
        # The slots of the sessions at the last read of the list; this front-end's session that joined last, and its slot.
        self._slots: dict[int, int] = {}
        self._joined = (0, 0)

    async def reserve_numbers(self, counter: str, count: int) -> int:
        """See SegmentStore."""
        ops = [operations.increment("last", count), operations.read("last")]
        key = self.key("ctl", f"counter-{counter}")
        try:
            results = await self.begin(key, [operations.write("f", FIRST)], ops, self._known)
        except Refused as error:
            raise Newer(f"{key[2]} is of a format newer than {self.newest}") from error
        last: int = results["last"]
        return last - count + 1

    # --- the list

    async def _session_list(self) -> dict[str, Any]:
        return await self.get(self.key("ctl", "sessions")) or {}

    async def _listed(self) -> dict[int, int]:
        """Read the slots of the sessions by their numbers. Slot 0 means records that no session uses again."""
        read = partial(decoding.slots, await self._session_list(), self.newest)
        self._slots = self._aside.read("the list of sessions", read) or {}
        return self._slots

    async def _list_session(self, session: int) -> int:
        """List a session with a free slot; return the slot. If an unlisted session claimed a slot, no front-end would ever find it."""
        key = self.key("ctl", "sessions")
        for _ in range(LISTINGS_MAX):
            # A list of a newer format takes no session of this version.
            listed = decoding.slots(await self._session_list(), self.newest)
            if session in listed:
                break
            slot = next(slot for slot in itertools.count(1) if slot not in listed.values())
            taken = exp_map.MapGetByValue(None, aerospike.MAP_RETURN_COUNT, slot, exp.MapBin("numbers"))
            entry = [operations.write("f", FIRST), map_operations.map_put("numbers", session, slot, SORTED)]
            # Refused: another front-end was quicker.
            with contextlib.suppress(Refused):
                await self.make(key, entry, exp.Eq(taken, 0))
                return slot
        raise Refused(f"session {session} cannot be listed")

    async def _slot(self, session: int) -> int:
        """Find a session's slot. Raises Refused for a session that is not listed and so is over."""
        if session == self._joined[0]:
            return self._joined[1]
        slot = self._slots.get(session)
        if slot is None:
            slot = (await self._listed()).get(session)
        if slot is None:
            raise Refused(f"session {session} is not listed")
        return slot

    # --- sessions

    def _session_key(self, name: str, session: int, slot: int) -> Key:
        """Return the key of a session's record. The key of a slot's record is a text, so it equals no session's number."""
        return self.key(name, f"slot-{slot}" if slot else session)

    async def _change_session(self, session: int, ops: list[Any], guard: Any = None, name: str = "ses") -> None:
        """Change a session's record while it is this session's. Raises Refused if the guard does not hold."""
        slot = await self._slot(session)
        guards = [guard for guard in (numbered(session) if slot else None, guard) if guard is not None]
        whole = exp.And(*guards) if len(guards) > 1 else next(iter(guards), None)
        await self.change(self._session_key(name, session, slot), ops, whole)

    async def join(self, session: int, form: int = FIRST) -> None:
        """See SegmentStore."""
        slot = await self._list_session(session)
        # A session reads the news of all until it says how it hears them.
        said: dict[str, Any] = {"f": form, "dead": 0, "reads": self.newest, "writes": FIRST}
        said |= {"payload": b"", "at": "", "listens": 0, "tells": 1}
        claim = [*_named(session), *[operations.write(name, value) for name, value in said.items()]]
        await self.make(self._session_key("ses", session, slot), claim, exp.Or(NAMELESS, _left_by_earlier(session)))
        self._joined = (session, slot)

    async def heartbeat(self, session: int, payload: bytes | None, writes: int = FIRST) -> int:
        """See SegmentStore."""
        ops = [expression_operations.expression_read("now", NODE_NOW_MS.compile()), operations.write("writes", writes)]
        if payload is not None:
            ops.append(operations.write("payload", payload))
        slot = await self._slot(session)
        guard = exp.And(numbered(session), ALIVE) if slot else ALIVE
        # Only a front-end that declares the session dead writes to this record as well.
        beat = partial(self.caller.operate, self._session_key("ses", session, slot), ops, guard)
        now_ms: int = (await self.caller.beat(beat))[0][1]
        self.caller.deadline.seen(now_ms)
        return now_ms

    async def announce(self, session: int, address: str, listens: Sequence[int], tells: bool) -> None:
        """See SegmentStore."""
        said = {"at": address, "listens": list(listens), "tells": int(tells)}
        await self._change_session(session, [operations.write(name, value) for name, value in said.items()], ALIVE)

    async def resign(self, session: int) -> None:
        """See SegmentStore."""
        # Refused where a later session has the record: this one is dead.
        with contextlib.suppress(Fenced, Refused):
            await self._change_session(session, [operations.write("dead", 1)])

    async def kill(self, session: int, silent_ms: int) -> bool:
        """See SegmentStore."""
        # If the record does not say whether its session is dead, or which session it belongs to, that session cannot send heartbeats.
        guard = exp.And(exp.Or(UNSAID, ALIVE), exp.GT(exp.SinceUpdateTime(), silent_ms))
        ops = [operations.write("dead", 1)]
        exists: int = aerospike.POLICY_EXISTS_UPDATE
        try:
            slot = await self._slot(session)
            if slot:
                # A listed session without a record gets a dead one, so that it never claims a record.
                guard = exp.Or(exp.And(exp.Or(NAMELESS, numbered(session)), guard), _left_by_earlier(session))
                ops, exists = [*_named(session), *ops], aerospike.POLICY_EXISTS_IGNORE
            await self.change(self._session_key("ses", session, slot), ops, guard, exists)
        except Refused:
            return False
        return True

    async def sessions(self) -> list[SessionRecord]:
        """See SegmentStore."""
        listed = sorted((await self._listed()).items())
        found = await self.caller.read_many([self._session_key("ses", *entry) for entry in listed], SESSION_READS)
        records = [
            self._aside.read(
                f"session {number}", partial(decoding.session, number, slot, bins, self._aside, self.newest)
            )
            for (number, slot), bins in zip(listed, found, strict=True)
        ]
        return [record for record in records if record is not None]

    async def forget_session(self, session: int) -> None:
        """See SegmentStore."""
        # Its records stay, so they are emptied. This comes before it is unlisted, since no front-end finds it afterwards.
        for name, emptied in (("ses", "payload"), ("news", "news")):
            with contextlib.suppress(Fenced, Refused):
                await self._change_session(session, [operations.write(emptied, b"")], name=name)
        unlist = [map_operations.map_remove_by_key("numbers", session, aerospike.MAP_RETURN_NONE)]
        with contextlib.suppress(Fenced):
            await self.change(self.key("ctl", "sessions"), unlist)
        self._slots.pop(session, None)
        if self._joined[0] == session:
            self._joined = (0, 0)

    # --- news

    async def publish(self, session: int, news: bytes, form: int = FIRST) -> None:
        """See SegmentStore."""
        slot = await self._slot(session)
        ops = [*(_named(session) if slot else ()), operations.write("f", form), operations.write("news", news)]
        guard = exp.Or(NAMELESS, exp.LE(exp.IntBin("no"), session)) if slot else None
        await self.make(self._session_key("news", session, slot), ops, guard)

    async def news(
        self, sessions: Sequence[int], known: Sequence[bytes] = (), within: float = 0.0, every: float = 0.0
    ) -> list[bytes]:
        """See SegmentStore."""
        slots = dict([*self._slots.items(), self._joined])
        # A forgotten session has no news.
        keys = [self._session_key("news", session, slots.get(session, 0)) for session in sessions]
        listen = partial(self._listen, list(zip(sessions, keys, strict=True)), list(known), within, every)
        return await self.caller.listen(listen) if keys else []

    def _listen(self, of: Sequence[tuple[int, Key]], known: list[bytes], within: float, every: float) -> list[bytes]:
        """Read news until they are new. A thread that waits here wakes the event loop less often."""
        keys = [key for _, key in of]

        def read() -> list[bytes]:
            self.caller.check()
            found = self.caller.read_all(keys, NEWS_READS)
            return [b"" if bins is None else self._told(*who, bins) for who, bins in zip(of, found, strict=True)]

        # One read takes all news that come in quick succession.
        time.sleep(every)
        return look_until(read, lambda told: told != known or self.caller.leaving.is_set(), within - every, every)

    def _told(self, session: int, key: Key, bins: Mapping[str, Any]) -> bytes:
        """Return a session's news; nothing if the record still has an earlier session's news."""
        if key[2] != session and bins.get("no") != session:
            return b""
        read = partial(decoding.blob, bins, "news", self.newest)
        return self._aside.read(f"the news of session {session}", read) or b""


def _named(session: int) -> list[Any]:
    """Make the operations that write which session a slot's record belongs to."""
    return [operations.write("f", FORMAT), operations.write("no", session)]


def _left_by_earlier(session: int) -> Any:
    """Return a guard: the record belongs to an earlier session that is over, since it is dead, or silent and not listed."""
    over = exp.Or(UNSAID, exp.Eq(exp.IntBin("dead"), 1), exp.GT(exp.SinceUpdateTime(), SURELY_OVER_MS))
    return exp.And(exp.LT(exp.IntBin("no"), session), over)
