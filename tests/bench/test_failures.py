"""What `beanspiked bench` says when it is misused, interrupted, or answered wrongly."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from benches import IN_A_PROCESS, Bench, FakeServer, Server, environment, fakes

from beanspiked.bench import load
from beanspiked.bench.options import parse_options

if TYPE_CHECKING:
    from pathlib import Path


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

    @pytest.mark.slow
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

    def test_the_environment_names_the_server_unless_an_argument_does(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BEANSPIKED_ADDR", "unix:/tmp/x")
        assert str(parse_options([]).server) == "unix:/tmp/x"
        assert str(parse_options(["127.0.0.1:1"]).server) == "127.0.0.1:1"
