"""The news that front-ends send each other: of jobs that became ready and that no client of their own waits for, and of paused tubes.

A front-end that waits hears news over links, at once, and only of the tubes that it waits for: the cost grows with these and not with the
number of front-ends. Without a link between two, each writes its news to a record of its own, at most every few milliseconds, and reads the
other's record while a client waits. News are hints: a lost one costs the time until the next look, never a job.
"""

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from beanspiked.engine.aerospike.cluster.announcement import Announcement, Other
from beanspiked.engine.aerospike.cluster.links import LOOK, Item, tube_hash
from beanspiked.engine.aerospike.cluster.listener import NewsListener
from beanspiked.engine.aerospike.cluster.mesh import Mesh, MeshListener
from beanspiked.engine.aerospike.cluster.network import Network
from beanspiked.engine.aerospike.store.seam import FIRST, Busy, StoreError, Unknown

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore

__all__ = ["News", "unpack_news"]

logger = logging.getLogger(__name__)

# All in seconds, but for counts. The pause between two writes of the record, and before another try.
WRITE_EVERY: Final = 0.005
WRITE_AGAIN: Final = 0.2
# The pause between two reads of records while a client waits; the longer pause, after QUIET_AFTER without news.
READ_EVERY: Final = 0.01
READ_RARELY: Final = 0.02
QUIET_AFTER: Final = 1.0
# Without news, a read of the records ends after this time, to see who still waits and which records matter.
LISTEN_FOR: Final = 0.25
# How long news of a tube are heard after a client last wanted a job of it.
HEAR_FOR: Final = 10.0
# How many tubes the record names; readers that fall behind look at everything they wait for.
ITEMS_MAX: Final = 256
# A front-end that does not answer a question within this time may be frozen.
ROUND_WITHIN: Final = 0.05
# How long after an answer it is checked which tubes all others tell of, and how many tubes are checked at once.
SEE_AFTER: Final = 0.002
SEE_AT_ONCE: Final = 100
NO_KEY: Final = b""


class News(MeshListener):
    """Sends this front-end's news, and hears those of the others.

    The record is `[sequence number of the last item, [[sequence number, tube], ...]]`, each tube once, the newest last.

    Args:
        store: The store.
        network: Makes the connections of links.
        spawn: Runs a coroutine beside everything else until this front-end ends.
        now: A clock in seconds that goes on while the machine sleeps.
        nonce: Makes 16 random bytes.

    Attributes:
        listener: Hears what others did; set it before anything begins.
        mesh: The links.
        others: The other sessions that live.
        form: The format in which the record is written.
    """

    def __init__(
        self,
        store: "SegmentStore",
        network: Network,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        now: Callable[[], float],
        nonce: Callable[[], bytes],
    ) -> None:
        self.listener: NewsListener = NewsListener()
        self.mesh: Mesh = Mesh(self, network, spawn, now, nonce)
        self.others: list[int] = []
        self.form: int = FIRST
        self._store = store
        self._spawn = spawn
        self._now = now
        self._session: int = 0
        self._fresh: bool = False
        self._sequence = 0
        self._items: OrderedDict[str, int] = OrderedDict()
        # Whether news are written to the record, and whether that is announced. The end is announced first.
        self._tells: bool = True
        self._says_tells: bool = True
        # The sessions whose records have all of their news.
        self._reliable: set[int] = set()
        self._writing = False
        self._unwritten = False
        self._seen: dict[int, int] = {}
        # Records that could not be read, by session.
        self._odd: dict[int, bytes] = {}
        # The sessions whose records are being read; none while no client waits.
        self._followed: list[int] = []
        self._heard_at = 0.0
        self._resting: bool = False
        self._wanted = asyncio.Event()
        # The tubes of which news are heard: their names by hash, and until when.
        self._names: dict[int, str] = {}
        self._until: dict[int, float] = {}
        # Those of them of which not all others tell yet.
        self._unfollowed: dict[int, None] = {}
        self._seeing: bool = False

    # --- who is there

    def begin(self, session: int) -> None:
        """Begin with a new session."""
        self._session = session
        self._tells = self._says_tells = True
        self._reliable = set()
        self.mesh.begin(session)
        # Before the first session the key for the hashes was not known.
        wanted = {name: self._until[tube] for tube, name in self._names.items()}
        self._names = {self._hash(name): name for name in wanted}
        self._until = {self._hash(name): until for name, until in wanted.items()}
        self.mesh.want_these(list(self._names))
        self._follow_anew()

    def end(self) -> None:
        """Stop: the session is over."""
        self._session = 0
        self.mesh.end()
        self._follow_anew()

    def announcement(self) -> Announcement:
        """Return what to announce to the others."""
        return Announcement(self.mesh.address, self._unlinked(), self._says_tells)

    def know(self, others: list[Other], said: Announcement | None, fresh: bool) -> None:
        """Take in the other living sessions, and what was announced before they were read.

        Args:
            others: The sessions.
            said: What was announced.
            fresh: Whether the copy that they were read from has this front-end's last heartbeats. If not, sessions may be missing.
        """
        if self._fresh and not fresh:
            self._follow_anew()
        self._fresh = fresh
        if any(other.listens for other in others):
            self._tells = self._says_tells = True
        elif said is not None and not said.tells:
            # The end was announced, and since then no front-end reads the record.
            self._tells = self._says_tells
        else:
            self._says_tells = False
        # A session that still writes its record, and may have seen that it is read here, goes on until reading has ended.
        self._reliable = {other.session for other in others if other.tells and said and other.session in said.listens}
        sessions = [other.session for other in others]
        if sessions != self.others:
            self.others = sessions
            for session in (self._seen.keys() | self._odd.keys()) - set(sessions):
                self._seen.pop(session, None)
                self._odd.pop(session, None)
            self._follow_anew()
        self.mesh.know([(other.session, other.address) for other in others])
        self.wake()

    def all_linked(self) -> bool:
        """Tell whether all others send their news over links. Then no records are read, and sessions are watched less often."""
        return self._fresh and not self._unlinked()

    def all_followed(self) -> bool:
        """Tell whether the news of all others are heard, over links or from their records."""
        return all(session in self._reliable for session in self._unlinked())

    async def all_told(self) -> bool:
        """Ask the others whether they have told everything done so far; tell whether all said so within ROUND_WITHIN."""
        return not self.others or await self.mesh.round(self.others, ROUND_WITHIN)

    def _unlinked(self) -> list[int]:
        return [session for session in self.others if not self.mesh.linked(session)]

    def _readable(self) -> list[int]:
        """List the sessions that have no link but write their news to a record."""
        return [session for session in self._unlinked() if session in self._reliable]

    def _follow_anew(self) -> None:
        """Take no tube as followed until that has been checked again."""
        self._unfollowed = dict.fromkeys(self._names)
        self.listener.stop_following()

    # --- what is wanted

    def want(self, name: str) -> None:
        """Hear news of a tube, until HEAR_FOR after the last call."""
        tube = self._hash(name)
        if tube not in self._names:
            self._names[tube] = name
            self._unfollowed[tube] = None
            self.mesh.want(tube)
        self._until[tube] = self._now() + HEAR_FOR
        self.wake()

    def follows(self, name: str) -> bool:
        """Tell whether all others send news of a tube, so that what is known of it stays true."""
        tube = self._hash(name)
        if tube not in self._names:
            return self._fresh and not self.others
        if not self._fresh:
            return False
        if self.mesh.caught_up(self.others):
            return True
        return all(self.mesh.tells_of(session, tube) or session in self._followed for session in self.others)

    def _hash(self, name: str) -> int:
        return tube_hash(self.mesh.key, name)

    def tick(self) -> None:
        """Once a second, stop hearing news of tubes that nobody wants any more."""
        now = self._now()
        over = [tube for tube, until in self._until.items() if until <= now]
        unwanted: list[int] = []
        for tube in over:
            if self.listener.waited_for(self._names[tube]):
                self._until[tube] = now + HEAR_FOR
                continue
            unwanted.append(tube)
            self.listener.unfollowed(self._names[tube])
            del self._until[tube]
            del self._names[tube]
            self._unfollowed.pop(tube, None)
        if unwanted:
            self.mesh.want_no_more(unwanted)

    def wake(self) -> None:
        """Read records: a client wants a job, or there are others whose news have not been read."""
        if self._resting and self._readable():
            self._resting = False
            self._wanted.set()

    # --- what is told

    def tell(self, name: str, segment: int = 0, kind: int = LOOK, count: int = 0, key: bytes = NO_KEY) -> None:
        """Tell the others what has changed in a segment, or that they should look at the tube."""
        if not self.others:
            return
        self.mesh.tell(Item(self._hash(name), segment, kind, count, key))
        if not self._tells:
            return
        self._sequence += 1
        self._items.pop(name, None)
        self._items[name] = self._sequence
        if len(self._items) > ITEMS_MAX:
            self._items.popitem(last=False)
        self._unwritten = True
        if not self._writing:
            self._writing = True
            self._spawn(self._write())

    def flush(self) -> None:
        """Send the news that wait, before any client learns what was done."""
        self.mesh.flush()

    async def _write(self) -> None:
        try:
            while self._unwritten and self._session:
                self._unwritten, pause = False, WRITE_EVERY
                record = [self._sequence, [[number, tube] for tube, number in self._items.items()]]
                news = json.dumps(record, separators=(",", ":")).encode()
                try:
                    await self._store.publish(self._session, news, self.form)
                except StoreError as error:
                    logger.info("news cannot be written, so others look for themselves: %s", error)
                    if isinstance(error, (Busy, Unknown)):
                        self._unwritten, pause = True, WRITE_AGAIN
                await asyncio.sleep(pause)
        finally:
            self._writing = False

    # --- what is heard over links

    def heard(self, items: list[Item]) -> None:
        """See MeshListener."""
        for item in items:
            name = self._names.get(item.tube)
            if name is not None:
                self.listener.heard_item(name, item)
        self.listener.heard_all()

    def met(self, session: int) -> None:
        """See MeshListener: its news are not heard here yet."""
        if session not in self.others:
            self._follow_anew()
            self.listener.met()

    def link_lost(self) -> None:
        """See MeshListener: news of others are missed from now on."""
        self._follow_anew()
        self.wake()

    def links_changed(self) -> None:
        """See MeshListener: news of others may have been missed until now."""
        self.wake()
        self._see_who_follows()

    def _see_who_follows(self) -> None:
        if self._unfollowed and not self._seeing:
            self._seeing = True
            self._spawn(self._see())

    async def _see(self) -> None:
        """Report the tubes of which all others tell from now on, a part at a time."""
        # Links answer one after the other: wait until all have.
        await asyncio.sleep(SEE_AFTER)
        self._seeing = False
        unfollowed = list(self._unfollowed)
        for start in range(0, len(unfollowed), SEE_AT_ONCE):
            found: list[str] = []
            for tube in unfollowed[start : start + SEE_AT_ONCE]:
                name = self._names.get(tube)
                if name is not None and self.follows(name):
                    self._unfollowed.pop(tube, None)
                    found.append(name)
            self.listener.followed(found)
            await asyncio.sleep(0)

    # --- what is read

    async def read(self) -> None:
        """Read the records of front-ends without a link while a client waits, for as long as this process serves."""
        records: list[bytes] = []
        while True:
            readable = self._readable()
            if not readable or not self.listener.wants_jobs() or not self._session:
                self._stop_reading()
                self._wanted.clear()
                self._resting = True
                await self._wanted.wait()
                continue
            failed = False
            try:
                records = await self._next(readable, records)
            except StoreError as error:
                logger.info("news of other front-ends cannot be read yet: %s", error)
                failed = True
            if failed:
                self._stop_reading()
                await asyncio.sleep(READ_EVERY)
                continue
            for session, record in zip(readable, records, strict=True):
                if record:
                    self._read_one(session, record)
            if self._followed != readable:
                self._followed = readable
                self._see_who_follows()

    async def _next(self, sessions: list[int], known: list[bytes]) -> list[bytes]:
        """Read records: at once if they were not followed, else when there are news or LISTEN_FOR is over."""
        if self._followed != sessions:
            return await self._store.news(sessions)
        every = READ_EVERY if self._now() - self._heard_at < QUIET_AFTER else READ_RARELY
        return await self._store.news(sessions, known, LISTEN_FOR, every)

    def _stop_reading(self) -> None:
        if self._followed:
            self._followed = []
            self._follow_anew()

    def _read_one(self, session: int, record: bytes) -> None:
        if self._odd.get(session) == record:
            return
        try:
            last, items = unpack_news(record)
        except ValueError as error:
            if session not in self._odd:
                logger.warning("the news of session %d cannot be read: %s", session, error)
            self._odd[session] = record
            # It has news, though they cannot be read.
            self.listener.look_everywhere()
            return
        known = self._seen.get(session, 0)
        if known == last:
            return
        self._seen[session] = last
        self._heard_at = self._now()
        if len(items) == ITEMS_MAX and items[0][0] > known + 1:
            self.listener.look_everywhere()  # News may be missing.
            return
        for number, tube in items:
            if number > known:
                self.listener.heard_of(tube)


def unpack_news(record: bytes) -> tuple[int, list[tuple[int, str]]]:
    """Read a record; see News. Raises ValueError if it is of another version, or damaged."""
    try:
        last, items = json.loads(record)
        news = [(number, tube) for number, tube in items]
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if type(last) is not int or not all(type(number) is int and type(tube) is str for number, tube in news):
        raise ValueError("not numbers and names of tubes")
    return last, news
