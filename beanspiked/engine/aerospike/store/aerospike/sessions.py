"""Sessions in Aerospike, and their news: a list of all, and two records for each, in a slot that the dead leave to later ones."""

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
from beanspiked.engine.aerospike.store.aerospike.deadline import NODE_NOW_MS
from beanspiked.engine.aerospike.store.aerospike.records import Records, numbered
from beanspiked.engine.aerospike.store.aerospike.workers import look_until
from beanspiked.engine.aerospike.store.formats import NEWEST
from beanspiked.engine.aerospike.store.seam import FIRST, Fenced, Newer, Refused, SessionRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from beanspiked.engine.aerospike.store.aerospike.calls import Key

__all__ = ["Sessions"]

# The format of the records of sessions and of news.
FORMAT: Final = 1
# How often a session that joins tries to get a slot before others do.
LISTINGS_MAX: Final = 50
# A session silent for longer, in ms, is over, whatever its record says.
SURELY_OVER_MS: Final = 60_000
ALIVE: Final = exp.Eq(exp.IntBin("dead"), 0)
# The record does not say whether its session is dead, or whose it is.
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
        # The slots of the sessions as listed last; the own session that joined last, and its slot.
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
        last: int = results[-1][1]
        return last - count + 1

    # --- the list

    async def _session_list(self) -> dict[str, Any]:
        return await self.get(self.key("ctl", "sessions")) or {}

    async def _listed(self) -> dict[int, int]:
        """Read the slots of the sessions by their numbers; slot 0 means records that nobody uses again."""
        read = partial(decoding.slots, await self._session_list(), self.newest)
        self._slots = self._aside.read("the list of sessions", read) or {}
        return self._slots

    async def _list_session(self, session: int) -> int:
        """List a session with a free slot, and return the slot. Nobody would ever find a slot claimed by an unlisted session."""
        key = self.key("ctl", "sessions")
        for _ in range(LISTINGS_MAX):
            # A list of a newer format takes nobody.
            listed = decoding.slots(await self._session_list(), self.newest)
            if session in listed:
                break
            slot = next(slot for slot in itertools.count(1) if slot not in listed.values())
            taken = exp_map.MapGetByValue(None, aerospike.MAP_RETURN_COUNT, slot, exp.MapBin("numbers"))
            entry = [operations.write("f", FIRST), map_operations.map_put("numbers", session, slot, SORTED)]
            # Refused: somebody else was quicker.
            with contextlib.suppress(Refused):
                await self.make(key, entry, exp.Eq(taken, 0))
                return slot
        raise Refused(f"session {session} cannot be listed")

    async def _slot(self, session: int) -> int:
        """Find a session's slot. Raises Refused for a session that is not listed, and so over."""
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
        """Return the key of a session's record. A record of a slot has a text for a key, which no number equals."""
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
        # Nobody else writes to this record, but who declares the session dead.
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
        # A session whose record does not say whether it is dead, or whose it is, cannot send heartbeats.
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
        # Its records stay, so they are emptied. Before it is unlisted: nobody comes back to it afterwards.
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
        # Nobody has told anything under the number of a forgotten session.
        keys = [self._session_key("news", session, slots.get(session, 0)) for session in sessions]
        listen = partial(self._listen, list(zip(sessions, keys, strict=True)), list(known), within, every)
        return await self.caller.listen(listen) if keys else []

    def _listen(self, of: Sequence[tuple[int, Key]], known: list[bytes], within: float, every: float) -> list[bytes]:
        """Read news until they are new. Whoever waits here wakes the event loop less often."""
        keys = [key for _, key in of]

        def read() -> list[bytes]:
            self.caller.check()
            found = self.caller.read_all(keys, NEWS_READS)
            return [b"" if bins is None else self._told(*who, bins) for who, bins in zip(of, found, strict=True)]

        # News that come in quick succession are read together.
        time.sleep(every)
        return look_until(read, lambda told: told != known or self.caller.leaving.is_set(), within - every, every)

    def _told(self, session: int, key: Key, bins: Mapping[str, Any]) -> bytes:
        """Return what a session has told; nothing where the record still has an earlier session's news."""
        if key[2] != session and bins.get("no") != session:
            return b""
        read = partial(decoding.blob, bins, "news", self.newest)
        return self._aside.read(f"the news of session {session}", read) or b""


def _named(session: int) -> list[Any]:
    """Write whose a record of a slot is."""
    return [operations.write("f", FORMAT), operations.write("no", session)]


def _left_by_earlier(session: int) -> Any:
    """Return a guard: the record is an earlier session's that is over, since it is dead, or silent and not listed."""
    over = exp.Or(UNSAID, exp.Eq(exp.IntBin("dead"), 1), exp.GT(exp.SinceUpdateTime(), SURELY_OVER_MS))
    return exp.And(exp.LT(exp.IntBin("no"), session), over)
