"""use, watch, ignore, the lists, and how long a tube lives (§1.2, §2.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import greenstalk
import pytest

from .wire import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Connect
    from .servers import Farm


@pytest.mark.rule("2.7/new-connection")
def test_a_new_connection_uses_and_watches_default(connect: Connect) -> None:
    connection = connect()
    assert connection.ask(b"list-tube-used") == b"USING default"
    assert connection.ask_text(b"list-tubes-watched") == "---\n- default\n"


@pytest.mark.rule("1.2/use")
def test_use_creates_the_tube_and_says_its_name(connect: Connect, tube: str) -> None:
    connection = connect()
    assert connection.ask(b"stats-tube " + tube.encode()) == b"NOT_FOUND"
    assert connection.ask(b"use " + tube.encode()) == b"USING " + tube.encode()
    assert connection.using() == tube
    assert tube in connection.tubes()


@pytest.mark.rule("1.2/watch")
def test_watch_creates_the_tube_and_counts_and_twice_is_once(connect: Connect, tube: str) -> None:
    connection = connect()
    assert connection.ask(b"watch " + tube.encode()) == b"WATCHING 2"
    assert connection.ask(b"watch " + tube.encode()) == b"WATCHING 2"
    assert connection.watching() == ["default", tube]
    assert tube in connection.tubes()
    assert connection.stats_tube(tube)["current-watching"] == 1


@pytest.mark.rule("1.2/ignore")
def test_the_last_watched_tube_cannot_be_ignored(connect: Connect, tube: str) -> None:
    connection = connect()
    assert connection.ask(b"ignore default") == b"NOT_IGNORED"
    assert connection.watch(tube) == 2
    assert connection.ask(b"ignore default") == b"WATCHING 1"
    assert connection.ask(b"ignore " + tube.encode()) == b"NOT_IGNORED"
    assert connection.watching() == [tube]


@pytest.mark.rule("1.2/ignore")
def test_ignoring_an_unwatched_tube_changes_nothing_and_creates_none(connect: Connect, tube: str) -> None:
    connection = connect()
    assert connection.ask(b"ignore " + tube.encode()) == b"WATCHING 1"
    assert connection.ask(b"stats-tube " + tube.encode()) == b"NOT_FOUND"


@pytest.mark.rule("1.2/list-watched")
def test_the_watch_list_keeps_its_order_but_the_last_fills_a_gap(connect: Connect, new_tube: Callable[[], str]) -> None:
    connection = connect()
    a, b, c, d = (new_tube() for _ in range(4))
    for name in (a, b, c, d):
        connection.watch(name)
    assert connection.watching() == ["default", a, b, c, d]
    assert connection.ignore(a) == 4
    assert connection.watching() == ["default", d, b, c]
    assert connection.ignore("default") == 3
    assert connection.watching() == [c, d, b]
    assert connection.ignore(b) == 2
    assert connection.watching() == [c, d]
    assert connection.watch(a) == 3
    assert connection.ask_text(b"list-tubes-watched") == f"---\n- {c}\n- {d}\n- {a}\n"


@pytest.mark.shared_store_relaxed("a front-end lists its own tubes first")
@pytest.mark.rule("1.2/list-tubes")
def test_tubes_are_listed_as_created_but_the_last_fills_a_gap(farm: Farm) -> None:
    server = farm.start()
    connection = server.connect()
    assert connection.ask_text(b"list-tubes") == "---\n- default\n"
    for name in ("a", "b", "c", "d"):
        connection.watch(name)
    assert connection.tubes() == ["default", "a", "b", "c", "d"]
    connection.ignore("a")
    assert connection.tubes() == ["default", "d", "b", "c"]
    connection.use("e")
    connection.ignore("default")
    assert connection.tubes() == ["default", "d", "b", "c", "e"]
    connection.use("default")
    assert connection.tubes() == ["default", "d", "b", "c"]


@pytest.mark.rule("1.2/watch")
def test_a_worker_gets_jobs_of_tubes_it_began_to_watch_later(connect: Connect, tube: str) -> None:
    connection = connect(use=tube)
    job_id = connection.insert()
    connection.watch(tube)
    connection.ignore("default")
    assert connection.reserve(0).id == job_id


@pytest.mark.rule("2.7/references")
def test_a_tube_that_nobody_uses_or_watches_and_without_jobs_is_gone(
    connect: Connect, new_tube: Callable[[], str], agrees: Callable[[Callable[[], bool]], bool]
) -> None:
    observer, connection = connect(), connect()
    used, watched = new_tube(), new_tube()
    connection.use(used)
    connection.watch(watched)
    assert agrees(lambda: {used, watched} <= set(observer.tubes()))
    connection.use("default")
    connection.ignore(watched)
    assert agrees(lambda: {used, watched}.isdisjoint(observer.tubes()))
    for name in (used, watched):
        assert observer.ask(b"stats-tube " + name.encode()) == b"NOT_FOUND"
        assert observer.ask(b"pause-tube " + name.encode() + b" 1") == b"NOT_FOUND"


@pytest.mark.rule("2.7/references", "2.5/close")
def test_closing_the_last_connection_removes_its_tubes(connect: Connect, new_tube: Callable[[], str]) -> None:
    observer, connection = connect(), connect()
    used, watched = new_tube(), new_tube()
    connection.use(used)
    connection.watch(watched)
    connection.close()
    assert eventually(lambda: {used, watched}.isdisjoint(observer.tubes()))


@pytest.mark.rule("2.7/jobs-hold")
@pytest.mark.parametrize("state", ["ready", "delayed", "reserved", "buried"])
def test_a_job_in_any_state_keeps_its_tube(connect: Connect, tube: str, state: str) -> None:
    connection = connect(use=tube)
    job_id = connection.insert(delay=100 if state == "delayed" else 0)
    if state in {"reserved", "buried"}:
        connection.reserve_job(job_id)
    if state == "buried":
        assert connection.ask(b"bury %d 0" % job_id) == b"BURIED"
    connection.use("default")
    assert connection.stats_tube(tube)[f"current-jobs-{state}"] == 1  # type: ignore[literal-required]
    connection.delete(job_id)
    with pytest.raises(greenstalk.NotFoundError):
        connection.stats_tube(tube)


@pytest.mark.rule("2.7/starts-anew")
@pytest.mark.cluster_relaxed("a tube's counters and pause outlive it by a while")
def test_a_tube_that_comes_again_has_forgotten_its_counters_and_its_pause(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    connection.delete(connection.insert())
    connection.pause_tube(tube, 100)
    assert connection.stats_tube(tube)["total-jobs"] == 1
    connection.use("default")
    connection.watch("default")
    connection.ignore(tube)
    connection.use(tube)
    stats = connection.stats_tube(tube)
    assert (stats["total-jobs"], stats["cmd-delete"], stats["cmd-pause-tube"]) == (0, 0, 0)
    assert (stats["pause"], stats["pause-time-left"]) == (0, 0)


@pytest.mark.rule("2.7/default-stays")
def test_default_is_there_even_when_nobody_uses_it(farm: Farm, tube: str) -> None:
    connection = farm.start().connect(use=tube, watch=tube)
    assert connection.tubes() == ["default", tube]
    stats = connection.stats_tube("default")
    assert (stats["current-using"], stats["current-watching"]) == (0, 0)


@pytest.mark.rule("1.2/use")
def test_using_the_used_tube_again_keeps_it(connect: Connect, tube: str) -> None:
    connection = connect(use=tube)
    connection.use(tube)
    assert connection.stats_tube(tube)["current-using"] == 1
