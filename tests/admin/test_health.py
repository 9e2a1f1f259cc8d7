"""Whether a probe is told the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from beanspiked.engine.contract import JournalStats, TubeEngine

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Port


def test_a_server_is_healthy_while_its_event_loop_turns(port: Port) -> None:
    answer = port.get("/healthz")
    assert (answer.status_code, answer.text) == (200, "ok\n")


def test_a_server_that_takes_changes_is_ready(port: Port) -> None:
    answer = port.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "reasons": []})


def test_a_server_that_drains_is_not_ready(port: Port) -> None:
    port.wire.broker.draining = True
    answer = port.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "reasons": ["draining: puts are refused"]}


def test_a_server_that_stops_is_not_ready(port: Port) -> None:
    port.application.stopping = True
    assert port.get("/readyz").json()["reasons"] == ["stopping"]


def test_each_fault_of_the_journal_is_a_reason() -> None:
    class Faulty(TubeEngine):
        def journal_stats(self) -> JournalStats:
            stats = JournalStats(1)
            stats.full = stats.distrusted = True
            return stats

    assert Faulty().troubles() == ["the disk is full", "the journal cannot be synced"]


def test_a_faulty_store_makes_a_server_not_ready(port: Port) -> None:
    class Faulty(TubeEngine):
        def troubles(self) -> list[str]:
            return ["the disk is full"]

    port.wire.broker.engine = Faulty()
    assert port.get("/readyz").json()["reasons"] == ["the disk is full"]


def test_probes_need_no_secret(make_port: Callable[..., Port]) -> None:
    port = make_port(token="a long secret")
    assert port.get("/healthz").status_code == 200
    assert port.get("/readyz").status_code == 200
    assert port.get("/metrics").status_code == 401
