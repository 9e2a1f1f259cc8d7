"""peek, peek-ready, peek-delayed and peek-buried (§1.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Connect


@pytest.mark.rule("1.2/peek")
def test_peek_finds_a_job_in_any_state_and_tube_and_does_not_change_it(connect: Connect, tube: str) -> None:
    holder, stranger = connect(use=tube, watch=tube), connect()
    job_id = holder.insert(b"body", delay=100)
    seen = []
    for step in ("", "kick", "reserve", "bury"):
        if step == "kick":
            holder.kick(1)
        elif step == "reserve":
            holder.reserve(0)
        elif step == "bury":
            assert holder.ask(b"bury %d 0" % job_id) == b"BURIED"
        assert stranger.ask_job(b"peek %d" % job_id) == (b"FOUND", job_id, b"body")
        seen.append(stranger.stats_job(job_id)["state"])
    assert seen == ["delayed", "ready", "reserved", "buried"]


@pytest.mark.rule("1.2/peek-used")
@pytest.mark.parametrize("command", [b"peek-ready", b"peek-delayed", b"peek-buried"])
def test_peeking_an_empty_tube_finds_nothing(connect: Connect, tube: str, command: bytes) -> None:
    assert connect(use=tube).ask(command) == b"NOT_FOUND"


@pytest.mark.rule("1.2/peek-used")
@pytest.mark.parametrize("command", [b"peek-ready", b"peek-delayed", b"peek-buried"])
def test_peeking_looks_at_the_used_tube_and_not_at_the_watched(
    connect: Connect, new_tube: Callable[[], str], command: bytes
) -> None:
    there = new_tube()
    connection = connect(use=there, watch=there)
    connection.insert()
    connection.bury(connection.reserve(0))
    connection.insert()
    connection.insert(delay=100)
    assert connection.ask_job(command)[0] == b"FOUND"
    connection.use(new_tube())
    assert connection.ask(command) == b"NOT_FOUND"


@pytest.mark.rule("1.2/peek-ready")
def test_peek_ready_shows_the_most_urgent_job_also_of_a_paused_tube(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    connection.insert(pri=2)
    urgent = connection.insert(b"urgent", pri=1)
    connection.insert(pri=1)
    connection.pause_tube(tube, 100)
    assert connection.ask_job(b"peek-ready") == (b"FOUND", urgent, b"urgent")
    assert connection.stats_job(urgent)["state"] == "ready"


@pytest.mark.rule("1.2/peek-ready")
def test_peek_ready_does_not_show_reserved_jobs(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    connection.insert()
    connection.reserve(0)
    assert connection.ask(b"peek-ready") == b"NOT_FOUND"


@pytest.mark.rule("1.2/peek-delayed")
def test_peek_delayed_shows_the_job_that_comes_due_first(connect: Connect, tube: str) -> None:
    connection = connect(use=tube)
    connection.insert(delay=300, pri=0)
    soonest = connection.insert(b"soon", delay=100, pri=9)
    connection.insert(delay=200, pri=1)
    assert connection.ask_job(b"peek-delayed") == (b"FOUND", soonest, b"soon")


@pytest.mark.rule("1.2/peek-buried")
def test_peek_buried_shows_the_longest_buried_job(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    first, second = connection.insert(pri=9), connection.insert(pri=0)
    connection.bury(connection.reserve_job(first), priority=9)
    connection.bury(connection.reserve_job(second), priority=0)
    assert connection.peek_buried().id == first
    connection.delete(first)
    assert connection.peek_buried().id == second
