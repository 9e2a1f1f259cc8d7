"""The log, and the standard files that it is written to: whatever becomes of them, the server goes on."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import shutil
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab.client import Client
from lab.process import Server, Servers, free_port, server_command

import beanspiked
from beanspiked.ops.url import NOT_OURS
from beanspiked.server.log import MAX_WRITE, Output
from beanspiked.server.main import NOT_COMPILED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UNCOMPILED = f"beanspiked: {NOT_COMPILED}"
DROPPED = re.compile(rb"beanspiked: (\d+) lines? of the log (?:was|were) dropped\n")


def drain(fd: int) -> bytes:
    """Read all that is there now."""
    os.set_blocking(fd, False)
    parts = []
    with contextlib.suppress(BlockingIOError):
        while part := os.read(fd, 65536):
            parts.append(part)
    return b"".join(parts)


class Pipe:
    """A pipe, and what writes lines to it without waiting."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.output = Output(self.writer)

    def fill(self) -> int:
        """Write until lines are dropped; return how many were not."""
        kept = 0
        while not self.output.dropped:
            self.output.write(b"line %03d\n" % kept)
            kept += 1
        return kept - 1

    def close(self) -> None:
        for fd in {self.reader, self.writer, self.output.fileno()}:
            with contextlib.suppress(OSError):
                os.close(fd)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def test_what_a_full_pipe_does_not_take_is_counted_and_told_when_it_does(pipe: Pipe) -> None:
    kept = pipe.fill()
    pipe.output.write(b"two\nlines\n")
    assert pipe.output.dropped == 3
    assert drain(pipe.reader).count(b"\n") == kept
    pipe.output.write(b"after\n")
    pipe.output.write(b"more\n")
    assert drain(pipe.reader) == b"beanspiked: 3 lines of the log were dropped\nafter\nmore\n"


def test_one_line_that_was_dropped_is_told_as_one(pipe: Pipe) -> None:
    pipe.fill()
    drain(pipe.reader)
    pipe.output.write(b"after\n")
    assert drain(pipe.reader) == b"beanspiked: 1 line of the log was dropped\nafter\n"


def test_a_reader_that_is_gone_is_no_error(pipe: Pipe) -> None:
    os.close(pipe.reader)
    pipe.output.write(b"line\n")
    assert pipe.output.dropped == 1


def test_a_log_that_was_closed_is_no_error(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    output = Output(fd)
    os.close(fd)
    output.write(b"line\n")
    assert output.dropped == 1


def test_others_who_share_the_pipe_may_wait_as_before(pipe: Pipe) -> None:
    assert os.get_blocking(pipe.writer)


def test_a_pipe_that_another_process_fills_between_look_and_write_is_not_waited_for(pipe: Pipe) -> None:
    class Looked:
        def poll(self, _milliseconds: int) -> list[tuple[int, int]]:
            os.set_blocking(pipe.writer, False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(pipe.writer, b"x" * 4096)
            os.set_blocking(pipe.writer, True)
            return [(pipe.writer, 0)]

    pipe.output._poll = Looked()  # type: ignore[assignment]
    pipe.output.write(b"line\n")
    assert pipe.output.dropped == 1


def test_a_terminal_that_nobody_reads_is_not_waited_for() -> None:
    screen, terminal = pty.openpty()
    output = Output(terminal)
    try:
        for number in range(10_000):
            output.write(b"line %d\n" % number)
        assert output.dropped
        while not DROPPED.search(shown := drain(screen).replace(b"\r\n", b"\n")):
            output.write(b"after\n")
        assert re.search(rb"^beanspiked: \d+ lines of the log were dropped$", shown, re.MULTILINE)
    finally:
        for fd in {screen, terminal, output.fileno()}:
            os.close(fd)


def test_a_file_keeps_what_was_in_it(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"before\n")
    with (tmp_path / "log").open("ab") as log:
        Output(log.fileno()).write(b"line\n")
    assert (tmp_path / "log").read_bytes() == b"before\nline\n"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (b"x" * 5000 + b"\nafter\n", b"x" * (MAX_WRITE - 1) + b"\nafter\n"),
        (b"x" * 5000, b"x" * (MAX_WRITE - 1) + b"\n"),
        (b"a line\n" * 1000, b"a line\n" * 1000),
        (b"", b""),
    ],
)
def test_lines_are_written_whole_or_cut_to_what_a_pipe_takes_whole(pipe: Pipe, written: bytes, expected: bytes) -> None:
    writes: list[bytes] = []
    pipe.output._send = lambda piece: writes.append(piece) is None  # type: ignore[method-assign]
    pipe.output.write(written)
    assert b"".join(writes) == expected
    assert all(len(piece) <= MAX_WRITE for piece in writes)


def test_what_is_written_as_text_leaves_line_by_line(pipe: Pipe) -> None:
    stream = io.TextIOWrapper(pipe.output, "utf-8", "backslashreplace", line_buffering=True)
    print("beanspiked:", "a line with \udcff", file=stream)
    assert drain(pipe.reader) == b"beanspiked: a line with \\udcff\n"


# --- the server


@pytest.fixture
def started() -> Iterator[Callable[..., Server]]:
    """Starts a server with a standard error of the test's own."""
    servers = Servers()

    def start(output: int, *flags: str) -> Server:
        port = free_port()
        words = [*server_command(), "-l", "127.0.0.1", "-p", str(port), *flags]
        return servers.adopt(Server(words, ("127.0.0.1", port), output=output))

    yield start
    servers.close()


def commands_go_on(server: Server) -> None:
    """Have many commands executed on many connections."""
    for _ in range(300):
        client = Client(server.dial_when_listening)
        assert client.ask_all([b"list-tube-used"] * 10)[-1].line == b"USING default"
        client.close()


def test_a_pipe_that_nobody_reads_stops_no_command(started: Callable[..., Server]) -> None:
    reader, writer = os.pipe()
    # As small as a pipe can be.
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    server = started(writer, "-VV")
    commands_go_on(server)
    drain(reader)
    commands_go_on(server)
    assert DROPPED.search(drain(reader))
    server.process.terminate()
    assert server.process.wait(10) == 0
    os.close(reader)
    os.close(writer)


def test_a_pipe_that_was_full_before_the_start_stops_no_start(started: Callable[..., Server]) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    server = started(writer, "-c")
    client = Client(server.dial_when_listening)
    assert client.ask(b"list-tube-used").line == b"USING default"
    client.close()
    os.close(reader)
    os.close(writer)


def test_a_log_whose_reader_is_gone_stops_no_command(started: Callable[..., Server]) -> None:
    reader, writer = os.pipe()
    server = started(writer, "-VV")
    os.close(writer)
    Client(server.dial_when_listening).close()
    os.close(reader)
    commands_go_on(server)
    server.process.terminate()
    assert server.process.wait(10) == 0


@pytest.mark.parametrize(
    ("environ", "first"),
    [
        ({"BEANSPIKED_STORE": "memory:"}, "beanspiked: BEANSPIKED_STORE chooses the store: memory:"),
        (
            {"AEROSPIKE_PORT": "tcp://10.0.0.1:3000", "AEROSPIKE_SERVICE_HOST": "10.0.0.1"},
            f"beanspiked: {NOT_OURS}",
        ),
        ({}, "beanspiked: jobs are in memory only, and lost when the server stops; -b DIR keeps them on disk"),
    ],
)
def test_the_first_line_says_which_variable_chose_the_store(
    servers: Servers, environ: dict[str, str], first: str
) -> None:
    assert servers.start(environ=environ).log().splitlines()[0] == first


def test_a_core_that_is_not_compiled_says_so_first_and_what_it_costs(tmp_path: Path, journal: Path) -> None:
    # A folder of sources only, whatever is installed.
    package = tmp_path / "beanspiked"
    shutil.copytree(Path(beanspiked.__file__).parent, package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    words = [sys.executable, "-P", "-m", "beanspiked", "-l", "127.0.0.1", "-p", str(port := free_port())]
    server = Server([*words, "-b", str(journal)], ("127.0.0.1", port), {"PYTHONPATH": str(tmp_path)})
    try:
        server.wait_until_serving()
        assert server.log().splitlines()[0] == UNCOMPILED
    finally:
        server.close()


# --- closed standard files


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("durable", [False, True], ids=["memory", "journal"])
def test_with_standard_files_closed_it_serves_and_stops(
    servers: Servers, journal: Path, closed: tuple[int, ...], durable: bool
) -> None:
    shell = ["sh", "-c", 'exec "$@" ' + " ".join(f"{fd}>&-" for fd in closed), "sh"]
    server = servers.start(*(["-b", journal] if durable else []), "-VV", within=shell)
    assert server.connect().put() == 1
    files = [str(Path(f"/proc/{server.pid}/fd/{fd}").readlink()) for fd in closed]
    assert files == [os.devnull] * len(closed)
    assert server.terminate() == 0


def test_without_standard_files_inherited_sockets_are_still_found(servers: Servers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        shell = f'exec 3<&{listener.fileno()} 0<&- 1>&- 2>&-; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'
        words = ["bash", "-c", shell, "bash", *server_command()]
        server = servers.adopt(Server(words, listener.getsockname(), {}, [listener.fileno()]))
        server.wait_until_serving()
        assert server.connect().put() == 1
        assert server.terminate() == 0
