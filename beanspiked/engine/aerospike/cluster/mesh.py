"""The links between this front-end and the others, over which news go at once.

A front-end dials the others as it learns of them, says which tubes it wants to hear of, and keeps the links for as long as both live.
Where no link can be made (a firewall, an older version) each reads the other's record instead; see news.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from beanspiked.engine.aerospike.cluster.ends import DialledEnd, DiallingEnd, LinkOwner
from beanspiked.engine.aerospike.cluster.links import EVERYTHING, PULSE, Item, Speaker, Subscriber
from beanspiked.engine.aerospike.cluster.network import Network

__all__ = ["Mesh", "MeshListener"]

logger = logging.getLogger(__name__)

# In seconds: a link that has been silent for so long is over; a living end says so more often.
SILENT_MAX: Final = 1.5
PULSE_EVERY: Final = 0.5
# The pause between two tries to dial a front-end that could not be reached.
DIAL_AGAIN: Final = 10.0
# A dialled front-end must prove itself within this time.
PROVED_WITHIN: Final = 2.0
# A caller whose session is not seen alive within this time is hung up on.
UNKNOWN_MAX: Final = 10.0
# How many callers at most may not have proved themselves yet.
STRANGERS_MAX: Final = 256
# A front-end that wants to hear of more tubes hears of all.
WANTS_MAX: Final = 20_000


class MeshListener:
    """Hears what happens on the links."""

    def heard(self, items: list[Item]) -> None:
        """Take in news."""
        raise NotImplementedError

    def met(self, session: int) -> None:
        """Note that a front-end, which may be new, has dialled this one."""
        raise NotImplementedError

    def links_changed(self) -> None:
        """Note that there is one link more, or that a link tells of more tubes."""
        raise NotImplementedError

    def link_lost(self) -> None:
        """Note that there is one link less."""
        raise NotImplementedError


class Mesh(LinkOwner):
    """Keeps the links.

    Args:
        listener: Hears what happens.
        network: What links are made with.
        spawn: Runs a coroutine beside everything else until this front-end ends.
        now: A clock in seconds that goes on while the machine sleeps.
        nonce: Makes 16 random bytes.

    Attributes:
        address: The address that others dial; empty if they cannot.
        key: The cluster's key; empty before it is known, and then there are no links.
    """

    def __init__(
        self,
        listener: MeshListener,
        network: Network,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        now: Callable[[], float],
        nonce: Callable[[], bytes],
    ) -> None:
        self.listener: MeshListener = listener
        self.address: str = ""
        self.key: bytes = b""
        self._now = now
        self._network = network
        self._spawn = spawn
        self._nonce = nonce
        self._session: int = 0
        # Callers, which hear from here: by session, and those that have not proved themselves.
        self._hearers: dict[int, DialledEnd] = {}
        self._strangers: dict[DialledEnd, None] = {}
        # The front-ends that this one hears from or is dialling, by session.
        self._sources: dict[int, DiallingEnd] = {}
        self._dial_at: dict[int, float] = {}
        self._wants: set[int] = set()
        self._everything: bool = False
        # The tubes that were named before everything was wanted.
        self._named: set[int] = set()
        self._items: list[Item] = []
        # Done when a question was answered.
        self._answered: asyncio.Future[None] | None = None

    async def listen(self, key: bytes) -> None:
        """Let others dial. Called before each session, since a cluster that has lost its data has another key."""
        self.key = key
        if not self.address:
            self.address = await self._network.listen(self._accept)

    def begin(self, session: int) -> None:
        """Begin with a new session: links of the last one are over."""
        self._hang_up_all()
        self._session = session

    def end(self) -> None:
        """Hang up: the session is over."""
        self._session = 0
        self._hang_up_all()

    def close(self) -> None:
        """Hang up for good."""
        self.end()
        self.key = b""
        self.address = ""
        self._network.close()

    def _hang_up_all(self) -> None:
        for dialled in [*self._hearers.values(), *self._strangers]:
            dialled.hang_up()
        for dialling in list(self._sources.values()):
            dialling.hang_up()
        self._hearers.clear()
        self._strangers.clear()
        self._sources.clear()
        self._dial_at.clear()

    def now(self) -> float:
        """See LinkOwner."""
        return self._now()

    # --- who is there

    def know(self, others: "Iterable[tuple[int, str]]") -> None:
        """Dial living sessions that are new, by their addresses, and hang up on those that are gone."""
        if not self.key or not self._session:
            return
        now = self.now()
        living = dict(others)
        for session, address in living.items():
            if address and session not in self._sources and self._dial_at.get(session, 0.0) <= now:
                self._dial_at[session] = now + DIAL_AGAIN
                self._spawn(self._dial(session, address))
        for session in self._dial_at.keys() - living.keys():
            del self._dial_at[session]
        for session in [session for session in self._sources if session not in living]:
            self._sources[session].hang_up()
        for hearer in list(self._hearers.values()):
            # A caller of a moment ago may not have been looked at yet.
            if hearer.speaker.peer not in living and now - hearer.since > UNKNOWN_MAX:
                hearer.hang_up()

    async def _dial(self, session: int, address: str) -> None:
        made = DiallingEnd(self, Subscriber(self.key, self._session, self._nonce(), session))
        self._sources[session] = made
        try:
            await self._network.dial(address, lambda: made)
        except OSError as error:
            logger.info("session %d cannot be reached at %s, its record is read: %s", session, address, error)
        finally:
            if made.wire is None:
                self.lost(made)
        if self._sources.get(session) is not made:
            # The session ended meanwhile.
            made.hang_up()

    async def pulse(self) -> None:
        """Say that this front-end lives, and hang up on silent ones, for as long as this process serves."""
        while True:
            await asyncio.sleep(PULSE_EVERY)
            self._pulse()

    def _pulse(self) -> None:
        now = self.now()
        for hearer in list(self._hearers.values()):
            hearer.send(PULSE)
        for stranger in list(self._strangers):
            if now - stranger.since > PROVED_WITHIN:
                stranger.hang_up()
        for source in list(self._sources.values()):
            if source.wire is not None and now - source.spoke_at > SILENT_MAX:
                logger.info("the link to session %d is silent, its record is read", source.subscriber.peer)
                source.hang_up()
            elif source.is_deaf():
                logger.info("session %d speaks and does not hear, its record is read", source.subscriber.peer)
                source.hang_up()

    def silence(self) -> tuple[int, float]:
        """Return how many front-ends send news over a link, and for how many seconds the most silent one has been silent."""
        now = self.now()
        silent = [now - source.spoke_at for source in self._sources.values() if source.subscriber.open]
        return len(silent), max(silent, default=0.0)

    # --- the others hear

    def tell(self, item: Item) -> None:
        """Queue news for the front-ends that want them; the next flush sends them."""
        if self._hearers:
            self._items.append(item)

    def flush(self) -> None:
        """Send the news that wait."""
        if self._items:
            items = self._items
            self._items = []
            for hearer in list(self._hearers.values()):
                told = hearer.speaker.tell(items)
                if told:
                    hearer.send(told)

    def _accept(self) -> DialledEnd:
        return DialledEnd(self, Speaker(self.key, self._session, self._nonce()))

    def came(self, end: DialledEnd) -> bool:
        """Take a new caller; tell whether it may prove itself."""
        if not self._session or len(self._strangers) >= STRANGERS_MAX:
            return False
        self._strangers[end] = None
        return True

    def proved(self, end: DialledEnd) -> None:
        """Take a caller that has proved itself: a session's new link replaces its former one."""
        self._strangers.pop(end, None)
        former = self._hearers.get(end.speaker.peer)
        self._hearers[end.speaker.peer] = end
        if former is not None:
            former.hang_up()
        self.listener.met(end.speaker.peer)

    def went(self, end: DialledEnd) -> None:
        """Drop a caller that is gone."""
        self._strangers.pop(end, None)
        if self._hearers.get(end.speaker.peer) is end:
            del self._hearers[end.speaker.peer]

    # --- this front-end hears

    async def round(self, sessions: list[int], seconds: float) -> bool:
        """Ask these sessions whether they have told everything done so far; tell whether all said so in time."""
        asked: list[tuple[DiallingEnd, int]] = []
        for session in sessions:
            source = self._sources.get(session)
            if source is None or source.wire is None or not source.subscriber.open:
                return False
            number, question = source.subscriber.ask()
            source.wire.write(question)
            asked.append((source, number))
        until = self.now() + seconds
        while any(source.subscriber.told < number for source, number in asked):
            if self.now() >= until or any(source.wire is None for source, _ in asked):
                return False
            if self._answered is None or self._answered.done():
                self._answered = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._answered], timeout=until - self.now())
        return True

    def told(self) -> None:
        """See LinkOwner."""
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)

    def obeyed(self) -> None:
        """See LinkOwner."""
        self.listener.links_changed()

    def heard(self, items: list[Item]) -> None:
        """See LinkOwner."""
        self.listener.heard(items)

    def want_these(self, tubes: list[int]) -> None:
        """Hear of these tubes and no others, before there is any link."""
        self._wants = set(tubes)
        self._everything = len(tubes) > WANTS_MAX

    def want(self, tube: int) -> None:
        """Hear of a tube from now on, by its hash."""
        if tube not in self._wants:
            self._wants.add(tube)
            if not self._everything:
                if len(self._wants) > WANTS_MAX:
                    self._everything = True
                    self._named = self._wants - {tube}
                    tube = EVERYTHING
                self._say([tube], [])

    def want_no_more(self, tubes: list[int]) -> None:
        """Stop hearing of these tubes."""
        dropped = [tube for tube in tubes if tube in self._wants]
        self._wants.difference_update(dropped)
        if not self._everything:
            self._say([], dropped)
        elif len(self._wants) <= WANTS_MAX // 2:
            self._everything = False
            self._say(list(self._wants), [EVERYTHING, *(self._named - self._wants)])
            self._named = set()

    def _say(self, added: list[int], dropped: list[int]) -> None:
        for source in self._sources.values():
            if source.subscriber.open and source.wire is not None:
                source.wire.write(source.subscriber.want(added, dropped))

    def opened(self, end: DiallingEnd) -> None:
        """Use a link whose other end has proved itself."""
        wanted = [EVERYTHING] if self._everything else list(self._wants)
        if end.wire is not None and wanted:
            end.wire.write(end.subscriber.want(wanted, []))
        self.listener.links_changed()

    def lost(self, end: DiallingEnd) -> None:
        """Drop a link whose other end cannot be reached any more."""
        if self._sources.get(end.subscriber.peer) is end:
            del self._sources[end.subscriber.peer]
            self.told()
            if end.subscriber.open:
                # The other end was there a moment ago and may be back.
                self._dial_at[end.subscriber.peer] = self.now() + 1.0
                self.listener.link_lost()

    def hears(self, session: int) -> bool:
        """Tell whether a session hears this front-end's news over a link."""
        return session in self._hearers

    def linked(self, session: int) -> bool:
        """Tell whether a session sends its news over a link."""
        source = self._sources.get(session)
        return source is not None and source.subscriber.open

    def caught_up(self, sessions: list[int]) -> bool:
        """Tell whether each of these sessions sends news of all wanted tubes."""
        for session in sessions:
            source = self._sources.get(session)
            if source is None or not source.subscriber.caught_up():
                return False
        return True

    def tells_of(self, session: int, tube: int) -> bool:
        """Tell whether a session sends news of a tube, by the tube's hash."""
        source = self._sources.get(session)
        return source is not None and source.subscriber.tells_of(tube)
