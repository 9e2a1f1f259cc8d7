"""The two servers together: send to both, wait for both, compare."""

import time
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

from twins.allowed import same
from twins.replies import Reply
from twins.side import PATIENCE_S, SENTINEL, Side

GRACE_S = 1.0


class MismatchError(AssertionError):
    """The servers answered differently."""


class Pair:
    """The reference and the server under test, and the connections to them, numbered alike on both."""

    def __init__(self, reference: list[str], tested: list[str], *, journal: Path | None = None) -> None:
        self._reference = reference
        self._tested = tested
        self._journal = journal
        self._starts = 0
        self._sides: tuple[Side, Side] | None = None
        self.spoiled = False
        self.script: list[str] = []

    def __enter__(self) -> Self:
        self.restart()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End both servers."""
        for side in self._sides or ():
            side.stop()
        self._sides = None

    def restart(self) -> None:
        """Start two fresh servers, so that their ids agree again."""
        self.stop()
        self._starts += 1
        options: list[str] = []
        if self._journal is not None:
            folder = self._journal / str(self._starts)
            folder.mkdir()
            options = ["-b", str(folder)]
        reference = Side(self._reference)
        try:
            self._sides = (reference, Side(self._tested, options))
        except BaseException:
            reference.stop()
            raise
        self.spoiled = False

    @property
    def sides(self) -> tuple[Side, Side]:
        """Both servers, the reference first."""
        if self._sides is None:
            raise RuntimeError("the servers do not run")
        return self._sides

    # What a connection does, on both servers.

    def open(self, number: int) -> None:
        """Open a connection and see that it is served."""
        self._say(number, "connects")
        for side in self.sides:
            side.open(number)
        self.send(number, b"")

    def send(self, number: int, data: bytes, cuts: list[int] | None = None, *, quits: bool = False) -> None:
        """Send whole commands, in several writes when cuts are given, and the sentinel behind them unless they end with quit."""
        edges = [0, *sorted(cut for cut in set(cuts or []) if 0 < cut < len(data)), len(data)]
        pieces = [data[start:end] for start, end in pairwise(edges)]
        self._say(number, " | ".join(_shown(piece) for piece in pieces))
        for piece in pieces[:-1]:
            for side in self.sides:
                side.wires[number].send(piece)
            self.nudge()
        for side in self.sides:
            wire = side.wires[number]
            wire.owed += 1
            side.recount = side.recount or quits
            wire.send(pieces[-1] if quits else pieces[-1] + SENTINEL)

    def send_part(self, number: int, data: bytes) -> None:
        """Send bytes that end within a command, and see that both servers have read them."""
        self._say(number, f"{_shown(data)} ...")
        for side in self.sides:
            side.wires[number].send(data)
        self.nudge()
        self.nudge()

    def owes(self, number: int, more: int) -> None:
        """Expect further sentinel replies: the example itself asked for the sentinel job."""
        for side in self.sides:
            side.wires[number].owed += more

    def nudge(self) -> None:
        """Make both servers go round their loops, so that they have read what was sent before."""
        for side in self.sides:
            side.questions += 1
            side.control.send(b"stats\r\n")
        for side in self.sides:
            side.answers(1)

    def half_close(self, number: int) -> None:
        """Send no more on this connection; the server answers what it has and closes."""
        self._say(number, "sends no more")
        for side in self.sides:
            wire = side.wires[number]
            wire.owed += 1
            side.recount = True
            try:
                wire.sock.shutdown(1)
            except OSError:
                continue

    def close(self, number: int, *, reset: bool = False) -> None:
        """Close this connection, with a reset if asked for."""
        self._say(number, "resets" if reset else "closes")
        for side in self.sides:
            wire = side.wires[number]
            if reset:
                wire.sock.setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")  # SO_LINGER, on, 0 s
            wire.sock.close()
            wire.gone = True
            side.recount = True

    def forget(self) -> None:
        """Drop the connections of an example that is over."""
        for side in self.sides:
            for wire in side.wires.values():
                wire.sock.close()
            side.wires = {}

    # Waiting and comparing.

    def pending(self, number: int) -> bool:
        """Whether this connection waits in a reserve."""
        return self.sides[0].wires[number].pending

    def ended(self, number: int) -> bool:
        """Whether this connection is closed, by the server or by us."""
        wire = self.sides[0].wires[number]
        return wire.ended or wire.gone

    def settle(self) -> dict[int, list[Reply]]:
        """Wait for both servers, compare, and return the reference's new replies by connection.

        Raises:
            MismatchError: if they still differ after a moment's grace.
        """
        until = time.monotonic() + GRACE_S
        while True:
            for side in self.sides:
                side.settle()
            complaint = self._complaint()
            if complaint is None:
                break
            if time.monotonic() > until:
                self.spoiled = True
                raise MismatchError(
                    "\n".join([complaint, "the commands, from the start of the example:", *self.script])
                )
            for side in self.sides:
                side.drain(0.002)
        heard: dict[int, list[Reply]] = {}
        for side in reversed(self.sides):
            heard = {number: wire.fresh for number, wire in side.wires.items() if wire.fresh}
            for wire in side.wires.values():
                wire.fresh = []
        return heard

    def agree(self, data: bytes, count: int) -> list[Reply]:
        """Ask on the control connections and compare the replies."""
        self.script.append(f"  control: {_shown(data)}")
        theirs, ours = (side.ask(data, count) for side in self.sides)
        for left, right in zip(theirs, ours, strict=True):
            if not same(left, right):
                self.spoiled = True
                raise MismatchError(
                    "\n".join(
                        [
                            *_difference("control", left, right),
                            "the commands, from the start of the example:",
                            *self.script,
                        ]
                    )
                )
        return theirs

    def _complaint(self) -> str | None:
        theirs, ours = self.sides
        for number, wire in theirs.wires.items():
            other = ours.wires[number]
            for left, right in zip(wire.fresh, other.fresh, strict=False):
                if not same(left, right):
                    return "\n".join(_difference(f"connection {number}", left, right))
            common = min(len(wire.fresh), len(other.fresh))
            for left_rest, right_rest in [(wire.fresh[common:], other.fresh[common:])]:
                if left_rest or right_rest:
                    return "\n".join(_difference(f"connection {number}", left_rest, right_rest))
            if not wire.gone and (wire.reader.rest, wire.ended) != (other.reader.rest, other.ended):
                return "\n".join(
                    _difference(
                        f"connection {number}",
                        (wire.reader.rest, _state(wire.ended)),
                        (other.reader.rest, _state(other.ended)),
                    )
                )
        if ours.stuck or theirs.stuck:
            return f"not at rest after {PATIENCE_S} s\n  beanstalkd: {theirs.state}\n  tested:     {ours.state}"
        return None

    def _say(self, number: int, what: str) -> None:
        self.script.append(f"  {number}: {what}")


def _state(ended: bool) -> str:
    return "closed by the server" if ended else "open"


def _shown(data: bytes) -> str:
    return repr(data) if len(data) <= 1000 else f"{data[:200]!r}...({len(data)} bytes)...{data[-100:]!r}"


def _difference(where: str, left: object, right: object) -> list[str]:
    return [f"on {where} the servers differ", f"  beanstalkd: {left!r}", f"  tested:     {right!r}"]
