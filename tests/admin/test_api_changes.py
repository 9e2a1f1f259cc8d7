"""What the API changes."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any

import pytest
from simulated import HandJournal, Wire
from suite import API

from beanspiked.engine.embedded.engine import EmbeddedEngine
from beanspiked.engine.errors import StoreFailed, StoreFull

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Port


def state(port: Port, job_id: int) -> str:
    return str(port.json(f"{API}/jobs/{job_id}")["state"])


def test_a_job_is_put_and_who_waits_gets_it(port: Port, client: Any) -> None:
    client.send(b"reserve\r\n")
    answer = port.post(f"{API}/tube/put?tube=t", body="hé", priority=5, delay=0, ttr=7)
    assert answer.status_code == 201
    assert client.take() == b"RESERVED %d 3\r\nh\xc3\xa9\r\n" % answer.json()["id"]
    assert port.wire.broker.total_jobs == 1


def test_a_body_of_any_bytes_is_put_in_base64(port: Port) -> None:
    answer = port.post(f"{API}/tube/put?tube=t", body_base64=b64encode(b"\x00\xff").decode())
    assert port.get(f"{API}/jobs/{answer.json()['id']}/body").content == b"\x00\xff"


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"body": 1},
        {"body": "x", "priority": -1},
        {"body": "x", "priority": True},
        {"body": "x", "delay": 1 << 32},
        {"body": "x", "colour": "red"},
        {"body": "\ud800"},
        {"body": "x", "\ud800": 1},
        {"body_base64": "!"},
    ],
)
def test_a_put_that_is_malformed_puts_nothing(port: Port, said: dict[str, Any]) -> None:
    answer = port.post(f"{API}/tube/put?tube=t", **said)
    assert answer.status_code == 400, answer.text
    assert port.wire.engine.counts.jobs() == 0


def test_what_is_no_json_object_is_refused(port: Port) -> None:
    for body in (b"{", b"[1]", b"[" * 100_000, b"\xff"):
        answer = port.request("POST", f"{API}/tube/kick?tube=t", {"X-Beanspiked": "1"}, content=body)
        assert answer.status_code == 400


def test_too_large_a_body_is_refused(port: Port) -> None:
    assert port.post(f"{API}/tube/put?tube=t", body="x" * 65536).status_code == 413
    assert port.post(f"{API}/tube/put?tube=t", body="x" * 2_000_000).status_code == 413


def test_a_draining_server_refuses_puts(port: Port) -> None:
    port.wire.broker.draining = True
    assert port.post(f"{API}/tube/put?tube=t", body="x").status_code == 503


def test_a_job_is_deleted_in_any_state(port: Port, client: Any) -> None:
    for _ in range(2):
        client.put()
    client.put(delay=100)
    client.send(b"reserve\r\n")
    for job_id in (1, 2, 3):
        assert port.change("DELETE", f"{API}/jobs/{job_id}").status_code == 200
    assert port.wire.engine.counts.jobs() == 0
    assert client.send(b"delete 1\r\n") == b"NOT_FOUND\r\n", "it was taken from the client"


def test_a_reserved_job_is_released_to_others(port: Port, client: Any, wire: Wire) -> None:
    client.put()
    client.send(b"reserve\r\n")
    other = wire.connect()
    other.send(b"watch t\r\nreserve\r\n")
    other.take()
    assert port.post(f"{API}/jobs/1/release").json() == {"id": 1, "tube": "t"}
    assert other.take().startswith(b"RESERVED 1 ")
    assert client.send(b"touch 1\r\n") == b"NOT_FOUND\r\n"


def test_only_a_reserved_job_can_be_released(port: Port, client: Any) -> None:
    client.put()
    assert port.post(f"{API}/jobs/1/release").status_code == 409


@pytest.mark.parametrize("words", [b"", b"reserve\r\n"], ids=["ready", "reserved"])
def test_a_job_is_buried_with_the_reason(port: Port, client: Any, words: bytes) -> None:
    client.put()
    if words:
        client.send(words)
    assert port.post(f"{API}/jobs/1/bury", reason="poison").status_code == 200
    shown = port.json(f"{API}/jobs/1")
    assert (shown["state"], shown["reason"]) == ("buried", "poison")


def test_a_buried_job_is_kicked(port: Port, client: Any) -> None:
    client.put()
    port.post(f"{API}/jobs/1/bury")
    assert port.post(f"{API}/jobs/1/kick").status_code == 200
    assert state(port, 1) == "ready"
    assert port.post(f"{API}/jobs/1/kick").status_code == 409


@pytest.mark.parametrize(("words", "found"), [(b"", "ready"), (b"reserve\r\nbury 1 9\r\n", "buried")])
def test_a_job_gets_another_priority_and_stays_where_it_is(port: Port, client: Any, words: bytes, found: str) -> None:
    client.put(pri=9)
    client.send(words)
    assert port.post(f"{API}/jobs/1/priority", priority=3).json() == {"id": 1, "tube": "t"}
    shown = port.json(f"{API}/jobs/1")
    assert (shown["state"], shown["priority"]) == (found, 3)


def test_a_delayed_job_with_another_priority_is_due_as_before(port: Port, client: Any) -> None:
    client.put(delay=50)
    port.wire.advance(20)
    assert port.post(f"{API}/jobs/1/priority", priority=3).status_code == 200
    assert port.json(f"{API}/jobs/1")["time_left"] == pytest.approx(30)


@pytest.mark.parametrize("path", ["jobs/1/bury", "tube/bury-jobs?tube=t"])
def test_a_reason_that_is_no_text_buries_nothing(port: Port, client: Any, path: str) -> None:
    client.put()
    answer = port.post(f"{API}/{path}", reason="\ud800")
    assert (answer.status_code, answer.json()["error"].partition(":")[0]) == (400, "reason")
    assert state(port, 1) == "ready"


def test_a_buried_job_with_another_priority_is_buried_for_the_same_reason(port: Port, client: Any) -> None:
    client.put()
    port.post(f"{API}/jobs/1/bury", reason="poison")
    port.post(f"{API}/jobs/1/priority", priority=3)
    assert port.json(f"{API}/jobs/1")["reason"] == "poison"


def test_a_held_job_keeps_its_priority(port: Port, client: Any) -> None:
    client.put()
    client.send(b"reserve\r\n")
    assert port.post(f"{API}/jobs/1/priority", priority=3).status_code == 409
    assert port.post(f"{API}/jobs/1/priority").status_code == 400


def test_a_copy_of_a_job_is_ready(port: Port, client: Any) -> None:
    client.put(b"x", pri=9, ttr=7, delay=50)
    assert port.post(f"{API}/jobs/1/duplicate").json() == {"id": 2, "tube": "t"}
    shown = port.json(f"{API}/jobs/2")
    assert (shown["state"], shown["priority"], shown["ttr"], b64decode(shown["body"])) == ("ready", 9, 7, b"x")
    assert state(port, 1) == "delayed"
    port.wire.broker.draining = True
    assert port.post(f"{API}/jobs/1/duplicate").status_code == 503


def test_a_copy_of_a_job_that_never_times_out_does_not_either(port: Port, wire: Wire) -> None:
    """Only the library puts such jobs; over HTTP, as with the `put` command, a TTR of 0 is one second."""
    wire.engine.put(wire.engine.tube("t"), wire.engine.new_id(), 9, 0, 0, b"x")
    assert port.post(f"{API}/jobs/1/duplicate").status_code == 201
    assert port.post(f"{API}/tube/put?tube=t", body="x", ttr=0).status_code == 201
    assert [port.json(f"{API}/jobs/{number}")["ttr"] for number in (1, 2, 3)] == [0, 0, 1]


class Plugged:
    """The part of a connection that its flow uses."""

    def __init__(self, flow: Any) -> None:
        self.flow = flow


def test_the_held_job_whose_time_ends_first_is_shown(port: Port, client: Any) -> None:
    for ttr in (60, 30, 10):
        client.put(ttr=ttr)
    assert port.json(f"{API}/tube/next?tube=t")["reserved"] is None
    # Those of a simulated client stand in no connection.
    port.server.connections.add(Plugged(client.flow))
    client.send(b"reserve\r\nreserve\r\n")
    assert port.json(f"{API}/tube/next?tube=t")["reserved"]["id"] == 2
    assert port.json(f"{API}/tube/next?tube=default")["reserved"] is None
    port.server.connections.clear()


def in_turns(port: Port, path: str, **said: Any) -> Any:
    """Ask for a change that goes on in slices, and let turns pass until it is done."""

    async def ask(http: Any) -> Any:
        asked = http.post(f"{API}/{path}", json=said, headers={"X-Beanspiked": "1"})
        task = asyncio.ensure_future(asked)
        while not task.done():
            await asyncio.sleep(0)
            port.wire.settle()
            port.wire.advance(0.001)
        return task.result()

    return port.talk(ask).json()


def test_jobs_of_a_tube_are_kicked_as_the_command_does(port: Port, client: Any) -> None:
    for _ in range(300):
        client.put(delay=50)
    assert in_turns(port, "tube/kick?tube=t", count=299) == {"kicked": 299}
    assert port.wire.engine.counts.ready == 299


def test_a_pause_keeps_jobs_from_being_reserved(port: Port, client: Any) -> None:
    client.put()
    assert port.post(f"{API}/tube/pause?tube=t", seconds=60).status_code == 200
    assert client.send(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
    assert port.post(f"{API}/tube/pause?tube=t", seconds=0).status_code == 200
    assert client.send(b"reserve-with-timeout 0\r\n").startswith(b"RESERVED")


def test_a_tube_is_cleared_of_one_state(port: Port, client: Any) -> None:
    for _ in range(250):
        client.put()
    client.put(delay=9)
    assert in_turns(port, "tube/clear?tube=t", state="ready") == {"deleted": 250}
    assert (port.wire.engine.counts.ready, port.wire.engine.counts.delayed) == (0, 1)


def test_no_tube_is_cleared_of_reserved_jobs(port: Port, client: Any) -> None:
    client.put()
    assert port.post(f"{API}/tube/clear?tube=t", state="reserved").status_code == 400


@pytest.mark.parametrize("found", ["ready", "delayed", "buried"])
def test_a_job_that_nobody_holds_is_ready_after_another_delay(port: Port, client: Any, found: str) -> None:
    client.put(delay=500 if found == "delayed" else 0, pri=9)
    if found == "buried":
        port.post(f"{API}/jobs/1/bury")
    assert port.post(f"{API}/jobs/1/delay", delay=30).json() == {"id": 1, "tube": "t"}
    shown = port.json(f"{API}/jobs/1")
    assert (shown["state"], shown["time_left"], shown["priority"]) == ("delayed", 30, 9)
    port.wire.advance(31)
    assert state(port, 1) == "ready"


def test_a_held_job_keeps_its_delay(port: Port, client: Any) -> None:
    client.put()
    client.send(b"reserve\r\n")
    assert port.post(f"{API}/jobs/1/delay", delay=3).status_code == 409
    assert port.post(f"{API}/jobs/1/delay").status_code == 400


def test_jobs_that_match_get_another_delay(port: Port, client: Any) -> None:
    for body in (b"red", b"green", b"red"):
        client.put(body)
    assert in_turns(port, "tube/delay?tube=t", delay=60, text="red") == {"changed": 2}
    assert (port.wire.engine.counts.ready, port.wire.engine.counts.delayed) == (1, 2)
    assert in_turns(port, "tube/delay?tube=t", delay=0, state="delayed") == {"changed": 2}
    assert port.wire.engine.counts.ready == 3


def test_jobs_that_match_are_taken_from_who_holds_them(port: Port, client: Any) -> None:
    for body in (b"red", b"green", b"red"):
        client.put(body)
    client.send(b"reserve\r\nreserve\r\nreserve\r\n")
    assert in_turns(port, "tube/release-jobs?tube=t", text="red") == {"released": 2}
    assert client.send(b"delete 1\r\ndelete 2\r\n") == b"DELETED\r\nDELETED\r\n"
    assert (port.wire.engine.counts.ready, port.wire.engine.counts.reserved) == (1, 0)
    assert port.post(f"{API}/tube/release-jobs?tube=t", state="ready").status_code == 400


# --- many puts


def test_each_line_is_put_but_empty_ones(port: Port) -> None:
    lines = "\n".join(["", *(f"job {number}" for number in range(120)), "", "h\u00e9"])
    assert in_turns(port, "tube/put-lines?tube=t", lines=lines, priority=3, ttr=7) == {"put": 121}
    shown = port.json(f"{API}/jobs/1")
    assert (b64decode(shown["body"]), shown["priority"], shown["ttr"]) == (b"job 0", 3, 7)
    assert b64decode(port.json(f"{API}/jobs/121")["body"]) == "h\u00e9".encode()


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({}, 400),
        ({"lines": "\n\n"}, 400),
        ({"lines": "\ud800"}, 400),
        ({"lines": "x", "colour": 1}, 400),
        ({"lines": "x\n" + "y" * 65536}, 413),
    ],
)
def test_lines_that_cannot_all_be_put_are_refused(port: Port, said: dict[str, Any], status: int) -> None:
    assert port.post(f"{API}/tube/put-lines?tube=t", **said).status_code == status
    assert port.wire.engine.counts.jobs() == 0


@pytest.mark.parametrize("path", ["pause", "kick", "kick-jobs", "bury-jobs", "duplicate", "release-jobs"])
def test_a_tube_that_is_not_there_cannot_be_changed(port: Port, path: str) -> None:
    assert port.post(f"{API}/tube/{path}?tube=none").status_code == 404
    assert port.wire.engine.find_tube("none") is None


# --- with a journal


@pytest.fixture
def journal(wire: Wire) -> HandJournal:
    """A journal that the test commits by hand."""
    journal: Any = HandJournal(wire)
    wire.engine = EmbeddedEngine(wire.timers, wire.broker, journal)
    wire.broker.engine = wire.engine
    return journal


def test_a_change_is_told_of_when_it_is_on_disk(journal: HandJournal, make_port: Callable[..., Port]) -> None:
    port = make_port()

    async def put(http: Any) -> Any:
        asked = http.post(f"{API}/tube/put?tube=t", json={"body": "x"}, headers={"X-Beanspiked": "1"})
        task = asyncio.ensure_future(asked)
        while not journal.sent:  # noqa: ASYNC110 - a journal wakes nobody
            await asyncio.sleep(0.001)
        assert not task.done()
        journal.commit()
        return await task

    assert port.talk(put).status_code == 201


def test_a_failure_says_how_many_lines_were_put(journal: HandJournal, make_port: Callable[..., Port]) -> None:
    port = make_port()

    async def put(http: Any) -> Any:
        lines = "\n".join(map(str, range(120)))
        asked = http.post(f"{API}/tube/put-lines?tube=t", json={"lines": lines}, headers={"X-Beanspiked": "1"})
        task = asyncio.ensure_future(asked)
        for error in (None, None, StoreFull("the disk is full")):
            while not journal.sent:  # noqa: ASYNC110 - a journal wakes nobody
                await asyncio.sleep(0.001)
            journal.commit(error)
        return await task

    answer = port.talk(put)
    assert (answer.status_code, answer.json()["error"]) == (507, "the disk is full; 100 were put by then")


@pytest.mark.parametrize(("error", "status"), [(StoreFull("the disk is full"), 507), (StoreFailed("broken"), 503)])
def test_a_seized_job_whose_change_fails_is_ready_again(
    journal: HandJournal, make_port: Callable[..., Port], error: Any, status: int
) -> None:
    port = make_port()
    client = port.wire.connect()
    client.flow.receive(b"put 0 0 60 1\r\nx\r\n")
    port.wire.broker.end_turn()
    journal.commit()
    assert client.send(b"reserve\r\n").endswith(b"x\r\n")
    for path in ("jobs/1/bury", "jobs/1"):

        async def change(http: Any, path: str = path) -> Any:
            method = "POST" if path.endswith("bury") else "DELETE"
            task = asyncio.ensure_future(http.request(method, f"{API}/{path}", headers={"X-Beanspiked": "1"}))
            while not journal.sent:  # noqa: ASYNC110 - a journal wakes nobody
                await asyncio.sleep(0.001)
            journal.commit(error)
            return await task

        answer = port.talk(change)
        assert (answer.status_code, answer.json()["error"]) == (status, str(error))
        assert port.json(f"{API}/jobs/1")["state"] == "ready"
        assert client.send(b"reserve-with-timeout 0\r\n").startswith(b"RESERVED 1 ")
