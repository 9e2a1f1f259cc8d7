"""What monitoring tools ask and how they read the answers: a field that is missing or of another type stops them.

Most are programs in Go that no registry here has. So their questions are asked as they ask them, and the answers read as they do.
"""

from __future__ import annotations

import socket
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.real

STATES = [f"current-jobs-{state}" for state in ("urgent", "ready", "reserved", "delayed", "buried")]
COMMANDS = [
    f"cmd-{name}"
    for name in (
        *(
            "put",
            "peek",
            "peek-ready",
            "peek-delayed",
            "peek-buried",
            "reserve",
            "reserve-with-timeout",
            "touch",
            "use",
            "watch",
        ),
        *(
            "ignore",
            "delete",
            "release",
            "bury",
            "kick",
            "stats",
            "stats-job",
            "stats-tube",
            "list-tubes",
            "list-tube-used",
        ),
        *("list-tubes-watched", "pause-tube"),
    )
]
TOTALS = [
    "job-timeouts",
    "total-jobs",
    "total-connections",
    *[f"current-{name}" for name in ("tubes", "connections", "producers", "workers", "waiting")],
]
OF_TUBE = [
    *STATES,
    "total-jobs",
    *[f"current-{name}" for name in ("using", "watching", "waiting")],
    "cmd-delete",
    "cmd-pause-tube",
]
PAUSES = ["pause", "pause-time-left"]
NETDATA = [*STATES, *COMMANDS, *TOTALS, "uptime", "binlog-records-written", "binlog-records-migrated"]
TELEGRAF = [*NETDATA, "binlog-current-index", "binlog-oldest-index", "binlog-max-size", "max-job-size", "pid"]


class Asker:
    """A connection of a tool."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._file = self._sock.makefile("rb")

    def send(self, *commands: str) -> None:
        """Send commands in one write, as those do that ask for many tubes side by side."""
        self._sock.sendall("".join(f"{command}\r\n" for command in commands).encode())

    def line(self) -> str:
        """Read a line as Go's textproto does."""
        return self._file.readline().decode().rstrip("\r\n")

    def document(self) -> str:
        """Read a reply with a body: its size, and two bytes more."""
        word, size = self.line().split(" ")
        assert word == "OK"
        body = self._file.read(int(size) + 2)
        assert body.endswith(b"\n\r\n")
        return body.decode()

    def ask(self, command: str) -> str:
        self.send(command)
        return self.document()

    def close(self) -> None:
        self._file.close()
        self._sock.close()


@pytest.fixture
def asker(server: int) -> Iterator[Asker]:
    opened = Asker(server)
    yield opened
    opened.close()


class Filled(NamedTuple):
    """A tube that is paused, with two ready jobs, one delayed, one buried and one reserved, and the connection that holds this one."""

    name: str
    holder: Asker


@pytest.fixture
def tube(server: int) -> Iterator[Filled]:
    name = f"tools-{uuid.uuid4().hex[:12]}"
    holder = Asker(server)
    holder.send(f"use {name}", f"watch {name}", "ignore default", *["put 5 0 60 1\r\nx"] * 4, "put 5 600 60 1\r\nx")
    ids = [holder.line().split()[-1] for _ in range(8)][3:]
    for last in (True, False):
        holder.send("reserve")
        number = holder.line().split()[1]
        assert number in ids
        assert holder.line() == "x"
        if last:
            holder.send(f"bury {number} 5")
            assert holder.line() == "BURIED"
    holder.send(f"pause-tube {name} 3600")
    assert holder.line() == "PAUSED"
    yield Filled(name, holder)
    holder.close()


def dict_of(text: str) -> dict[str, str]:
    """Read a document as go-beanstalk does, of which KEDA and both exporters are made: by lines, and quotes stay."""
    lines = text.removeprefix("---\n").split("\n")
    return dict(line.split(": ", 1) for line in lines if ": " in line)


def whole(fields: dict[str, Any], names: list[str]) -> None:
    assert {name: type(fields.get(name)) for name in names} == dict.fromkeys(names, int)


def test_telegraf_reads_the_server_and_all_tubes_side_by_side(asker: Asker, tube: Filled) -> None:
    tubes = yaml.safe_load(asker.ask("list-tubes"))
    assert {"default", tube.name} <= set(tubes)
    asker.send("stats", *[f"stats-tube {name}" for name in tubes])
    server = yaml.safe_load(asker.document())
    whole(server, TELEGRAF)
    assert all(isinstance(server[name], float) for name in ("rusage-utime", "rusage-stime"))
    assert all(server[name] for name in ("hostname", "id", "version"))
    for name in tubes:
        fields = yaml.safe_load(asker.document())
        assert str(fields["name"]) == name
        whole(fields, [*OF_TUBE, *PAUSES])


def test_netdata_reads_the_server_and_each_tube_and_says_goodbye(asker: Asker, tube: Filled) -> None:
    whole(yaml.safe_load(asker.ask("stats")), NETDATA)
    assert tube.name in yaml.safe_load(asker.ask("list-tubes"))
    fields = yaml.safe_load(asker.ask(f"stats-tube {tube.name}"))
    whole(fields, OF_TUBE)
    assert [float(fields[name]) > 3500 for name in PAUSES] == [True, True]
    asker.send("stats-tube no-such-tube", "quit")
    assert (asker.line(), asker.line()) == ("NOT_FOUND", "")


def test_keda_counts_the_jobs_of_a_tube(asker: Asker, tube: Filled) -> None:
    fields = dict_of(asker.ask(f"stats-tube {tube.name}"))
    counts = {name: int(fields[name]) for name in ("total-jobs", *STATES)}
    assert counts == {"total-jobs": 5, **dict(zip(STATES, (2, 2, 1, 1, 1), strict=True))}
    asker.send("stats-tube no-such-tube")
    assert asker.line() == "NOT_FOUND", "which it takes for a tube without jobs"


def test_the_exporters_read_numbers(asker: Asker, tube: Filled) -> None:
    server = dict_of(asker.ask("stats"))
    tubes = asker.ask("list-tubes").removeprefix("---\n").split("\n")
    assert f"- {tube.name}" in tubes
    fields = dict_of(asker.ask(f"stats-tube {tube.name}"))
    # One of them takes what is no whole number for a failure, and each of these for wanted.
    assert all(server[name].isdigit() for name in (*STATES, *COMMANDS, *TOTALS))
    assert all(fields[name].isdigit() for name in (*OF_TUBE, *PAUSES))
    # The other one makes a metric of each key; its name has to be one.
    assert all(key.replace("-", "_").isidentifier() for key in (*server, *fields))
