"""What the machine sends: commands from small pools, and the ways in which they can be wrong."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

TUBES = [b"default", b"a", b"b"]
ODD_TUBES = [
    b"x" * 200,
    b"x" * 201,
    b"-a",
    b"A.b;c/d+e$f_(g)-",
    b"a:b",
    b"a b",
    b"a ",
    b" a",
    b"",
    b"\xc3\xa9",
    b"harness",
]
PRIORITIES = [b"0", b"1", b"5", b"1023", b"1024", b"4294967295"]
DELAYS = [b"0", b"0", b"0", b"20000", b"50000", b"4294967295"]
TTRS = [b"10000", b"90000", b"4294967295"]
UNKNOWN_IDS = [b"0", b"999999999", b"18446744073709551615", b"18446744073709551616", b"-1", b"x", b""]
NUMBERS = [
    b"-1",
    b"+1",
    b"007",
    b"4294967295",
    b"4294967296",
    b"18446744073709551615",
    b"18446744073709551616",
    b"9" * 40,
]
NUMBERS += [b"0x1", b"1.5", b"1e3", b"", b" ", b"\t1", b"1\t", b"1 2", b"1a", b"\xd9\xa1"]
BODIES = [b"", b"a", b"0123456789", b"two\r\nlines", b"\r\n", b"\0\xff\r", b"delete 2\r\nstats\r\n", b"x" * 300]
BARE = [
    b"stats",
    b"list-tubes",
    b"list-tube-used",
    b"list-tubes-watched",
    b"peek-ready",
    b"peek-delayed",
    b"peek-buried",
]
WITH_ID = [b"delete", b"touch", b"peek", b"kick-job", b"reserve-job", b"stats-job"]
WITH_TUBE = [b"use", b"watch", b"ignore", b"stats-tube"]
VERBS = [
    *BARE,
    *WITH_ID,
    *WITH_TUBE,
    b"put",
    b"reserve",
    b"reserve-with-timeout",
    b"release",
    b"bury",
    b"kick",
    b"pause-tube",
]
JUNK = [b"x", b" ", b"  ", b"\0", b"\n", b"\t", b" 1", b"-", b"\xff", b"\x0b"]


@dataclass(frozen=True, slots=True)
class JobRef:
    """A job told by its place among those known, the newest first; or among those this connection reserved."""

    place: int
    held: bool = False


Word = bytes | JobRef


@dataclass(frozen=True, slots=True)
class Command:
    """A command's words, and what follows its line without further CRLF: a put's body."""

    words: tuple[Word, ...]
    tail: bytes = b""

    def render(self, known: Sequence[int], held: Sequence[int]) -> bytes:
        """Return the bytes, ids filled in."""
        return self.line(known, held) + b"\r\n" + self.tail

    def line(self, known: Sequence[int], held: Sequence[int]) -> bytes:
        """Return the line without CRLF."""
        return b" ".join(word if isinstance(word, bytes) else _name(word, known, held) for word in self.words)


@dataclass(frozen=True, slots=True)
class Broken:
    """A command whose line is damaged in one place."""

    command: Command
    how: str
    where: int
    junk: bytes

    def render(self, known: Sequence[int], held: Sequence[int]) -> bytes:
        """Return the damaged bytes."""
        line = self.command.line(known, held)
        at = self.where % (len(line) + 1)
        words = line.split(b" ")
        word = self.where % len(words)
        choices: dict[str, Callable[[], bytes]] = {
            "drop a word": lambda: b" ".join(words[:word] + words[word + 1 :]),
            "replace a word": lambda: b" ".join([*words[:word], self.junk, *words[word + 1 :]]),
            "double a space": lambda: line.replace(b" ", b"  ", 1 + self.where % 3),
            "append": lambda: line + self.junk,
            "prepend": lambda: self.junk + line,
            "insert": lambda: line[:at] + self.junk + line[at:],
            "cut": lambda: line[:at],
            "glue": lambda: line.replace(b" ", b"", 1),
            "shout": line.upper,
            "fill the line": lambda: line + b"y" * max(0, 218 + self.where % 9 - len(line)),
            "fill two lines": lambda: line + b" " + b"y" * max(0, 442 + self.where % 9 - len(line)),
        }
        damaged = choices[self.how]()
        return damaged + b"\r\n" + self.command.tail


HOWS = ["drop a word", "replace a word", "double a space", "append", "prepend", "insert", "cut", "glue", "shout"]
HOWS += ["fill the line", "fill two lines"]


@dataclass(frozen=True, slots=True)
class Noise:
    """Tokens thrown together, with line ends where they fall."""

    tokens: tuple[bytes, ...]

    def render(self, known: Sequence[int], held: Sequence[int]) -> bytes:
        """Return the bytes."""
        del known, held
        return b"".join(self.tokens)


Sendable = Command | Broken | Noise


def _name(ref: JobRef, known: Sequence[int], held: Sequence[int]) -> bytes:
    pool = held if ref.held and held else known
    return b"%d" % pool[-1 - ref.place % len(pool)] if pool else b"999999999"


def _words(*parts: st.SearchStrategy[Word] | bytes) -> st.SearchStrategy[Command]:
    return st.tuples(*(st.just(part) if isinstance(part, bytes) else part for part in parts)).map(Command)


def _pick(values: list[bytes]) -> st.SearchStrategy[Word]:
    return st.sampled_from(values)


tubes: st.SearchStrategy[Word] = _pick(TUBES * 6 + ODD_TUBES)
known_ids: st.SearchStrategy[Word] = st.builds(JobRef, st.integers(0, 7))
held_ids: st.SearchStrategy[Word] = st.builds(JobRef, st.integers(0, 3), st.just(value=True))
ids: st.SearchStrategy[Word] = st.one_of(known_ids, known_ids, held_ids, held_ids, _pick(UNKNOWN_IDS))
priorities = _pick(PRIORITIES)
delays = _pick(DELAYS)


@st.composite
def puts(draw: st.DrawFn) -> Command:
    """Draw a put whose length is right three times out of four."""
    body = draw(st.sampled_from(BODIES) | st.binary(max_size=12))
    error = draw(st.sampled_from([0] * 12 + [-2, -1, 1, 2, 9]))
    size = draw(st.sampled_from([max(0, len(body) + error)] * 30 + [65535, 65536]))
    words = (b"put", draw(priorities), draw(delays), draw(_pick(TTRS)), b"%d" % size)
    return Command(words, body + b"\r\n")


commands: st.SearchStrategy[Command] = st.one_of(
    puts(),
    puts(),
    puts(),
    _words(b"reserve-with-timeout", st.just(b"0")),
    _words(b"reserve-with-timeout", st.just(b"0")),
    _words(_pick(WITH_ID), ids),
    _words(_pick(WITH_ID), ids),
    _words(b"release", held_ids | ids, priorities, delays),
    _words(b"bury", held_ids | ids, priorities),
    _words(_pick(WITH_TUBE), tubes),
    _words(_pick(WITH_TUBE), _pick(TUBES)),
    _words(b"kick", _pick([b"0", b"1", b"2", b"100", b"4294967295"])),
    _words(b"pause-tube", tubes, _pick([b"0", b"0", b"20000", b"4294967295"])),
    _words(_pick(BARE)),
)
endings: st.SearchStrategy[tuple[bytes, ...]] = st.one_of(
    st.sampled_from([(b"delete",), (b"touch",), (b"stats-job",), (b"kick-job",)]),
    st.tuples(st.just(b"release"), st.sampled_from(PRIORITIES), st.sampled_from(DELAYS)),
    st.tuples(st.just(b"bury"), st.sampled_from(PRIORITIES)),
)
waits: st.SearchStrategy[Command] = st.sampled_from(
    [
        Command((b"reserve",)),
        Command((b"reserve-with-timeout", b"10000")),
        Command((b"reserve-with-timeout", b"2147483647")),
    ]
)
broken: st.SearchStrategy[Sendable] = st.builds(
    Broken,
    commands | waits | _words(b"quit"),
    st.sampled_from(HOWS),
    st.integers(0, 240),
    st.sampled_from(JUNK + NUMBERS),
)
noise: st.SearchStrategy[Sendable] = st.lists(
    st.sampled_from([*VERBS, b" ", b" ", b" ", b"0", b"1", b"2", b"a", b"\r\n", b"\r\n", b"\n", b"\r", b"\0", b"-"])
    | st.binary(max_size=4),
    max_size=14,
).map(lambda tokens: Noise(tuple(tokens)))
mixtures: st.SearchStrategy[Sendable] = st.one_of(commands, commands, commands, broken, noise)
behind: st.SearchStrategy[list[Sendable]] = st.one_of(st.just([]), st.just([]), st.lists(mixtures, max_size=4))
cuts = st.lists(st.integers(0, 400), max_size=3)
