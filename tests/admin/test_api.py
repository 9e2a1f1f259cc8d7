"""What the API shows."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from suite import API

from beanspiked.admin.snapshot import Snapshot, Snapshots
from beanspiked.engine.errors import StoreFailed

if TYPE_CHECKING:
    from conftest import Port


# --- the description


def test_the_described_operations_are_those_that_there_are(port: Port) -> None:
    described = json.loads((files("beanspiked.admin") / "openapi.json").read_bytes())
    operations = {(method.upper(), path) for path, methods in described["paths"].items() for method in methods}
    mount: Any = next(route for route in port.application.starlette.routes if route.path == "/api/v1")
    routes = {(method, route.path) for route in mount.routes for method in route.methods - {"HEAD"}}
    assert routes == operations
    assert port.json(f"{API}/openapi.json") == described


def test_what_is_shown_has_the_described_fields(port: Port, client: Any) -> None:
    client.put(b"x")
    schemas = port.json(f"{API}/openapi.json")["components"]["schemas"]
    shown = {
        "Tube": port.json(f"{API}/tubes")["tubes"][0],
        "Job": port.json(f"{API}/jobs/1"),
        "Overview": port.json(f"{API}/overview"),
    }
    for name, value in shown.items():
        assert value.keys() == schemas[name]["properties"].keys(), name


def test_every_change_is_described_with_the_header_that_it_needs(port: Port) -> None:
    for methods in port.json(f"{API}/openapi.json")["paths"].values():
        for method, operation in methods.items():
            named = [one.get("$ref", "") for one in operation["parameters"]]
            assert ("#/components/parameters/Header" in named) == (method != "get")


# --- looks


def test_head_of_the_events_ends_at_once(port: Port) -> None:
    async def ask(client: httpx.AsyncClient) -> httpx.Response:
        async with asyncio.timeout(5):
            return await client.head(f"{API}/events")

    headers = port.talk(ask).headers
    assert headers["content-type"].startswith("text/event-stream")
    assert "content-length" not in headers


def test_the_events_end_while_a_shared_store_does_not_answer(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(_: Snapshots) -> Snapshot:
        raise StoreFailed("the store cannot be reached")

    monkeypatch.setattr(Snapshots, "get", unknown)
    answer = port.get(f"{API}/events")
    # A browser does not ask again after another status.
    assert (answer.status_code, answer.text) == (200, "")


def test_looks_change_no_counter_of_commands(port: Port, client: Any) -> None:
    client.put(b"x")
    before = list(port.wire.broker.commands)
    for path in (
        "overview",
        "history",
        "tubes",
        "tube?tube=t",
        "tube/next?tube=t",
        "tube/jobs?tube=t&state=ready",
        "tube/jobs/count?tube=t",
        "jobs/1",
        "jobs/1/body",
        "connections",
    ):
        port.get(f"{API}/{path}")
    port.get("/metrics")
    assert port.wire.broker.commands == before


def test_the_tubes_are_sorted_searched_and_paged(port: Port, client: Any) -> None:
    for name, count in (("aa", 3), ("ab", 5), ("bb", 1)):
        client.send(b"use %b\r\n" % name.encode())
        for _ in range(count):
            client.put()
    names = lambda query: [row["name"] for row in port.json(f"{API}/tubes?{query}")["tubes"]]  # noqa: E731
    assert names("sort=ready&limit=2") == ["ab", "aa"]
    assert names("sort=ready&limit=2&offset=2")[0] == "bb"
    assert names("sort=name&search=a&limit=9") == ["aa", "ab", "default"]
    assert port.json(f"{API}/tubes?search=b&limit=1")["total"] == 2


def test_a_tube_with_buried_jobs_is_more_trouble_than_one_without(port: Port, client: Any) -> None:
    client.put()
    client.send(b"reserve\r\nbury 1 0\r\nuse other\r\n")
    client.put()
    assert port.json(f"{API}/tubes")["tubes"][0]["name"] == "t"


def test_a_snapshot_is_shared_for_a_second(port: Port, client: Any) -> None:
    assert port.json(f"{API}/overview")["stats"]["current-jobs-ready"] == 0
    client.put()
    assert port.json(f"{API}/overview")["stats"]["current-jobs-ready"] == 0
    port.wire.advance(2)
    assert port.json(f"{API}/overview")["stats"]["current-jobs-ready"] == 1


def test_a_tube_that_has_come_since_the_snapshot_is_shown(port: Port, client: Any) -> None:
    port.get(f"{API}/overview")
    client.send(b"use new\r\n")
    client.put()
    shown = port.json(f"{API}/tube?tube=new")
    assert (shown["ready"], shown["using"], shown["total_jobs"], shown["age"]) == (1, 1, 1, 0)


def test_the_next_jobs_of_a_tube_come_with_their_bodies(port: Port, client: Any) -> None:
    client.put(b"<b>&", delay=9)
    client.put(b"\xff\x00")
    shown = port.json(f"{API}/tube/next?tube=t")
    assert b64decode(shown["delayed"]["body"]) == b"<b>&"
    assert shown["delayed"]["time_left"] == 9
    assert b64decode(shown["ready"]["body"]) == b"\xff\x00"
    assert shown["buried"] is None


def test_of_a_large_body_only_the_beginning_is_shown(port: Port, client: Any) -> None:
    job_id = client.put(b"x" * 65535)
    port.wire.broker.max_job_size = 1 << 20
    port.wire.engine.find_job(job_id).body = b"y" * 200_000
    shown = port.json(f"{API}/jobs/{job_id}")
    assert (shown["size"], len(b64decode(shown["body"]))) == (200_000, 65536)
    whole = port.get(f"{API}/jobs/{job_id}/body")
    assert whole.content == b"y" * 200_000
    assert whole.headers["content-disposition"].startswith("attachment")
    assert whole.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("jobs/99", 404),
        ("jobs/x", 400),
        ("jobs/99999999999999999999999", 400),
        ("tube?tube=none", 404),
        ("tube", 400),
        ("tube?tube=-bad", 400),
        ("tube/next?tube=none", 404),
        ("tubes?limit=201", 400),
        ("tubes?sort=wrong", 400),
        ("history?tube=-bad", 400),
        ("tube/jobs?tube=none&state=ready", 404),
        ("tube/jobs?tube=default", 400),
        ("tube/jobs?tube=default&state=lost", 400),
        ("tube/jobs?tube=default&state=ready&limit=101", 400),
        ("tube/jobs?tube=default&state=ready&limit=0", 400),
        ("tube/jobs?tube=default&state=ready&after=x", 400),
        ("tube/jobs/count?tube=default&min_age=-1", 400),
        ("tube/jobs/count?tube=default&colour=red", 400),
        ("nothing", 404),
    ],
)
def test_what_is_not_there_or_malformed_is_said_so(port: Port, path: str, status: int) -> None:
    answer = port.get(f"{API}/{path}")
    assert answer.status_code == status
    assert answer.json()["error"]
