"""What goes over a link, without its sockets: a front-end that waits for jobs hears of them from the others at once.

A front-end that waits dials all others and names the tubes that it wants to hear of, by keyed hashes of their names. The others send it
news of those tubes for as long as the link lasts. Both ends prove that they know the cluster's key, which stands in the cluster. News are
hints: if a link is lost, the records that the others write are read instead, and no job is lost.

A frame is its kind (one byte), the length of its payload (two bytes, big endian) and the payload. In order:

| from | kind | what |
|---|---|---|
| dialled | CHALLENGE | the format of the frames that follow, 16 random bytes |
| dialler | HELLO | its session, the session that it wants to reach, 16 random bytes, a proof |
| dialled | WELCOME | a proof |
| dialler | WANT | the number of this message, how many hashes are added, the added ones, the dropped ones |
| dialled | HEARD | the number of the last WANT, which is obeyed from now on |
| dialled | NEWS | items |
| dialler | ASK | the number of this question: has everything done so far been told? |
| dialled | TOLD | the number of the last question: everything done before it came was told before this frame |
| dialled | PULSE | nothing: this end lives |
"""

import hmac
from collections.abc import Iterable
from hashlib import blake2b
from struct import Struct
from typing import Final

__all__ = [
    "CHANGED",
    "DELAYED",
    "EVERYTHING",
    "LOOK",
    "NONCE_SIZE",
    "PULSE",
    "READY",
    "Item",
    "LinkError",
    "Speaker",
    "Subscriber",
    "tube_hash",
]

# The format of links. An end that meets another format hangs up, and the two read each other's records instead.
FORMAT: Final = 1
NONCE_SIZE: Final = 16
PROOF_SIZE: Final = 16
HASH_SIZE: Final = 8

CHALLENGE: Final = 1
HELLO: Final = 2
WELCOME: Final = 3
WANT: Final = 4
HEARD: Final = 5
NEWS: Final = 6
PULSE_KIND: Final = 7
ASK: Final = 8
TOLD: Final = 9

FRAME: Final = Struct(">BH")
FRAME_MAX: Final = 65535
SESSIONS: Final = Struct(">QQ")
WANT_HEAD: Final = Struct(">II")
NUMBER: Final = Struct(">I")
HASH: Final = Struct(">Q")
# A tube's hash, a segment's number, the kind of news, the number of ready jobs, the first key.
ITEM: Final = Struct(">QQBH14s")
# How many hashes, or items, go into one frame.
HASHES_MAX: Final = 4000
ITEMS_MAX: Final = 1000
COUNT_MAX: Final = 65535
# A front-end that wants more tubes than this is told of all.
WANTS_MAX: Final = 1 << 20

# Instead of a hash: all tubes. The chance that a name has this hash is one in 2^64.
EVERYTHING: Final = 0

# The kinds of news.
READY: Final = 0
DELAYED: Final = 1
# Look at the tube anew: its pause, or jobs in segments that are not named.
LOOK: Final = 2
# Look at the segment anew.
CHANGED: Final = 3


class LinkError(Exception):
    """The other end breaks the rules of links: hang up."""


class Item:
    """One piece of news.

    Attributes:
        tube: The tube's hash.
        segment: The segment's number, 0 for LOOK.
        kind: READY, DELAYED, LOOK or CHANGED.
        count: How many ready jobs the segment has, or the largest number that fits.
        key: The first key of its ready jobs, or of its delayed ones.
    """

    def __init__(self, tube: int, segment: int, kind: int, count: int, key: bytes) -> None:
        self.tube: int = tube
        self.segment: int = segment
        self.kind: int = kind
        self.count: int = count
        self.key: bytes = key


def tube_hash(key: bytes, name: str) -> int:
    """Return a tube's hash; without the cluster's key nobody can choose names with the same hash."""
    return int.from_bytes(blake2b(name.encode(), digest_size=HASH_SIZE, key=key).digest(), "big")


def frame(kind: int, payload: bytes = b"") -> bytes:
    """Make one frame."""
    return FRAME.pack(kind, len(payload)) + payload


PULSE: Final = frame(PULSE_KIND)


def _proof(key: bytes, what: bytes, *parts: bytes) -> bytes:
    return blake2b(what + b"".join(parts), digest_size=PROOF_SIZE, key=key).digest()


class _End:
    """One end of a link: makes frames of the bytes that arrive."""

    def __init__(self, key: bytes, session: int, nonce: bytes) -> None:
        self.session: int = session
        self.open: bool = False
        self._key: bytes = key
        self._nonce: bytes = nonce
        self._buffer: bytes = b""

    def _frames(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return the frames that have arrived whole."""
        buffer = self._buffer + data if self._buffer else data
        found: list[tuple[int, bytes]] = []
        at = 0
        while len(buffer) - at >= FRAME.size:
            kind, size = FRAME.unpack_from(buffer, at)
            if len(buffer) - at < FRAME.size + size:
                break
            at += FRAME.size
            found.append((kind, buffer[at : at + size]))
            at += size
        self._buffer = buffer[at:]
        return found


class Speaker(_End):
    """The end that was dialled: it tells news.

    Args:
        key: The cluster's key.
        session: This front-end's session.
        nonce: 16 random bytes.

    Attributes:
        open: Whether the other end has proved itself.
        peer: The other end's session; 0 before it is known.
        wants: The hashes of the tubes that the other end wants to hear of.
    """

    def __init__(self, key: bytes, session: int, nonce: bytes) -> None:
        super().__init__(key, session, nonce)
        self.peer: int = 0
        self.wants: set[int] = set()

    def greeting(self) -> bytes:
        """Return the first frame."""
        return frame(CHALLENGE, bytes([FORMAT]) + self._nonce)

    def receive(self, data: bytes) -> bytes:
        """Take in bytes; return the answer. Raises LinkError."""
        answers: list[bytes] = []
        for kind, payload in self._frames(data):
            if kind == HELLO and not self.open:
                answers.append(self._welcome(payload))
            elif kind == WANT and self.open:
                answers.append(self._want(payload))
            elif kind == ASK and self.open and len(payload) == NUMBER.size:
                answers.append(frame(TOLD, payload))
            else:
                raise LinkError(f"frame of kind {kind} out of turn")
        return b"".join(answers)

    def _welcome(self, payload: bytes) -> bytes:
        if len(payload) != SESSIONS.size + NONCE_SIZE + PROOF_SIZE:
            raise LinkError("a greeting of another size")
        said, proof = payload[:-PROOF_SIZE], payload[-PROOF_SIZE:]
        if not hmac.compare_digest(proof, _proof(self._key, b"hello", self._nonce, said)):
            raise LinkError("the front-end belongs to another cluster")
        peer, meant = SESSIONS.unpack_from(said)
        if meant != self.session:
            raise LinkError(f"session {meant} was meant")
        self.peer = peer
        self.open = True
        return frame(WELCOME, _proof(self._key, b"welcome", said[-NONCE_SIZE:], self._nonce))

    def _want(self, payload: bytes) -> bytes:
        if len(payload) < WANT_HEAD.size or (len(payload) - WANT_HEAD.size) % HASH_SIZE:
            raise LinkError("a subscription of another size")
        number, added = WANT_HEAD.unpack_from(payload)
        hashes = [found for (found,) in HASH.iter_unpack(payload[WANT_HEAD.size :])]
        self.wants.update(hashes[:added])
        self.wants.difference_update(hashes[added:])
        if len(self.wants) > WANTS_MAX:
            raise LinkError("too many tubes")
        return frame(HEARD, NUMBER.pack(number))

    def tell(self, items: "Iterable[Item]") -> bytes:
        """Make frames of the items that the other end wants to hear of; empty if there are none."""
        wants = self.wants
        everything = EVERYTHING in wants
        packed = [
            ITEM.pack(item.tube, item.segment, item.kind, min(item.count, COUNT_MAX), item.key)
            for item in items
            if everything or item.tube in wants
        ]
        return b"".join([frame(NEWS, b"".join(packed[at : at + ITEMS_MAX])) for at in range(0, len(packed), ITEMS_MAX)])


class Subscriber(_End):
    """The end that dials: it hears news.

    Args:
        key: The cluster's key.
        session: This front-end's session.
        nonce: 16 random bytes.
        peer: The session that was dialled.

    Attributes:
        open: Whether the other end has proved itself.
        heard: The news that have arrived; a reader takes them out.
        obeyed: The number of the last WANT that the other end obeys.
        told: The number of the last question that was answered.
    """

    def __init__(self, key: bytes, session: int, nonce: bytes, peer: int) -> None:
        super().__init__(key, session, nonce)
        self.peer: int = peer
        self.heard: list[Item] = []
        self._hello: bytes = b""
        self._challenge: bytes = b""
        self._said: int = 0
        self.obeyed: int = 0
        self.told: int = 0
        self._asked: int = 0
        # The number of the WANT that named each tube.
        self._wanted: dict[int, int] = {}

    def want(self, added: list[int], dropped: list[int]) -> bytes:
        """Say which tubes are wanted from now on, and which no longer; only on an open link."""
        told: list[bytes] = []
        while added or dropped:
            first, added = added[:HASHES_MAX], added[HASHES_MAX:]
            room = HASHES_MAX - len(first)
            last, dropped = dropped[:room], dropped[room:]
            self._said += 1
            for found in first:
                self._wanted[found] = self._said
            for found in last:
                self._wanted.pop(found, None)
            head = WANT_HEAD.pack(self._said, len(first))
            told.append(frame(WANT, head + b"".join([HASH.pack(found) for found in [*first, *last]])))
        return b"".join(told)

    def ask(self) -> tuple[int, bytes]:
        """Ask whether everything done so far was told; return the question's number and its frame."""
        self._asked += 1
        return self._asked, frame(ASK, NUMBER.pack(self._asked))

    def caught_up(self) -> bool:
        """Tell whether the other end obeys every WANT."""
        return self.open and self.obeyed == self._said

    def tells_of(self, tube: int) -> bool:
        """Tell whether the other end sends news of a tube, by the tube's hash."""
        said = self._wanted.get(tube, 0) or self._wanted.get(EVERYTHING, 0)
        return self.open and 0 < said <= self.obeyed

    def receive(self, data: bytes) -> bytes:
        """Take in bytes; return the answer. Raises LinkError."""
        answer = b""
        for kind, payload in self._frames(data):
            if kind == CHALLENGE and not self._hello:
                answer = self._answer(payload)
            elif kind == WELCOME and self._hello and not self.open:
                if not hmac.compare_digest(payload, _proof(self._key, b"welcome", self._nonce, self._challenge)):
                    raise LinkError("the front-end belongs to another cluster")
                self.open = True
            elif kind == HEARD and self.open and len(payload) == NUMBER.size:
                self.obeyed = NUMBER.unpack(payload)[0]
            elif kind == TOLD and self.open and len(payload) == NUMBER.size:
                self.told = NUMBER.unpack(payload)[0]
            elif kind == NEWS and self.open and len(payload) % ITEM.size == 0:
                for tube, segment, told, count, key in ITEM.iter_unpack(payload):
                    self.heard.append(Item(tube, segment, told, count, key))
            elif kind != PULSE_KIND or not self.open:
                raise LinkError(f"frame of kind {kind} out of turn")
        return answer

    def _answer(self, payload: bytes) -> bytes:
        if len(payload) != 1 + NONCE_SIZE or payload[0] != FORMAT:
            raise LinkError("another format")
        self._challenge = payload[1:]
        said = SESSIONS.pack(self.session, self.peer) + self._nonce
        self._hello = frame(HELLO, said + _proof(self._key, b"hello", self._challenge, said))
        return self._hello
