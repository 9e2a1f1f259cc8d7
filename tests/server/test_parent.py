"""The parent process alone: its workers are stand-ins (`lab/stand_in.py`)."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab.process import until
from launcher import Farm, ServerProcess

from beanspiked.server.door import TAKES_WITHIN
from beanspiked.server.parent import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STAND_IN = str(Path(__file__).with_name("lab") / "stand_in.py")
WITHIN_S = 10.0


class Visitor:
    """A client, and what its worker told it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(WITHIN_S)
        self.worker, self.pid, self.draining = 0, 0, ""

    def met(self) -> Visitor:
        """Wait for the worker's words."""
        worker, pid, self.draining = self.line().split()
        self.worker, self.pid = int(worker), int(pid)
        return self

    def line(self) -> str:
        line = b""
        while not line.endswith(b"\n"):
            data = self.sock.recv(100)
            assert data, "hung up"
            line += data
        return line.decode()

    def ask(self, word: str) -> str:
        self.sock.sendall(word.encode())
        return self.line()

    def die(self, server: ServerProcess) -> None:
        """Have the worker killed; return when the parent knows."""
        self.sock.sendall(b"die")
        assert until(lambda: f"(pid {self.pid}) was killed by signal 9" in server.log())

    def close(self) -> None:
        """Leave; return when the worker knows."""
        self.sock.shutdown(socket.SHUT_WR)
        assert self.sock.recv(100) == b""
        self.sock.close()


class House:
    """A parent process and its clients."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.farm: Farm[ServerProcess] = Farm()
        self.visitors: list[Visitor] = []

    def plan(self, *words: str) -> None:
        """Say how workers behave that start from now on."""
        (self.folder / "plan").write_text(" ".join(words))

    def open(self, workers: int, files: int = 0, environ: Mapping[str, str] | None = None) -> ServerProcess:
        words = [sys.executable, STAND_IN, "parent", str(self.folder), str(workers), str(files)]
        return self.farm.adopt(ServerProcess(words, str(self.folder / "s"), environ=environ))

    def visit(self, server: ServerProcess) -> Visitor:
        visitor = Visitor(server.dial_when_listening())
        self.visitors.append(visitor)
        return visitor

    def met(self, server: ServerProcess, count: int) -> list[Visitor]:
        visitors = [self.visit(server) for _ in range(count)]
        return [visitor.met() for visitor in visitors]

    def close(self) -> None:
        for visitor in self.visitors:
            visitor.sock.close()
        self.farm.close()


@pytest.fixture
def house() -> Iterator[House]:
    with tempfile.TemporaryDirectory(prefix="bs.") as folder:
        house = House(Path(folder))
        yield house
        house.close()


def shares(visitors: list[Visitor]) -> dict[int, int]:
    return dict(Counter(visitor.worker for visitor in visitors))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# --- clients


def test_a_client_goes_to_the_worker_that_has_the_fewest(house: House) -> None:
    server = house.open(2)
    visitors = house.met(server, 50)
    assert shares(visitors) == {1: 25, 2: 25}
    leaving = [visitor for visitor in visitors if visitor.worker == 1][:10]
    for visitor in leaving:
        visitor.close()
    # A stand-in tells its parent before it hangs up.
    assert shares(house.met(server, 10)) == {1: 10}


def test_clients_that_stay_for_a_moment_are_given_in_turn(house: House) -> None:
    server = house.open(3)
    seen = []
    for _ in range(9):
        seen += house.met(server, 1)
        seen[-1].close()
    assert shares(seen) == {1: 3, 2: 3, 3: 3}


def test_nobody_is_accepted_until_all_workers_take_clients(house: House) -> None:
    server = house.open(4)
    assert shares(house.met(server, 8)) == {1: 2, 2: 2, 3: 2, 4: 2}


def test_more_clients_than_workers_have_descriptors_for_wait_until_one_leaves(house: House) -> None:
    server = house.open(2, files=60)
    visitors = house.met(server, 60)
    late = house.visit(server)
    late.sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        late.met()
    visitors[7].close()
    late.sock.settimeout(WITHIN_S)
    assert late.met().worker == visitors[7].worker


def test_want_of_places_is_logged_once_and_once_when_it_is_over(house: House) -> None:
    server = house.open(2, files=60)
    visitors = house.met(server, 60)
    late = [house.visit(server) for _ in range(3)]
    for leaving, visitor in zip(visitors, late, strict=False):
        assert until(lambda: server.log().count("cannot accept") == 1)
        assert "accepted again" not in server.log()
        leaving.close()
        visitor.met()
    assert until(lambda: server.log().count("accepted again") == 1)
    assert server.log().count("cannot accept") == 1


# --- a worker freezes


def test_a_frozen_worker_gets_no_more_clients_until_it_goes_on(house: House) -> None:
    server = house.open(2)
    victim, bystander = house.met(server, 2)
    os.kill(victim.pid, signal.SIGSTOP)
    try:
        # The parent cannot know it before a client has waited.
        unlucky = house.visit(server)
        time.sleep(2 * TAKES_WITHIN)
        assert shares(house.met(server, 20)) == {bystander.worker: 20}
        assert server.log().count(f"worker {victim.worker} (pid {victim.pid}) takes no clients") == 1
    finally:
        os.kill(victim.pid, signal.SIGCONT)
    assert unlucky.met().worker == victim.worker
    assert until(lambda: f"worker {victim.worker} takes clients again" in server.log())
    assert shares(house.met(server, 19)) == {victim.worker: 19}


def test_while_all_workers_are_frozen_clients_wait_for_the_first_that_goes_on(house: House) -> None:
    server = house.open(2)
    visitors = house.met(server, 2)
    for visitor in visitors:
        os.kill(visitor.pid, signal.SIGSTOP)
    early = [house.visit(server) for _ in range(2)]
    time.sleep(2 * TAKES_WITHIN)
    late = [house.visit(server) for _ in range(5)]
    os.kill(visitors[1].pid, signal.SIGCONT)
    assert shares([visitor.met() for visitor in late]) == {visitors[1].worker: 5}
    os.kill(visitors[0].pid, signal.SIGCONT)
    assert {visitor.met().worker for visitor in early} == {1, 2}


# --- a worker dies


def test_a_worker_that_is_killed_is_replaced_and_the_others_clients_notice_nothing(house: House) -> None:
    server = house.open(2)
    victim, bystander = house.met(server, 2)
    victim.die(server)
    (after,) = house.met(server, 1)
    assert (after.worker, after.pid == victim.pid) == (victim.worker, False)
    assert bystander.ask("who").split()[1] == str(bystander.pid)
    assert (
        f"worker {victim.worker} (pid {victim.pid}) was killed by signal 9; another one starts in 0.1 s" in server.log()
    )


def test_clients_of_a_dead_worker_that_return_at_once_wait_for_its_replacement(house: House) -> None:
    server = house.open(2)
    visitors = house.met(server, 20)
    visitors[0].die(server)
    stayed = [visitor for visitor in visitors if visitor.worker != visitors[0].worker]
    assert shares(stayed + house.met(server, 10)) == {1: 10, 2: 10}


def test_a_worker_that_stops_on_its_own_gets_no_more_clients(house: House) -> None:
    server = house.open(2)
    leaver, bystander = house.met(server, 2)
    leaver.ask("leave")
    assert shares(house.met(server, 4)) == {bystander.worker: 4}
    assert bystander.ask("count") == "5 0\n"
    assert leaver.ask("who").split()[1] == str(leaver.pid)
    # The parent does not hear the end of its channel again and again.
    before = server.cpu_s()
    time.sleep(0.3)
    assert server.cpu_s() - before < 0.05


@pytest.mark.slow
def test_a_worker_that_dies_again_and_again_is_replaced_more_and_more_slowly(house: House) -> None:
    server = house.open(2)
    victim, bystander = house.met(server, 2)
    house.plan("refuse")
    victim.die(server)
    died_at = time.monotonic()
    pauses = re.compile(r"starts in ([\d.]+) s")
    assert until(lambda: len(pauses.findall(server.log())) >= 2)
    # No client waits for a replacement that dies as well.
    assert house.met(server, 1)[0].worker == bystander.worker
    assert time.monotonic() - died_at < PATIENCE
    assert until(lambda: len(pauses.findall(server.log())) >= 4)
    assert pauses.findall(server.log())[:4] == ["0.1", "0.2", "0.4", "0.8"]
    house.plan()
    house.met(server, 20)
    assert until(lambda: house.met(server, 1)[0].worker == victim.worker)


def test_a_worker_that_cannot_start_ends_the_server_with_its_error_and_exit_code(house: House) -> None:
    house.plan("refuse")
    server = house.open(3)
    assert server.wait() == 7
    assert server.log().count("the store is refused") == 1


def test_a_program_that_cannot_be_run_ends_the_server(house: House) -> None:
    (house.folder / "program").write_text("/no/such/program")
    server = house.open(2)
    assert server.wait() == 127
    assert "worker 1 cannot be started: " in server.log()


# --- the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_stops_all_workers_and_then_the_parent(house: House, number: signal.Signals) -> None:
    server = house.open(2)
    visitors = house.met(server, 2)
    server.signal(number)
    assert server.wait() == 0
    assert not any(is_alive(visitor.pid) for visitor in visitors)


def test_a_second_signal_ends_workers_that_do_not_stop(house: House) -> None:
    house.plan("stubborn")
    server = house.open(2)
    visitors = house.met(server, 2)
    server.signal(signal.SIGTERM)
    time.sleep(0.2)
    assert server.alive
    server.signal(signal.SIGTERM)
    assert server.wait() == 1
    assert not any(is_alive(visitor.pid) for visitor in visitors)


def test_workers_end_when_their_parent_is_killed(house: House) -> None:
    server = house.open(2)
    visitors = house.met(server, 2)
    server.kill()
    assert until(lambda: not any(is_alive(visitor.pid) for visitor in visitors))


def test_the_service_manager_hears_of_the_parent_once_all_workers_are_up(house: House) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(house.folder / "notify"))
        manager.settimeout(WITHIN_S)
        server = house.open(3, environ={"NOTIFY_SOCKET": str(house.folder / "notify")})
        while (word := manager.recv(100)) == b"EXTEND_TIMEOUT_USEC=30000000":
            pass
        assert word == b"READY=1"
        assert shares(house.met(server, 3)) == {1: 1, 2: 1, 3: 1}
        assert server.terminate() == 0
        assert manager.recv(100) == b"STOPPING=1"
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(100)


def test_the_service_manager_is_asked_for_patience_until_all_workers_have_a_session(house: House) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(house.folder / "notify"))
        manager.settimeout(WITHIN_S)
        house.plan("apart")
        server = house.open(2, environ={"NOTIFY_SOCKET": str(house.folder / "notify")})
        (victim, _) = house.met(server, 2)
        assert {manager.recv(100) for _ in range(2)} == {b"EXTEND_TIMEOUT_USEC=30000000"}
        house.plan()
        victim.die(server)
        house.met(server, 1)
        assert manager.recv(100) == b"EXTEND_TIMEOUT_USEC=30000000"
        assert server.terminate() == 0
        assert manager.recv(100) == b"STOPPING=1"


def test_all_workers_drain_and_so_does_a_replacement(house: House) -> None:
    server = house.open(2)
    visitors = house.met(server, 2)
    server.signal(signal.SIGUSR1)
    assert until(lambda: all(visitor.ask("who").split()[2] == "True" for visitor in visitors))
    visitors[0].die(server)
    (after,) = house.met(server, 1)
    assert (after.worker, after.draining) == (visitors[0].worker, "True")


# --- counters


def test_a_worker_learns_the_sums_of_the_others_counters(house: House) -> None:
    server = house.open(3)
    visitors = {visitor.worker: visitor for visitor in house.met(server, 3)}
    assert visitors[1].ask("count") == "5 2 5 20\n"
    assert visitors[3].ask("count") == "5 2 3 20\n"


def test_workers_that_do_not_answer_in_time_are_not_counted(house: House) -> None:
    server = house.open(3)
    visitors = {visitor.worker: visitor for visitor in house.met(server, 3)}
    os.kill(visitors[2].pid, signal.SIGSTOP)
    try:
        assert visitors[1].ask("count") == "5 1 3 10\n"
    finally:
        os.kill(visitors[2].pid, signal.SIGKILL)
