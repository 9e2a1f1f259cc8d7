"""The two ends of a link as sockets see them: what arrives is handed on, and what is to be said is sent."""

import logging
from typing import Final

from beanspiked.engine.aerospike.cluster.links import Item, LinkError, Speaker, Subscriber
from beanspiked.engine.aerospike.cluster.network import Wire

__all__ = ["DialledEnd", "DiallingEnd", "LinkOwner"]

logger = logging.getLogger(__name__)

# A front-end that leaves so many bytes of news unread loses its link; it reads the record instead.
UNREAD_MAX: Final = 1 << 20


class LinkOwner:
    """The owner of links: their ends tell it what happens."""

    def now(self) -> float:
        """Return the time, in seconds, of a clock that goes on while the machine sleeps."""
        raise NotImplementedError

    def came(self, end: "DialledEnd") -> bool:
        """Somebody has dialled; tell whether it may prove itself."""
        raise NotImplementedError

    def proved(self, end: "DialledEnd") -> None:
        """Who has dialled has proved itself."""
        raise NotImplementedError

    def went(self, end: "DialledEnd") -> None:
        """Who has dialled is gone."""
        raise NotImplementedError

    def flush(self) -> None:
        """Send what is to be told."""
        raise NotImplementedError

    def opened(self, end: "DiallingEnd") -> None:
        """Who was dialled has proved itself."""
        raise NotImplementedError

    def lost(self, end: "DiallingEnd") -> None:
        """Who was dialled is not there, or is heard no more."""
        raise NotImplementedError

    def told(self) -> None:
        """Who was dialled has answered a question."""
        raise NotImplementedError

    def obeyed(self) -> None:
        """Who was dialled tells of more tubes from now on, or of fewer."""
        raise NotImplementedError

    def heard(self, items: list[Item]) -> None:
        """News have arrived."""
        raise NotImplementedError


class DialledEnd:
    """The end of a link that another front-end made: it hears from here."""

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
            # What was done before this came has to be told before it is answered.
            self._owner.flush()
            self.wire.write(answer)
        if self.speaker.open and not was_open:
            self._owner.proved(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - it is over, for whatever reason
        """See Ends."""
        self.wire = None
        self._owner.went(self)

    def pause_writing(self) -> None:
        """See Ends: what waits is measured whenever something is sent."""

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
    """The end of a link that this front-end makes: it hears from another one."""

    def __init__(self, owner: "LinkOwner", subscriber: Subscriber) -> None:
        self.subscriber: Subscriber = subscriber
        self.wire: Wire | None = None
        self.spoke_at: float = owner.now()
        self._owner: LinkOwner = owner

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
        """See Ends: what is said here is little."""

    def resume_writing(self) -> None:
        """See Ends."""

    def eof_received(self) -> None:
        """See Ends."""

    def hang_up(self) -> None:
        """End the link."""
        if self.wire is not None:
            self.wire.abort()
