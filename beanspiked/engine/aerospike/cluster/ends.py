"""The two ends of a link at their sockets: they hand on what arrives and send what is to be said."""

import logging
from typing import Final

from beanspiked.engine.aerospike.cluster.links import Item, LinkError, Speaker, Subscriber
from beanspiked.engine.aerospike.cluster.network import Wire

__all__ = ["DialledEnd", "DiallingEnd", "LinkOwner"]

logger = logging.getLogger(__name__)

# A front-end that leaves this many bytes of news unread loses its link and reads the record instead.
UNREAD_MAX: Final = 1 << 20
# An other end that obeys nothing for more pulses does not hear.
UNHEARD_MAX: Final = 3


class LinkOwner:
    """Owns links; their ends tell it what happens."""

    def now(self) -> float:
        """Return the time, in seconds, of a clock that goes on while the machine sleeps."""
        raise NotImplementedError

    def came(self, end: "DialledEnd") -> bool:
        """Take a new caller; tell whether it may prove itself."""
        raise NotImplementedError

    def proved(self, end: "DialledEnd") -> None:
        """Take a caller that has proved itself."""
        raise NotImplementedError

    def went(self, end: "DialledEnd") -> None:
        """Drop a caller that is gone."""
        raise NotImplementedError

    def flush(self) -> None:
        """Send the news that wait."""
        raise NotImplementedError

    def opened(self, end: "DiallingEnd") -> None:
        """Use a link whose other end has proved itself."""
        raise NotImplementedError

    def lost(self, end: "DiallingEnd") -> None:
        """Drop a link whose other end cannot be reached any more."""
        raise NotImplementedError

    def told(self) -> None:
        """Note that a question was answered."""
        raise NotImplementedError

    def obeyed(self) -> None:
        """Note that the other end tells of other tubes from now on."""
        raise NotImplementedError

    def heard(self, items: list[Item]) -> None:
        """Take in news."""
        raise NotImplementedError


class DialledEnd:
    """The end of a link that another front-end dialled: that one hears news from here."""

    def __init__(self, owner: "LinkOwner", speaker: Speaker) -> None:
        self.speaker: Speaker = speaker
        self.since: float = owner.now()
        self.wire: Wire | None = None
        self._owner: LinkOwner = owner

    def connection_made(self, transport: Wire) -> None:
        """See Ends."""
        self.wire = transport
        if self._owner.came(self):
            transport.write(self.speaker.greeting())
        else:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """See Ends."""
        was_open = self.speaker.open
        try:
            answer = self.speaker.receive(data)
        except LinkError as error:
            logger.info("a link is closed: %s", error)
            self.hang_up()
            return
        if self.wire is not None and answer:
            # Everything that was done before the question came is told before the answer.
            self._owner.flush()
            self.wire.write(answer)
        if self.speaker.open and not was_open:
            self._owner.proved(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - it is over, for whatever reason
        """See Ends."""
        self.wire = None
        self._owner.went(self)

    def pause_writing(self) -> None:
        """See Ends: `send` measures what waits."""

    def resume_writing(self) -> None:
        """See Ends."""

    def eof_received(self) -> None:
        """See Ends."""

    def send(self, data: bytes) -> None:
        """Send, unless the other end does not read."""
        wire = self.wire
        if wire is None:
            return
        if wire.get_write_buffer_size() > UNREAD_MAX:
            logger.info("session %d does not read its news: the link is closed", self.speaker.peer)
            self.hang_up()
        else:
            wire.write(data)

    def hang_up(self) -> None:
        """End the link."""
        if self.wire is not None:
            self.wire.abort()


class DiallingEnd:
    """The end of a link that this front-end dialled: it hears news from the other one."""

    def __init__(self, owner: "LinkOwner", subscriber: Subscriber) -> None:
        self.subscriber: Subscriber = subscriber
        self.wire: Wire | None = None
        self.spoke_at: float = owner.now()
        self._owner: LinkOwner = owner
        # The other end has obeyed nothing for so many pulses, while a WANT is open. And: what it had obeyed at the last pulse.
        self._unheard: int = 0
        self._obeyed: int = 0

    def is_deaf(self) -> bool:
        """Tell whether the other end has heard nothing for some pulses, though it was told what is wanted. Called at each pulse."""
        subscriber = self.subscriber
        heard = subscriber.obeyed != self._obeyed or subscriber.caught_up() or not subscriber.open
        self._obeyed = subscriber.obeyed
        self._unheard = 0 if heard else self._unheard + 1
        return self._unheard > UNHEARD_MAX

    def connection_made(self, transport: Wire) -> None:
        """See Ends."""
        self.wire = transport

    def data_received(self, data: bytes) -> None:
        """See Ends."""
        subscriber = self.subscriber
        was_open = subscriber.open
        obeyed, told = subscriber.obeyed, subscriber.told
        try:
            answer = subscriber.receive(data)
        except LinkError as error:
            logger.info("the link to session %d is closed: %s", subscriber.peer, error)
            self.hang_up()
            return
        self.spoke_at = self._owner.now()
        if self.wire is not None and answer:
            self.wire.write(answer)
        if subscriber.open and not was_open:
            self._owner.opened(self)
        if subscriber.obeyed != obeyed:
            self._owner.obeyed()
        if subscriber.heard:
            heard = subscriber.heard
            subscriber.heard = []
            self._owner.heard(heard)
        if subscriber.told != told:
            self._owner.told()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - it is over, for whatever reason
        """See Ends."""
        self.wire = None
        self._owner.lost(self)

    def pause_writing(self) -> None:
        """See Ends: this end says little."""

    def resume_writing(self) -> None:
        """See Ends."""

    def eof_received(self) -> None:
        """See Ends."""

    def hang_up(self) -> None:
        """End the link."""
        if self.wire is not None:
            self.wire.abort()
