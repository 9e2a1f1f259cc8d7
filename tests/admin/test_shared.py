"""The admin port of a front-end: every look and change takes time there. The store is the simulation's, or a real Aerospike."""

from __future__ import annotations

import json
import os
import sys
import time
from base64 import b64decode
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from launcher import free_port, serving
from prometheus_client.parser import text_string_to_metric_families

from beanspiked.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER = Path(__file__).parents[1] / "shared" / "shared_server.py"
MARK = {"X-Beanspiked": "1"}


class Front:
    def __init__(self, client: httpx.Client, server: Any) -> None:
        self.client = client
        self.server = server

    def post(self, path: str, **said: Any) -> Any:
        answer = self.client.post(f"/api/v1/{path}", json=said, headers=MARK)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def get(self, path: str) -> Any:
        answer = self.client.get(f"/api/v1/{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def put(self, body: str, **how: int) -> int:
        return int(self.post("tube/put?tube=t", body=body, **how)["id"])

    def state(self, job_id: int) -> str:
        return str(self.get(f"jobs/{job_id}")["state"])

    def figures(self) -> dict[str, dict[tuple[str, ...], float]]:
        """Read all metrics, by name and the values of their labels."""
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for family in text_string_to_metric_families(self.client.get("/metrics").text):
            for sample in family.samples:
                found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
        return found


@pytest.fixture(scope="module", params=["memory", pytest.param("aerospike", marks=pytest.mark.real)])
def front(request: pytest.FixtureRequest) -> Iterator[Front]:
    store = "memory"
    if request.param == "aerospike":
        host, port = request.getfixturevalue("address")
        store = f"aerospike://{host}:{port}/test"
    admin = free_port()
    environ = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    with ExitStack() as stack:
        words = [sys.executable, str(SERVER), store]
        server = stack.enter_context(serving(words, "--admin", str(admin), environ=environ))
        front = Front(stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{admin}", timeout=20)), server)
        give_up_at = time.monotonic() + 15
        while front.client.get("/readyz").status_code != 200:
            assert time.monotonic() < give_up_at
            time.sleep(0.05)
        yield front


def test_a_job_goes_through_all_its_states(front: Front) -> None:
    job_id = front.put("hello")
    assert b64decode(front.get("tube/next?tube=t")["ready"]["body"]) == b"hello"
    front.post(f"jobs/{job_id}/bury", reason="poison")
    buried = front.get("tube/next?tube=t")["buried"]
    assert (buried["id"], buried["reason"]) == (job_id, "poison")
    front.post(f"jobs/{job_id}/kick")
    assert front.state(job_id) == "ready"
    assert front.client.delete(f"/api/v1/jobs/{job_id}", headers=MARK).status_code == 200
    assert front.client.get(f"/api/v1/jobs/{job_id}").status_code == 404


def test_a_reserved_job_is_released(front: Front) -> None:
    with front.server.dial() as client:
        client.sendall(b"use mine\r\nwatch mine\r\nignore default\r\nput 0 0 60 1\r\nx\r\nreserve\r\n")
        said = b""
        while b"RESERVED" not in said or not said.endswith(b"x\r\n"):
            said += client.recv(1000)
        job_id = int(said.partition(b"INSERTED ")[2].split()[0])
        assert front.post(f"jobs/{job_id}/release") == {"id": job_id, "tube": "mine"}
        assert front.state(job_id) == "ready"
        client.sendall(b"delete %d\r\n" % job_id)
        assert client.recv(100) == b"DELETED\r\n"


def test_a_tube_is_kicked_paused_and_cleared(front: Front) -> None:
    ids = [front.put(f"job {number}", delay=500) for number in range(5)]
    assert front.post("tube/kick?tube=t", count=3) == {"kicked": 3}
    assert front.post("tube/pause?tube=t", seconds=60)["pause"] == 60
    front.post("tube/pause?tube=t", seconds=0)
    assert front.post("tube/clear?tube=t", state="ready") == {"deleted": 3}
    assert front.post("tube/clear?tube=t", state="delayed") == {"deleted": 2}
    for job_id in ids:
        assert front.client.get(f"/api/v1/jobs/{job_id}").status_code == 404


def test_jobs_that_match_are_listed_counted_moved_and_deleted(front: Front) -> None:
    for body in ("red apple", "green apple", "red pear"):
        front.put(body)
    red = "tube=t&state=ready&text=red"
    assert [b64decode(job["body"]) for job in front.get(f"tube/jobs?{red}")["jobs"]] == [b"red apple", b"red pear"]
    assert front.get(f"tube/jobs/count?{red}") == {"count": 2}
    assert front.post("tube/move?tube=t", target="u", text="red") == {"moved": 2}
    assert front.get("tube/jobs/count?tube=u") == {"count": 2}
    assert front.post("tube/move?tube=u", target="t", limit=1) == {"moved": 1}
    assert front.post("tube/move?tube=t", target="u", text="red", limit=5) == {"moved": 1}
    assert front.post("tube/clear?tube=t", state="ready", text="apple") == {"deleted": 1}
    assert front.post("tube/clear?tube=u", state="ready") == {"deleted": 2}


def test_jobs_are_duplicated_and_get_another_priority(front: Front) -> None:
    job = int(front.post("tube/put?tube=d", body="x", priority=9)["id"])
    assert front.post("tube/duplicate?tube=d") == {"duplicated": 1}
    assert front.post("tube/priority?tube=d", priority=3) == {"changed": 2}
    copy = int(front.post(f"jobs/{job}/duplicate")["id"])
    assert [(front.state(one), front.get(f"jobs/{one}")["priority"]) for one in (job, copy)] == [("ready", 3)] * 2
    assert front.post("tube/bury-jobs?tube=d", ids=[job], reason="rot") == {"buried": 1}
    front.post(f"jobs/{job}/priority", priority=4)
    shown = front.get(f"jobs/{job}")
    assert (shown["state"], shown["reason"], shown["priority"]) == ("buried", "rot", 4)
    for state, count in (("ready", 2), ("buried", 1)):
        assert front.post("tube/clear?tube=d", state=state) == {"deleted": count}


def test_jobs_are_put_by_the_line_delayed_and_released(front: Front) -> None:
    assert front.post("tube/put-lines?tube=l", lines="one\ntwo\n\nthree") == {"put": 3}
    assert front.post("tube/delay?tube=l", delay=500, text="t") == {"changed": 2}
    first = front.get("tube/next?tube=l")["delayed"]["id"]
    front.post(f"jobs/{first}/delay", delay=0)
    assert front.state(first) == "ready"
    with front.server.dial() as client:
        client.sendall(b"watch l\r\nignore default\r\nreserve\r\n")
        said = b""
        while b"RESERVED" not in said or not said.endswith(b"one\r\n"):
            said += client.recv(1000)
        assert front.post("tube/release-jobs?tube=l") == {"released": 1}
    assert front.post("tube/clear?tube=l", state="ready") == {"deleted": 2}
    assert front.post("tube/clear?tube=l", state="delayed") == {"deleted": 1}


def test_the_command_line_kicks_jobs_by_their_ids(front: Front, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [front.put("x", delay=500) for _ in range(2)]
    words = ["kick", "--admin", str(front.client.base_url), "--json", "--id"]
    assert main([*words, *map(str, ids)]) == 0
    assert json.loads(capsys.readouterr().out) == {"kicked": 2, "missing": []}
    assert main([*words, str(ids[0])]) == 1
    assert front.post("tube/clear?tube=t", state="ready") == {"deleted": 2}


def test_the_time_that_a_reserve_waits_for_the_store_is_told(front: Front) -> None:
    front.post("tube/put?tube=r", body="x")
    with front.server.dial() as client:
        client.sendall(b"watch r\r\nignore default\r\nreserve\r\n")
        said = b""
        while b"RESERVED" not in said or not said.endswith(b"x\r\n"):
            said += client.recv(1000)
    told = front.figures()
    assert told["beanspiked_command_seconds_count"]["reserve",] >= 1
    assert told["beanspiked_command_seconds_sum"]["reserve",] > 0
    front.post("tube/clear?tube=r", state="ready")


def test_totals_and_tubes_are_the_clusters(front: Front) -> None:
    front.put("seen")
    front.post("tube/put?tube=new", body="x", delay=9)
    shown = front.get("tube?tube=new")
    assert (shown["delayed"], shown["total_jobs"]) == (1, 1), "it has come since the last snapshot"
    give_up_at = time.monotonic() + 15
    while [row["ready"] for row in front.get("tubes")["tubes"] if row["name"] == "t"] != [1]:
        assert time.monotonic() < give_up_at, "a snapshot gets old for ever"
        time.sleep(0.1)
    metrics = front.client.get("/metrics").text
    assert 'beanstalkd_tube_current_jobs{state="ready",tube="t"} 1\n' in metrics
    assert "\nbeanspiked_ready 1.0\n" in metrics
    assert 0 <= front.figures()["beanspiked_tube_oldest_ready_age_seconds"]["t",] < 60


def test_the_front_end_tells_what_it_has_to_do_with_the_store(front: Front) -> None:
    front.put("seen")
    time.sleep(1.1)
    told = front.figures()
    assert told["beanspiked_store_session_age_seconds"][()] > 0.5
    assert told["beanspiked_store_heartbeat_age_seconds"][()] < 5
    assert told["beanspiked_store_front_ends"] == {(): 0}
    assert told["beanspiked_store_segments"][()] >= told["beanspiked_store_leases"][()] >= 1


def test_calls_of_a_real_store_are_counted_by_what_became_of_them(front: Front, request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params["front"] == "memory":
        pytest.skip("the simulation's store makes no calls")
    front.put("seen")
    give_up_at = time.monotonic() + 40
    while not (told := front.figures()).get("beanspiked_store_records", {}).get(("segment",)):
        assert time.monotonic() < give_up_at, "the records are not counted"
        time.sleep(0.2)
    assert told["beanspiked_store_operations_total"]["change", "done"] >= 1
    assert told["beanspiked_store_operations_total"]["heartbeat", "done"] >= 1
    assert told["beanspiked_store_call_seconds_count"]["change",] >= 1
