"""What `beanspiked bench` measures and reports."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest
from benches import IN_A_PROCESS, Bench, Server, environment

from beanspiked.client.address import Address

if TYPE_CHECKING:
    from pathlib import Path


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
        assert "fewer jobs than the drain asked for" in out


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
        assert (done.returncode, done.stderr) == (141, b"")


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
