from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from launcher import serving
from suite import COMMAND

import beanspiked
from beanspiked.bench import load, main
from beanspiked.bench.latency import Histogram
from beanspiked.bench.options import parse_options
from beanspiked.bench.replies import read_any, reader_of_own
from beanspiked.client.address import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

IN_A_PROCESS = [sys.executable, "-c", "import sys; from beanspiked.bench import main; sys.exit(main(sys.argv[1:]))"]


class Server:
    def __init__(self, port: int) -> None:
        self.port = port
        self.address = f"127.0.0.1:{port}"

    def ask(self, commands: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(commands + b"quit\r\n")
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def stats(self, command: str = "stats") -> dict[str, int]:
        lines = self.ask(f"{command}\r\n".encode()).decode().splitlines()
        pairs = (line.partition(": ")[::2] for line in lines)
        return {key: int(value) for key, value in pairs if value.isdigit()}

    def tubes_are(self, *names: str) -> bool:
        # Closed connections may still be news to the server, and the tubes they used last as long as they do.
        for _ in range(250):
            lines = self.ask(b"list-tubes\r\n").decode().splitlines()
            if sorted(line[2:] for line in lines if line.startswith("- ")) == sorted(names):
                return True
            time.sleep(0.02)
        return False


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    with serving(shlex.split(COMMAND)) as server:
        yield Server(server.address[1])


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as one:
        yield one


@pytest.fixture
def other_server() -> Iterator[Server]:
    with running_server() as one:
        yield one


class FakeServer:
    """Answers the choice of a tube properly, and everything else as told."""

    def __init__(self, answers: dict[bytes, bytes | None]) -> None:
        self.answers: dict[bytes, bytes | None] = {
            b"use": b"USING t\r\n",
            b"watch": b"WATCHING 2\r\n",
            b"ignore": b"WATCHING 1\r\n",
            **answers,
        }
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.heard: set[bytes] = set()
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as lines:
            for line in lines:
                word = line.split()[0]
                self.heard.add(word)
                if word == b"put":
                    lines.read(int(line.split()[-1]) + 2)
                answer = self.answers.get(word, b"")
                if answer is None:
                    return
                connection.sendall(answer)

    @contextlib.contextmanager
    def closing(self) -> Iterator[FakeServer]:
        try:
            yield self
        finally:
            self.close()

    def close(self) -> None:
        for each in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(10)


@pytest.fixture
def fake(request: pytest.FixtureRequest) -> Iterator[FakeServer]:
    with FakeServer(request.param).closing() as one:
        yield one


def fakes(*answers: dict[bytes, bytes | None]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("fake", answers, indirect=True)


class Bench:
    """Runs the command in this process and returns what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *args: str, status: int = 0) -> tuple[str, str]:
        got = main(list(args))
        printed = self._capsys.readouterr()
        assert got == status, printed
        return printed.out, printed.err

    def json(self, *args: str) -> Any:
        out, err = self(*args, "--json")
        assert not err
        return json.loads(out)

    def error(self, *args: str, status: int = 1) -> str:
        out, err = self(*args, status=status)
        assert not out
        assert err.startswith("beanspiked bench: ")
        assert err.count("\n") == 1
        return err


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(capsys)


class TestCycle:
    @pytest.mark.parametrize("depth", [1, 16])
    @pytest.mark.parametrize(("connections", "tubes"), [(1, 1), (7, 3)])
    def test_puts_reserves_and_deletes_exactly_the_jobs_asked_for(
        self, bench: Bench, server: Server, depth: int, connections: int, tubes: int
    ) -> None:
        found = bench.json(
            *f"{server.address} --jobs 500 --depth {depth} --connections {connections} --tubes {tubes}".split()
        )
        stats = server.stats()
        assert found["servers"][0]["rounds"][0]["jobs"] == 500
        assert found["servers"][0]["rounds"][0]["commands"] == 1500
        assert [stats[key] for key in ("total-jobs", "cmd-put", "cmd-reserve", "cmd-delete")] == [500] * 4
        assert len(found["tubes"]) == tubes

    def test_leaves_nothing_behind(self, bench: Bench, server: Server) -> None:
        bench(server.address, "--jobs", "100")
        assert server.tubes_are("default")
        assert server.stats()["current-jobs-ready"] == 0

    def test_leaves_the_jobs_of_others_alone(self, bench: Bench, server: Server) -> None:
        server.ask(b"put 0 0 60 1\r\na\r\n")
        bench(server.address, "--jobs", "100")
        assert server.stats("stats-tube default")["current-jobs-ready"] == 1

    def test_stops_after_the_time_given_and_finishes_what_it_began(self, bench: Bench, server: Server) -> None:
        found = bench.json(server.address, "--seconds", "0.2", "--depth", "4")
        stats = server.stats()
        assert found["servers"][0]["rounds"][0]["jobs"] == stats["total-jobs"] == stats["cmd-delete"] > 0
        assert server.tubes_are("default")

    @pytest.mark.parametrize("depth", ["1", "3"])
    @pytest.mark.parametrize("size", ["0", "1", "65535"])
    def test_body_has_the_size_asked_for(self, bench: Bench, server: Server, size: str, depth: str) -> None:
        bench.json(server.address, "--body", size, "--jobs", "20", "--connections", "2", "--depth", depth)
        bench.json(server.address, "--body", size, "--jobs", "1", "--connections", "1", "--mode", "put", "--tube", "t")
        assert server.ask(b"use t\r\npeek-ready\r\n").split(b"\r\n")[1].split()[2] == size.encode()

    def test_a_named_tube_is_used_as_it_is_found(self, bench: Bench, server: Server) -> None:
        body = b"DELETED\r\nINSERTED 1\r\n"
        server.ask(b"use t\r\nput 0 0 60 %d\r\n%b\r\n" % (len(body), body))
        bench.json(server.address, "--tube", "t", "--jobs", "50", "--connections", "1", "--depth", "8")
        stats = server.stats("stats-tube t")
        assert not stats or stats["current-jobs-ready"] == 1
        assert server.stats()["cmd-delete"] == 50

    def test_default_is_a_tube_like_any_other(self, bench: Bench, server: Server) -> None:
        bench.json(server.address, "--tube", "default", "--jobs", "50")
        assert server.stats("stats-tube default")["total-jobs"] == 50


class TestPutAndDrain:
    def test_put_leaves_the_jobs_and_says_how_to_delete_them(self, bench: Bench, server: Server) -> None:
        found = bench.json(server.address, "--mode", "put", "--jobs", "100", "--connections", "6", "--tubes", "3")
        assert server.stats()["current-jobs-ready"] == 100
        assert server.tubes_are("default", *found["tubes"])
        [note] = found["notes"]
        explanation, _, command = note.partition(": beanspiked bench ")
        assert "100 jobs stay" in explanation
        bench(*command.split())
        assert server.tubes_are("default")

    def test_drain_fills_its_own_tube_first_and_measures_only_the_rest(self, bench: Bench, server: Server) -> None:
        found = bench.json(
            server.address, "--mode", "drain", "--jobs", "300", "--connections", "7", "--depth", "4", "--tubes", "2"
        )
        [measured] = found["servers"][0]["rounds"]
        assert (measured["jobs"], measured["commands"]) == (300, 600)
        assert set(found["servers"][0]["latency_us"]) == {"reserve", "delete"}
        assert server.stats()["total-jobs"] == server.stats()["cmd-delete"] == 300
        assert server.tubes_are("default")

    def test_drain_of_a_named_tube_takes_what_is_there(self, bench: Bench, server: Server) -> None:
        bodies = [b"", b"RESERVED 1 100\r\n", b"TIMED_OUT\r\n", b"\x00" * 40000]
        server.ask(b"use t\r\n" + b"".join(b"put 0 0 60 %d\r\n%b\r\n" % (len(body), body) for body in bodies))
        found = bench.json(server.address, "--mode", "drain", "--tube", "t", "--connections", "2", "--depth", "3")
        assert found["servers"][0]["rounds"][0]["jobs"] == 4
        assert found["body_bytes"] is None
        assert server.tubes_are("default")

    def test_drain_says_when_there_are_fewer_jobs_than_asked_for(self, bench: Bench, server: Server) -> None:
        out, _ = bench(server.address, "--mode", "drain", "--tube", "t", "--jobs", "10", "--connections", "1")
        assert "fewer jobs to drain than asked for" in out


class TestReport:
    def test_json_is_one_document_with_these_keys(self, bench: Bench, server: Server) -> None:
        found = bench.json(server.address, "--jobs", "100", "--rounds", "2")
        assert list(found) == [
            "mode",
            "connections",
            "depth",
            "jobs",
            "seconds",
            "body_bytes",
            "tubes",
            "rounds",
            "latency_sampled",
            "servers",
            "ratio",
            "notes",
            "interrupted",
        ]
        [one] = found["servers"]
        assert {key: type(value) for key, value in one.items()} == {
            "server": str,
            "jobs_per_s": float,
            "commands_per_s": float,
            "generator_cpu": float,
            "generator_bound": bool,
            "rounds": list,
            "latency_us": dict,
        }
        assert [set(each) for each in one["rounds"]] == [
            {"jobs", "commands", "seconds", "jobs_per_s", "generator_cpu"}
        ] * 2
        assert list(one["latency_us"]) == ["put", "reserve", "delete"]
        assert found["ratio"] is None
        assert found["interrupted"] is False

    def test_every_command_is_timed_at_depth_1(self, bench: Bench, server: Server) -> None:
        found = bench.json(server.address, "--jobs", "100", "--connections", "3")
        assert found["latency_sampled"] is False
        for latency in found["servers"][0]["latency_us"].values():
            assert latency["samples"] == 100
            assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]

    def test_some_commands_of_each_kind_are_timed_deeper(self, bench: Bench, server: Server) -> None:
        found = bench.json(server.address, "--jobs", "1000", "--connections", "3", "--depth", "8")
        assert found["latency_sampled"] is True
        assert set(found["servers"][0]["latency_us"]) == {"put", "reserve", "delete"}
        assert all(0 < each["samples"] < 1000 for each in found["servers"][0]["latency_us"].values())

    def test_table_has_a_line_per_server_and_per_command(self, bench: Bench, server: Server) -> None:
        out, err = bench(server.address, "--jobs", "1000", "--connections", "10")
        lines = [line.split() for line in out.splitlines()]
        assert lines[0][:3] == ["cycle:", "10", "connections,"]
        assert ["server", "rounds", "jobs", "seconds", "jobs/s", "commands/s", "generator", "CPU"] in lines
        assert [line[1] for line in lines if line[:1] == [server.address]] == ["1", "put", "reserve", "delete"]
        assert not err, "progress is for terminals"

    def test_says_when_the_generator_was_the_bottleneck(
        self, bench: Bench, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("beanspiked.bench.report.GENERATOR_LIMIT", 0.0)
        out, _ = bench(server.address, "--jobs", "100")
        assert "the load generator was the bottleneck" in out
        monkeypatch.setattr("beanspiked.bench.report.GENERATOR_LIMIT", 100.0)
        out, _ = bench(server.address, "--jobs", "100")
        assert "bottleneck" not in out

    def test_a_reader_that_goes_away_is_no_traceback(self, server: Server) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [*IN_A_PROCESS, server.address, "--jobs", "100"],
            stdout=writing,
            stderr=subprocess.PIPE,
            env=environment(),
            check=False,
        )
        os.close(writing)
        assert (done.returncode, done.stderr) == (1, b"")


class TestVersus:
    def test_takes_turns_and_gives_ratios(self, bench: Bench, server: Server, other_server: Server) -> None:
        found = bench.json(server.address, "--vs", other_server.address, "--rounds", "3", "--jobs", "100")
        first, second = found["servers"]
        assert [first["server"], second["server"]] == [server.address, other_server.address]
        assert server.stats()["total-jobs"] == other_server.stats()["total-jobs"] == 300
        ratio = found["ratio"]
        assert ratio["of_medians"] == pytest.approx(first["jobs_per_s"] / second["jobs_per_s"])
        pairs = [a["jobs_per_s"] / b["jobs_per_s"] for a, b in zip(first["rounds"], second["rounds"], strict=True)]
        assert ratio["pairs"] == pytest.approx(pairs)
        assert (ratio["min"], ratio["max"]) == (min(ratio["pairs"]), max(ratio["pairs"]))

    def test_prints_the_ratios_below_the_table(self, bench: Bench, server: Server, other_server: Server) -> None:
        out, _ = bench(server.address, "--vs", other_server.address, "--rounds", "2", "--jobs", "100")
        [line] = [line for line in out.splitlines() if line.startswith("ratio of medians")]
        assert f"{server.address} / {other_server.address}: " in line
        assert "(pairs " in line

    def test_runs_five_rounds_unless_told_otherwise(self, bench: Bench, server: Server, other_server: Server) -> None:
        found = bench.json(server.address, "--vs", other_server.address, "--jobs", "60")
        assert [len(each["rounds"]) for each in found["servers"]] == [5, 5]


class TestAddresses:
    def test_unix_socket(self, bench: Bench, server: Server, tmp_path: Path) -> None:
        # A relay, as not every server under test listens on a unix socket.
        path = str(tmp_path / "s")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            relay = threading.Thread(target=relay_one, args=(listener, server.port))
            relay.start()
            found = bench.json(f"unix:{path}", "--jobs", "10", "--connections", "1")
            relay.join(10)
        assert found["servers"][0]["server"] == f"unix:{path}"
        assert server.stats()["cmd-delete"] == 10

    @pytest.mark.parametrize("text", ["127.0.0.1:11300", "localhost:1", "[::1]:65535", "unix:/tmp/x:1"])
    def test_is_printed_as_it_was_read(self, text: str) -> None:
        assert str(Address.parse(text)) == text

    @pytest.mark.parametrize("text", ["", "x", ":1", "x:", "x:0", "x:65536", "x:1a", "::1", "::1:1", "unix:", "[]:1"])
    def test_anything_else_is_wrong_usage(self, bench: Bench, text: str) -> None:
        assert "SERVER" in bench.error(text, status=2)


def relay_one(listener: socket.socket, port: int) -> None:
    client, _ = listener.accept()
    with client, socket.create_connection(("127.0.0.1", port)) as server:
        back = threading.Thread(target=copy_bytes, args=(server, client))
        back.start()
        copy_bytes(client, server)
        back.join(10)


def copy_bytes(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


class TestErrors:
    def test_refused_connection(self, bench: Bench) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        assert bench.error(address) == f"beanspiked bench: cannot connect to {address}: Connection refused\n"

    def test_missing_unix_socket(self, bench: Bench, tmp_path: Path) -> None:
        assert "No such file" in bench.error(f"unix:{tmp_path}/none")

    def test_name_that_no_host_can_have(self, bench: Bench) -> None:
        assert "cannot connect" in bench.error(f"{'a' * 80}:1")

    def test_body_above_the_servers_limit(self, bench: Bench, server: Server) -> None:
        assert "answered JOB_TOO_BIG: " in bench.error(server.address, "--body", "65536")

    @fakes(
        {b"put": b"OUT_OF_MEMORY\r\n"},
        {b"put": b"DRAINING\r\n"},
        {b"put": b"BAD_FORMAT\r\n"},
        {b"put": b"BURIED 1\r\n"},
        {b"put": b"\r\n"},
        {b"put": b"HTTP/1.1 400 Bad Request\r\n"},
        {b"put": b"\x1b[2J\xff\r\n"},
        {b"put": b"no line end" * 1000},
        {b"put": b"DELETED\r\n"},
        {b"put": b"INSERTED 1\r\nINSERTED 2\r\n"},
        {b"put": b"INSERTED 1\r\n", b"reserve": b"TIMED_OUT\r\n"},
        {b"put": b"INSERTED 1\r\n", b"reserve": b"DEADLINE_SOON\r\n"},
        {b"put": b"INSERTED 1\r\n", b"reserve": b"RESERVED x 1\r\na\r\n"},
        {b"put": b"INSERTED 1\r\n", b"reserve": b"RESERVED 1 1\r\nx\r\n", b"delete": b"NOT_FOUND\r\n"},
        {b"use": b"UNKNOWN_COMMAND\r\n"},
        {b"watch": b"INTERNAL_ERROR\r\n"},
    )
    @pytest.mark.parametrize("depth", ["1", "2"])
    def test_unexpected_reply(self, bench: Bench, fake: FakeServer, depth: str) -> None:
        more = ["--body", "1", "--connections", "1", "--depth", depth, "--tube", "t"]
        error = bench.error(fake.address, *more)
        assert error.isascii()
        assert error.rstrip().isprintable()
        assert f"{fake.address} answered " in error

    @fakes({b"put": None}, {b"put": b"INSERTED 1\r\n", b"reserve": None}, {b"ignore": None})
    def test_server_that_closes(self, bench: Bench, fake: FakeServer) -> None:
        assert f"{fake.address} closed the connection" in bench.error(fake.address, "--tube", "t")

    @fakes({b"ignore": b""}, {b"put": b""}, {b"put": b"INSERTED 1\r\n"}, {b"put": b"INSERT"})
    def test_server_that_does_not_reply(self, bench: Bench, fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
        assert load.NO_REPLY_SECONDS == 30
        monkeypatch.setattr(load, "NO_REPLY_SECONDS", 0.3)
        error = bench.error(fake.address, "--tube", "t", "--connections", "2")
        assert f"{fake.address}: no reply for 0.3 s on 2 of 2 connections" in error

    @fakes({b"put": b"INSERTED 1\r\n", b"reserve": b"NOT_FOUND\r\n"})
    def test_says_where_jobs_may_be_left(self, bench: Bench, fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(load, "CLEANING_SECONDS", 0.2)
        assert "; jobs may be left on" in bench.error(fake.address)

    def test_jobs_of_a_failed_run_are_deleted(
        self, bench: Bench, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(load.Load, "lanes_ended", lambda self: self.fail("broken"))
        original = load.remove_jobs

        async def remove_jobs(*args: Any) -> bool:
            monkeypatch.undo()
            return await original(*args)

        monkeypatch.setattr("beanspiked.bench.command.remove_jobs", remove_jobs)
        assert (
            bench.error(server.address, "--jobs", "900", "--connections", "5", "--depth", "9")
            == "beanspiked bench: broken\n"
        )
        assert server.tubes_are("default")

    def test_says_where_jobs_of_put_stay(self, bench: Bench, server: Server) -> None:
        with FakeServer({b"put": b"DRAINING\r\n"}).closing() as fake:
            both = ["--vs", fake.address]
            error = bench.error(server.address, *both, "--mode", "put", "--tube", "t", "--jobs", "60")
        assert "DRAINING" in error
        assert error.endswith("; the jobs that were put before stay in t\n")


class TestInterrupt:
    @pytest.mark.parametrize("mode", ["cycle", "drain"])
    def test_prints_what_was_measured_and_leaves_nothing_behind(self, server: Server, mode: str) -> None:
        length = ["--seconds", "60"] if mode == "cycle" else ["--jobs", "15000"]
        counter = "cmd-delete" if mode == "cycle" else "cmd-reserve-with-timeout"
        arguments = [server.address, "--mode", mode, *length, "--rounds", "50", "--json"]
        with subprocess.Popen([*IN_A_PROCESS, *arguments], stdout=subprocess.PIPE, env=environment()) as process:
            while not server.stats()[counter]:
                assert process.poll() is None
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=20)
        found = json.loads(out)
        assert process.returncode == 130
        assert found["interrupted"] is True
        assert found["servers"][0]["rounds"][0]["jobs"] > 0
        assert server.tubes_are("default")

    @fakes({b"ignore": b""}, {b"put": b""})
    def test_a_server_that_does_not_reply_cannot_hold_it_up(self, fake: FakeServer) -> None:
        [silent_after] = {word for word, answer in fake.answers.items() if not answer}
        command = [*IN_A_PROCESS, fake.address, "--tube", "t"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
            while silent_after not in fake.heard:
                assert process.poll() is None
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            if silent_after == b"put":  # the first Ctrl-C lets jobs that were begun be finished, the second does not
                time.sleep(0.3)
                process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
        assert process.returncode == 130
        assert b"interrupted" in out
        assert not err


def environment() -> dict[str, str]:
    assert beanspiked.__file__
    return os.environ | {"PYTHONPATH": str(Path(beanspiked.__file__).parent.parent)}


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "what"),
        [
            ("--jobs 0", "--jobs"),
            ("--jobs x", "--jobs"),
            ("--jobs 10 --seconds 1", "--seconds"),
            ("--jobs 10 --connections 11", "--connections"),
            ("--seconds 0", "--seconds"),
            ("--seconds nan", "--seconds"),
            ("--seconds -1", "--seconds"),
            ("--connections 0", "--connections"),
            ("--connections 2 --tubes 3", "--tubes"),
            ("--depth 0", "--depth"),
            ("--rounds 0", "--rounds"),
            ("--body -1", "--body"),
            ("--body 1073741825", "--body"),
            ("--body 1073741824", "in memory"),
            ("--mode peek", "--mode"),
            ("--mode drain --seconds 1", "--tube"),
            ("--tube -x", "--tube"),
            ("--tube=-x", "--tube"),
            ("--tube a:b", "--tube"),
            (f"--tube {'a' * 201}", "--tube"),
            (f"--tube {'a' * 199} --tubes 2", "tube"),
            ("--vs x", "--vs"),
            ("--nonsense", "--nonsense"),
            ("127.0.0.1:1 127.0.0.1:2", "127.0.0.1:2"),
        ],
    )
    def test_wrong_usage_is_one_line_and_status_2(self, bench: Bench, arguments: str, what: str) -> None:
        assert what in bench.error(*arguments.split(), status=2)

    def test_help_says_what_a_user_must_know(self, bench: Bench) -> None:
        out, _ = bench("--help")
        text = " ".join(out.split())
        assert "The jobs STAY on the server" in text
        assert "use a generator written in C" in text

    def test_every_call_has_a_tube_of_its_own(self) -> None:
        assert parse_options([]).tubes != parse_options([]).tubes


class TestReplies:
    STREAM = (
        b"INSERTED 1\r\nRESERVED 7 3\r\nxxx\r\nDELETED\r\n"
        b"DELETED\r\nRESERVED 18446744073709551615 3\r\nxxx\r\nINSERTED 22\r\n"
    )

    @pytest.mark.parametrize("read", [read_any, reader_of_own(b"xxx")])
    @pytest.mark.parametrize("size", range(1, len(STREAM) + 1))
    def test_any_chunks_give_the_same_counts(self, read: Any, size: int) -> None:
        rest, counts, ids = b"", [0, 0, 0], []
        for at in range(0, len(self.STREAM), size):
            rest += self.STREAM[at : at + size]
            used, inserted, some, deleted, empty, fault = read(rest)
            rest = rest[used:]
            ids += some
            counts = [counts[0] + inserted, counts[1] + deleted, counts[2] + empty]
            assert fault is None
        assert (counts, ids, rest) == ([2, 2, 0], [b"7", b"18446744073709551615"], b"")

    @pytest.mark.parametrize("read", [read_any, reader_of_own(b"xxx")])
    def test_replies_before_a_wrong_one_count(self, read: Any) -> None:
        assert read(b"INSERTED 1\r\nNOT_FOUND\r\nDELETED\r\n") == (12, 1, [], 0, 0, b"NOT_FOUND")

    def test_a_body_of_another_size_is_read_all_the_same(self) -> None:
        assert reader_of_own(b"xxx")(b"RESERVED 1 2\r\nxx\r\n") == (18, 0, [b"1"], 0, 0, None)


class TestHistogram:
    def test_percentiles_are_within_two_percent(self) -> None:
        histogram = Histogram()
        for ns in range(1, 100_001):
            histogram.record(ns)
        for percent in (1, 50, 90, 99):
            assert histogram.percentile_ns(percent) == pytest.approx(percent * 1000, rel=0.02)
        assert histogram.percentile_ns(100) == pytest.approx(100_000, rel=0.02)
        assert histogram.max_ns == 100_000

    @pytest.mark.parametrize("ns", [0, 1, 31, 32, 63, 64, 65, 127, 128, 10**9, 2**62])
    def test_one_value_is_every_percentile(self, ns: int) -> None:
        histogram = Histogram()
        histogram.record(ns)
        assert histogram.percentile_ns(0) == histogram.percentile_ns(100) == pytest.approx(ns, rel=0.016)

    def test_is_zero_when_empty(self) -> None:
        assert Histogram().percentile_ns(50) == 0

    def test_adds_another(self) -> None:
        one, other = Histogram(), Histogram()
        one.record(10)
        other.record(1000)
        one.add(other)
        assert (one.count, one.max_ns, one.percentile_ns(50)) == (2, 1000, 10)
