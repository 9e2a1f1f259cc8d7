"""Jobs that match a filter are listed, counted, and changed all together."""

from __future__ import annotations

import asyncio
import json
import logging
from base64 import b64decode
from typing import TYPE_CHECKING, Any

import pytest

from beanspiked.admin import matching
from beanspiked.admin.errors import Missing
from beanspiked.admin.jobs import Jobs
from beanspiked.admin.matching import Matching, progress
from beanspiked.admin.outcomes import Outcomes
from beanspiked.admin.requests import Wanted
from beanspiked.engine.errors import StoreFull
from beanspiked.engine.filters import Bulk
from beanspiked.engine.jobs import READY

if TYPE_CHECKING:
    from conftest import Port
    from simulated import Wire

API = "/api/v1"


@pytest.fixture
def client(wire: Wire) -> Any:
    """A client that has put five jobs: three ready ones, one delayed, and one buried after its second try."""
    connected = wire.connect()
    connected.send(b"use t\r\nwatch t\r\n")
    connected.put(b"bad", pri=0)
    connected.send(b"reserve\r\nrelease 1 0 0\r\nreserve\r\nbury 1 9\r\n")
    wire.advance(100)
    connected.put(b"red apple", pri=7)
    connected.put(b"red pear", pri=5)
    connected.put(b"green apple", pri=6)
    connected.put(b"red cherry", pri=1, delay=50)
    return connected


def bodies(port: Port, query: str) -> list[bytes]:
    return [b64decode(job["body"]) for job in port.json(f"{API}/tube/jobs?tube=t&{query}")["jobs"]]


def count(port: Port, query: str = "") -> int:
    return int(port.json(f"{API}/tube/jobs/count?tube=t&{query}")["count"])


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("state=ready", [b"red pear", b"green apple", b"red apple"]),
        ("state=ready&text=red", [b"red pear", b"red apple"]),
        ("state=ready&min_priority=6", [b"green apple", b"red apple"]),
        ("state=ready&max_priority=5", [b"red pear"]),
        ("state=ready&min_age=50", []),
        ("state=buried&min_age=50", [b"bad"]),
        ("state=buried&min_tries=2", [b"bad"]),
        ("state=buried&min_tries=3", []),
        ("state=delayed", [b"red cherry"]),
        ("state=reserved", []),
    ],
)
@pytest.mark.usefixtures("client")
def test_the_jobs_that_match_are_listed_and_counted(port: Port, query: str, found: list[bytes]) -> None:
    assert bodies(port, query) == found
    assert count(port, query) == len(found)


@pytest.mark.usefixtures("client")
def test_a_page_says_what_asks_for_the_next_one(port: Port) -> None:
    first = port.json(f"{API}/tube/jobs?tube=t&state=ready&limit=2")
    assert len(first["jobs"]) == 2
    assert bodies(port, f"state=ready&limit=2&after={first['after']}") == [b"red apple"]


def test_a_page_shows_the_beginnings_of_bodies(port: Port, client: Any) -> None:
    client.put(b"x" * 5000, pri=0)
    (job,) = port.json(f"{API}/tube/jobs?tube=t&state=ready&max_priority=0")["jobs"]
    assert (job["size"], len(b64decode(job["body"]))) == (5000, 1024)


@pytest.mark.usefixtures("client")
def test_jobs_of_all_states_are_counted_together(port: Port) -> None:
    assert count(port) == 5
    assert count(port, "text=apple") == 2


@pytest.mark.usefixtures("client")
def test_only_what_matches_is_deleted(port: Port) -> None:
    assert port.post(f"{API}/tube/clear?tube=t", state="ready", text="apple").json() == {"deleted": 2}
    assert bodies(port, "state=ready") == [b"red pear"]
    assert count(port) == 3


@pytest.mark.usefixtures("client")
def test_what_matches_moves_to_another_tube_as_it_is(port: Port) -> None:
    assert port.post(f"{API}/tube/move?tube=t", target="u", text="red").json() == {"moved": 3}
    assert count(port) == 2
    (job,) = port.json(f"{API}/tube/jobs?tube=u&state=delayed")["jobs"]
    assert (job["priority"], job["delay"]) == (1, 50)


@pytest.mark.parametrize("target", ["t", "-bad", "", 7])
@pytest.mark.usefixtures("client")
def test_jobs_move_to_nothing_but_another_tube(port: Port, target: Any) -> None:
    assert port.post(f"{API}/tube/move?tube=t", target=target).status_code == 400
    assert count(port) == 5


def test_no_tube_is_made_to_move_the_jobs_of_none(port: Port) -> None:
    assert port.post(f"{API}/tube/move?tube=none", target="u").status_code == 404
    assert port.wire.engine.find_tube("u") is None


def test_jobs_that_somebody_holds_do_not_move(port: Port, client: Any) -> None:
    client.send(b"reserve\r\n")
    assert port.post(f"{API}/tube/move?tube=t", target="u").json() == {"moved": 4}
    assert count(port, "state=reserved") == 1


@pytest.mark.usefixtures("client")
def test_buried_and_delayed_jobs_that_match_are_kicked(port: Port) -> None:
    assert port.post(f"{API}/tube/kick-jobs?tube=t", text="cherry").json() == {"kicked": 1}
    assert port.post(f"{API}/tube/kick-jobs?tube=t", state="buried").json() == {"kicked": 1}
    assert count(port, "state=ready") == 5


def test_a_change_has_a_limit_and_takes_the_first_of_each_queue(port: Port, client: Any) -> None:
    assert port.post(f"{API}/tube/move?tube=t", target="u", state="ready", limit=2).json() == {"moved": 2}
    assert bodies(port, "state=ready") == [b"red apple"]
    assert port.post(f"{API}/tube/clear?tube=u", state="ready", limit=1).json() == {"deleted": 1}
    assert port.post(f"{API}/tube/kick-jobs?tube=t", limit=1).json() == {"kicked": 1}
    assert (count(port, "state=delayed"), count(port, "state=buried")) == (0, 1)
    assert port.post(f"{API}/tube/bury-jobs?tube=t", limit=1).json() == {"buried": 1}
    assert bodies(port, "state=buried") == [b"bad", b"red cherry"]
    assert port.post(f"{API}/tube/kick-jobs?tube=t", limit=9).json() == {"kicked": 2}
    assert client.send(b"kick 9\r\n") == b"KICKED 0\r\n"


@pytest.mark.usefixtures("client")
def test_a_limit_larger_than_a_page_is_kept(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "LIMIT_MAX", 1)
    assert port.post(f"{API}/tube/duplicate?tube=t", state="ready", limit=2).json() == {"duplicated": 2}
    assert port.post(f"{API}/tube/move?tube=t", target="u", limit=4).json() == {"moved": 4}
    assert (count(port), count(port, "state=ready")) == (3, 1)


@pytest.mark.parametrize("limit", [0, -1, "1", True, 2**32])
@pytest.mark.usefixtures("client")
def test_what_is_no_limit_changes_nothing(port: Port, limit: Any) -> None:
    assert port.post(f"{API}/tube/kick-jobs?tube=t", limit=limit).status_code == 400
    assert count(port, "state=ready") == 3


def test_a_change_with_a_limit_ends_when_its_tube_does(port: Port, client: Any) -> None:
    """The tube's last jobs go between two pages."""

    async def work() -> int:
        outcomes = Outcomes(port.wire.broker)
        asked = Matching(outcomes, Jobs(outcomes))
        wanted = Wanted([READY])
        wanted.most = 9
        bulk = await asked.clear("t", wanted)
        port.wire.engine.delete_tube(port.wire.engine.tube("t"))
        client.send(b"use u\r\nwatch u\r\nignore t\r\n")
        port.wire.advance(1)
        return await outcomes.done(bulk)

    assert asyncio.run(work()) == 0


@pytest.mark.usefixtures("client")
def test_a_change_of_many_jobs_leaves_its_beginning_and_its_end_in_the_log(
    port: Port, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "beanspiked.audit"):
        port.post(f"{API}/tube/clear?tube=t", state="ready", text="red\n", min_age=1)
        port.post(f"{API}/tube/move?tube=t", target="u", min_priority=6)
        port.post(f"{API}/tube/kick-jobs?tube=u", limit=1)
    said = caplog.messages
    assert said[0].endswith("clear t of jobs (ready; min_age=1; text 'red\\n'): begins")
    assert said[1].endswith(": 0 deleted")
    assert said[2].endswith("move from t to u jobs (ready, delayed, buried; priority 6 to 4294967295): begins")
    assert said[3].endswith(": 3 moved")
    assert said[4].endswith("kick in u jobs (delayed, buried; the first 1): begins")


@pytest.mark.usefixtures("client")
def test_what_matches_is_buried_with_the_reason(port: Port) -> None:
    assert port.post(f"{API}/tube/bury-jobs?tube=t", text="red", reason="rot").json() == {"buried": 3}
    jobs = port.json(f"{API}/tube/jobs?tube=t&state=buried")["jobs"]
    assert [(job["id"], job["reason"]) for job in jobs] == [(1, ""), (3, "rot"), (2, "rot"), (5, "rot")]


@pytest.mark.usefixtures("client")
def test_what_matches_gets_another_priority(port: Port) -> None:
    assert port.post(f"{API}/tube/priority?tube=t", text="red", priority=100).json() == {"changed": 3}
    assert bodies(port, "state=ready") == [b"green apple", b"red apple", b"red pear"]
    assert count(port, "min_priority=100") == 3


@pytest.mark.usefixtures("client")
def test_copies_are_not_copied(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "LIMIT_MAX", 1)
    assert port.post(f"{API}/tube/duplicate?tube=t", text="red").json() == {"duplicated": 3}
    assert count(port, "text=red") == 6


@pytest.mark.usefixtures("client")
def test_of_a_selection_only_jobs_that_can_be_changed_are(port: Port) -> None:
    assert port.post(f"{API}/tube/kick-jobs?tube=t", ids=[1, 2, 77]).json() == {"kicked": 1}
    assert port.post(f"{API}/tube/bury-jobs?tube=t", ids=[2, 77]).json() == {"buried": 1}
    assert port.post(f"{API}/tube/clear?tube=t", state="ready", ids=[3]).json() == {"deleted": 1}
    assert count(port) == 4


@pytest.mark.parametrize(
    ("change", "said", "meanwhile"),
    [
        ("bury-jobs", {"state": "ready", "ids": [2]}, b"reserve-job 2\r\n"),
        ("priority", {"state": "buried", "priority": 3}, b"kick-job 1\r\n"),
        ("delay", {"state": "buried", "delay": 9}, b"kick-job 1\r\n"),
    ],
)
def test_a_job_that_has_left_the_state_since_it_was_found_is_left_out(
    port: Port, client: Any, monkeypatch: pytest.MonkeyPatch, change: str, said: dict[str, Any], meanwhile: bytes
) -> None:
    each = matching._side_by_side

    async def later(*found: Any) -> None:
        client.send(meanwhile)
        await each(*found)

    monkeypatch.setattr(matching, "_side_by_side", later)
    answer = port.post(f"{API}/tube/{change}?tube=t", **said).json()
    assert list(answer.values()) == [0]


@pytest.mark.parametrize("ids", ["1", [1.5], [True], [-1], list(range(1001))])
@pytest.mark.usefixtures("client")
def test_what_is_no_selection_changes_nothing(port: Port, ids: Any) -> None:
    assert port.post(f"{API}/tube/clear?tube=t", state="ready", ids=ids).status_code == 400
    assert count(port) == 5


def test_a_job_that_goes_meanwhile_is_left_out(port: Port, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "SIDE_BY_SIDE", 1)
    changed: list[int] = []

    async def change(number: int) -> None:
        if number == 3:
            client.send(b"delete 4\r\n")
        if port.wire.engine.find_job(number) is None:
            raise Missing("gone")
        changed.append(number)

    async def work() -> int:
        outcomes = Outcomes(port.wire.broker)
        bulk = await Matching(outcomes, Jobs(outcomes)).each("t", Wanted([READY]), change)
        return await outcomes.done(bulk)

    assert asyncio.run(work()) == 2
    assert changed == [3, 2]


@pytest.mark.usefixtures("client")
def test_who_wants_to_is_told_of_the_progress_of_a_change(port: Port) -> None:
    headers = {"X-Beanspiked": "1", "Accept": "application/x-ndjson"}
    told = port.request("POST", f"{API}/tube/clear?tube=t", headers, content=b'{"state": "ready"}')
    assert told.headers["content-type"].startswith("application/x-ndjson")
    assert [json.loads(line) for line in told.text.splitlines()] == [{"deleted": 3, "ended": True}]


def told_of(port: Port, bulk: Bulk, lines: int) -> list[Any]:
    """Listen to a change's progress for so many lines, then hang up."""

    async def listen() -> list[Any]:
        telling = progress(Outcomes(port.wire.broker), "moved", bulk)
        try:
            return [json.loads(await anext(telling)) for _ in range(lines)]
        finally:
            await telling.aclose()

    return asyncio.run(listen())


def test_a_change_stops_when_who_hears_of_its_progress_hangs_up(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "PROGRESS_EVERY", 0)
    bulk = Bulk()
    bulk.value = 7
    assert told_of(port, bulk, 2) == [{"moved": 7}, {"moved": 7}]
    assert bulk.stopped


def test_who_hears_of_its_progress_hears_why_a_change_has_ended_early(port: Port) -> None:
    bulk = Bulk()
    bulk.value = 7
    bulk.settle(StoreFull("no room"))
    assert told_of(port, bulk, 1) == [{"moved": 7, "error": "no room"}]


@pytest.mark.parametrize(("failing", "made"), [(True, [3, 4]), (False, [3])], ids=["the store fails", "it is stopped"])
@pytest.mark.usefixtures("client")
def test_a_change_of_each_job_that_ends_early_tells_how_many_were_changed(
    port: Port, monkeypatch: pytest.MonkeyPatch, failing: bool, made: list[int]
) -> None:
    monkeypatch.setattr(matching, "SIDE_BY_SIDE", 1)
    changed: list[int] = []
    bulk = Bulk()

    async def change(number: int) -> None:
        if failing and len(changed) == len(made):
            raise StoreFull("no room")
        changed.append(number)
        if not failing:
            bulk.stop()

    async def work() -> None:
        nonlocal bulk
        outcomes = Outcomes(port.wire.broker)
        bulk = await Matching(outcomes, Jobs(outcomes)).each("t", Wanted([READY]), change)
        await outcomes.done(bulk)

    if failing:
        with pytest.raises(StoreFull):
            asyncio.run(work())
    else:
        asyncio.run(work())
    assert (bulk.value, changed) == (len(made), made)
