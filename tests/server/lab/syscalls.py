"""The order in which a server writes, syncs and answers, by its system calls."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from lab.process import until

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from lab.process import Server

WRITES = ("write", "writev", "pwrite64", "pwritev", "pwritev2")
SYNCS = ("fsync", "fdatasync")
SENDS = ("sendto", "sendmsg", "write", "writev")
CHANGED = (b"INSERTED", b"DELETED", b"RELEASED", b"BURIED", b"KICKED", b"PAUSED")

LINE = re.compile(r"(?P<thread>\d+) +(?P<time>[\d.]+) (?P<rest>.*)")
CALL = re.compile(r"(?P<name>\w+)\(\d+<(?P<path>[^>]*)>(?P<arguments>.*)")
RESUMED = re.compile(r"<\.\.\. (?P<name>\w+) resumed>")
STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclasses.dataclass(eq=False)
class Call:
    """A system call.

    Attributes:
        begun, done: The numbers of the lines where it begins and ends.
        begun_at: The time of its beginning, in seconds.
        path: What its descriptor is.
        data: What it writes.
    """

    name: str
    path: str
    data: bytes
    begun: int
    done: float
    begun_at: float

    @property
    def is_of_journal(self) -> bool:
        return self.path.endswith(("/log.0", "/log.1"))

    def writes_journal(self) -> bool:
        return self.is_of_journal and self.name in WRITES

    def syncs_journal(self) -> bool:
        return self.is_of_journal and self.name in SYNCS

    def answers(self) -> list[bytes]:
        """The replies to changes that it sends."""
        if self.name not in SENDS or not self.path.startswith("socket:"):
            return []
        return [line for line in self.data.split(b"\r\n") if line.startswith(CHANGED)]


def tracer(strace: str, trace: Path) -> list[str]:
    """Words that run a command under strace; the command keeps the process id."""
    calls = ",".join(sorted({*WRITES, *SYNCS, *SENDS}))
    return [strace, "-D", "-f", "-y", "-xx", "-ttt", "-s", "70000", "-e", f"trace={calls}", "-o", str(trace)]


def crash_and_read(server: Server, trace: Path) -> list[Call]:
    """End a traced server by kill -9 and return its calls."""
    server.kill()
    assert until(lambda: f"{server.pid} " in (text := trace.read_text())[-4000:] and "+++ killed" in text[-4000:])
    return read(trace)


def read(trace: Path) -> list[Call]:
    """Read what strace wrote."""
    calls: list[Call] = []
    unfinished: dict[str, Call] = {}
    for number, line in enumerate(trace.read_text().splitlines()):
        parts = LINE.fullmatch(line)
        if parts is None:
            continue
        if RESUMED.match(parts["rest"]):
            begun = unfinished.pop(parts["thread"], None)
            if begun is not None:
                begun.done = number
            continue
        call = CALL.match(parts["rest"])
        if call is None:
            continue
        data = b"".join(_plain(string) for string in STRING.findall(call["arguments"]))
        is_done = not call["arguments"].endswith("<unfinished ...>")
        path = _plain(call["path"]).decode() if call["path"].startswith("\\x") else call["path"]
        calls.append(Call(call["name"], path, data, number, number if is_done else float("inf"), float(parts["time"])))
        if not is_done:
            unfinished[parts["thread"]] = calls[-1]
    return calls


def _plain(string: str) -> bytes:
    return bytes.fromhex(string.replace("\\x", ""))


def early_replies(calls: Iterable[Call]) -> list[bytes]:
    """Return the replies to one change after another that do not follow a sync that follows the change's writes."""
    early: list[bytes] = []
    written: float | None = None
    is_synced = False
    for call in calls:
        if call.writes_journal():
            written = call.done
            is_synced = False
        elif call.syncs_journal():
            is_synced = written is not None and written < call.begun and call.done < float("inf")
            synced = call.done
        elif answers := call.answers():
            if not is_synced or synced > call.begun:
                early += answers
            written = None
            is_synced = False
    return early


def early_puts(calls: Iterable[Call], bodies: Mapping[bytes, bytes]) -> list[bytes]:
    """Return the replies to puts, made by many at once, that do not follow a sync that follows their body's write."""
    calls = list(calls)
    waiting = dict(bodies)
    written: dict[bytes, float] = {}
    synced: dict[bytes, float] = {}
    early: list[bytes] = []
    for call in calls:
        if call.writes_journal():
            for reply, body in waiting.items():
                if reply not in written and body in call.data:
                    written[reply] = call.done
        elif call.syncs_journal():
            for reply, done in written.items():
                if done < call.begun:
                    synced.setdefault(reply, call.done)
        for reply in call.answers():
            if reply in waiting and synced.get(reply, float("inf")) > call.begun:
                early.append(reply)
            waiting.pop(reply, None)
    return early + list(waiting)
