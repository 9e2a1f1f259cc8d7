"""The state machine: up to four connections send what the grammar makes, one at a time, and both servers must agree."""

from typing import ClassVar

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from twins.calm import BIGGEST, BIGGEST_BEHIND, Rewriter, asks_sentinel, may_block, watched
from twins.framing import Stream, complete
from twins.grammar import TUBES, Command, JobRef, Sendable, behind, commands, cuts, endings, ids, mixtures, puts, waits
from twins.pair import Pair
from twins.replies import Reply

MOST_CONNECTIONS = 4
connections = st.integers(0, MOST_CONNECTIONS - 1)


class Client:
    """What the machine remembers of one connection."""

    def __init__(self) -> None:
        self.watching: set[bytes] = {b"default"}
        self.held: list[int] = []
        self.rest = b""  # the second half of a command whose first half was sent
        self.behind = False  # commands of the example may stand behind its blocked reserve
        self.quitting = False  # one of them is quit


class Machine(RuleBasedStateMachine):
    """Compare the servers of `pair`, which a subclass sets."""

    pair: ClassVar[Pair]

    def __init__(self) -> None:
        super().__init__()
        if self.pair.spoiled:
            self.pair.restart()
        self.pair.script = []
        self.clients: dict[int, Client] = {}
        self.known: list[int] = []
        self.opened = 0
        self.first = self._mark()

    def _mark(self) -> int:
        """Put a job to learn where the ids stand; the two servers must agree on it."""
        reply = self.pair.agree(b"put 0 0 4294967295 0\r\n\r\n", 1)[0]
        if reply.job_id is None:
            raise AssertionError(f"a put was answered with {reply}")
        self.pair.agree(b"delete %d\r\n" % reply.job_id, 1)
        return reply.job_id

    # Sending.

    def _client(self, choice: int) -> tuple[int, Client]:
        """Choose among the open connections; open one when there is none."""
        if not self.clients:
            return self._open()
        number = sorted(self.clients)[choice % len(self.clients)]
        return number, self.clients[number]

    def _open(self) -> tuple[int, Client]:
        self.opened += 1
        self.clients[self.opened] = Client()
        self.pair.open(self.opened)
        self._settle()
        return self.opened, self.clients[self.opened]

    def _stream(self, number: int, parts: list[Sendable]) -> Stream:
        """Render commands into a whole number of lines and bodies that both servers must treat alike."""
        client = self.clients[number]
        uploading = any(other.rest for other in self.clients.values())
        blocked = [self.clients[other] for other in self.clients if other != number and self.pair.pending(other)]
        adding: set[bytes] = set()
        waits = self.pair.pending(number)

        def biggest() -> int:
            return BIGGEST_BEHIND if waits else BIGGEST

        def may_wait() -> bool:
            return not any(other.behind or (client.watching | adding) & other.watching for other in blocked)

        rewriter = Rewriter(may_wait, lambda job_id: not uploading or job_id in self.known or job_id > 10**8, biggest)

        def rewrite(line: bytes) -> bytes:
            nonlocal waits
            line = rewriter(line)
            waits = waits or may_block(line)
            if tube := watched(line):
                if self.pair.pending(number) and any(tube in other.watching for other in blocked):
                    return b"list-tubes-watched"
                adding.add(tube)
            return line

        raw = b"".join(part.render(self.known, client.held) for part in parts)
        stream = complete(raw, rewrite)
        client.watching |= adding
        return stream

    def _send(self, number: int, parts: list[Sendable], places: list[int]) -> None:
        """Send commands on one connection and compare what comes of them.

        Only one connection may run commands at a time: two would be interleaved differently by the two servers. One that is woken
        by these commands and has others behind its reserve would be the second, so then they go one by one.
        """
        client = self.clients[number]
        others_behind = self._owner() not in {None, number}
        if client.quitting or (others_behind and self.pair.pending(number)):
            return
        if client.rest:
            rest, client.rest = client.rest, b""
            self.pair.send(number, rest)
            self._settle()
            if number not in self.clients:
                return
            others_behind = self._owner() not in {None, number}
        stream = self._stream(number, parts)
        client.quitting = stream.quits
        if others_behind:
            for at in range(len(stream.pieces)):
                if number in self.clients:
                    self._send_pieces(number, stream, slice(at, at + 1), places)
        else:
            client.behind = self.pair.pending(number) or any(may_block(line) for line in stream.lines[:-1])
            self._send_pieces(number, stream, slice(None), places)

    def _send_pieces(self, number: int, stream: Stream, which: slice, places: list[int]) -> None:
        self.pair.owes(number, sum(asks_sentinel(line) for line in stream.lines[which]))
        last = which.stop is None or which.stop == len(stream.pieces)
        self.pair.send(number, b"".join(stream.pieces[which]), places, quits=stream.quits and last)
        self._settle()

    def _owner(self) -> int | None:
        """Return the blocked connection that has commands behind its reserve; there is at most one."""
        return next(
            (number for number, client in self.clients.items() if client.behind and self.pair.pending(number)), None
        )

    def _settle(self) -> None:
        """Wait and compare, then learn from the replies."""
        for number, replies in self.pair.settle().items():
            for reply in replies:
                self._learn(number, reply)
        for number in [number for number in self.clients if self.pair.ended(number)]:
            self.pair.close(number)
            del self.clients[number]

    def _learn(self, number: int, reply: Reply) -> None:
        job_id = reply.job_id
        if job_id is None:
            return
        if reply.line.startswith(b"INSERTED "):
            self.known.append(job_id)
        elif reply.line.startswith(b"RESERVED ") and number in self.clients:
            self.clients[number].held.append(job_id)

    # Rules.

    @initialize(tubes=st.lists(st.sampled_from(TUBES), min_size=2, max_size=3))
    def connect_some(self, tubes: list[bytes]) -> None:
        """Open two or three connections, each using and watching one tube."""
        for tube in tubes:
            number, client = self._open()
            data = b"use %s\r\nwatch %s\r\n" % (tube, tube) + (b"" if tube == b"default" else b"ignore default\r\n")
            client.watching = {tube}
            self.pair.send(number, data)
            self._settle()

    @precondition(lambda self: len(self.clients) < MOST_CONNECTIONS)
    @rule()
    def connect(self) -> None:
        """Open one more connection."""
        self._open()

    @rule(choice=connections, parts=st.lists(commands, min_size=1, max_size=3))
    def talk(self, choice: int, parts: list[Sendable]) -> None:
        """Send a few good commands at once."""
        self._send(self._client(choice)[0], parts, [])

    @rule(choice=connections, parts=st.lists(mixtures, min_size=1, max_size=8), places=cuts)
    def babble(self, choice: int, parts: list[Sendable], places: list[int]) -> None:
        """Send good and bad commands in pieces cut at any byte."""
        self._send(self._client(choice)[0], parts, places)

    @rule(
        choice=connections,
        before=st.lists(commands, max_size=2),
        wait=waits,
        after=behind,
        places=cuts,
    )
    def wait(
        self, choice: int, before: list[Sendable], wait: Command, after: list[Sendable], places: list[int]
    ) -> None:
        """Send a reserve that may block, with commands behind it."""
        self._send(self._client(choice)[0], [*before, wait, *after], places)

    @rule(choice=connections, tube=st.sampled_from(TUBES), jobs=st.lists(puts(), min_size=1, max_size=3))
    def feed(self, choice: int, tube: bytes, jobs: list[Sendable]) -> None:
        """Put into a tube that somebody may wait on."""
        self._send(self._client(choice)[0], [Command((b"use", tube)), *jobs], [])

    @rule(choice=connections, job=puts(), place=st.sampled_from([0, 0, 1, 2]), then=endings)
    def work(self, choice: int, job: Command, place: int, then: tuple[bytes, ...]) -> None:
        """Put where this connection watches, reserve, and do with a reserved job what workers do."""
        number, client = self._client(choice)
        tube = min(client.watching)
        self._send(number, [Command((b"use", tube)), job, Command((b"reserve-with-timeout", b"0"))], [])
        if number in self.clients:
            self._send(number, [Command((then[0], JobRef(place, held=True), *then[1:]))], [])

    @rule(choice=connections, job=ids, what=puts(), at=st.integers(1, 60))
    def begin(self, choice: int, job: bytes | JobRef, what: Command, at: int) -> None:
        """Send the first part of a command; the rest comes later, or never."""
        number, client = self._client(choice)
        if client.rest or client.quitting or self.pair.pending(number):
            return
        stream = self._stream(number, [what] if at % 3 else [Command((b"delete", job))])
        at = min(at, len(stream.data) - 1)
        client.rest = stream.data[at:]
        self.pair.send_part(number, stream.data[:at])
        self._settle()

    @rule(choice=connections, how=st.sampled_from(["half", "close", "reset", "quit"]))
    def leave(self, choice: int, how: str) -> None:
        """End a connection in one of the four ways."""
        number, client = self._client(choice)
        if how == "quit" and self.pair.pending(number):
            self._send(number, [Command((b"quit",))], [])
        elif how == "quit":
            # What follows is dropped; it is read together with quit, or the server's close would be a reset that may overtake replies.
            if client.rest:
                rest, client.rest = client.rest, b""
                self.pair.send(number, rest)
                self._settle()
            self.pair.send(number, b"quit\r\nput 0 0 10000 1\r\na\r\n", quits=True)
        elif how == "half":
            client.rest = b""
            self.pair.half_close(number)
        else:
            self._close(number, reset=how == "reset")
        self._settle()

    def _close(self, number: int, *, reset: bool = False) -> None:
        """Close for good.

        What stands behind the blocked reserve of a connection that is closed is executed or not, as the packets fall. So such a
        connection first sends no more, and is closed when everything is answered.
        """
        if number == self._owner():
            self.pair.half_close(number)
            self._settle()
        if number in self.clients:
            del self.clients[number]
            self.pair.close(number, reset=reset)

    # The end.

    def teardown(self) -> None:
        """Close everything, compare what is left, and leave both servers empty."""
        try:
            if not self.pair.spoiled:
                self._clean()
        except BaseException:
            self.pair.spoiled = True
            raise
        finally:
            for line in self.pair.script:
                note(line)
            self.pair.forget()

    def _clean(self) -> None:
        for number in list(self.clients):
            if number in self.clients:
                self._close(number)
                self._settle()
        self.pair.agree(b"stats\r\nlist-tubes\r\n", 2)
        last = self._mark()
        left = range(self.first + 1, last)
        if left:
            self.pair.agree(b"".join(b"delete %d\r\n" % job_id for job_id in left), len(left))
        self.pair.agree(b"pause-tube default 0\r\nstats\r\nlist-tubes\r\nstats-tube default\r\n", 4)


def bound(pair: Pair) -> type[Machine]:
    """Return a machine class for these servers."""
    return type("BoundMachine", (Machine,), {"pair": pair})
