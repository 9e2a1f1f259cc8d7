"""A front-end among others on a shared store: how it lives, what it hears, and what it does when others die."""

from __future__ import annotations

from typing import Any

import pytest
from failing import busy_for
from world import World, session_of

from beanspiked.engine.aerospike.store.keys import SLOT_BITS
from beanspiked.engine.aerospike.store.seam import Busy, Outcome, StoreError, Unknown

# --- what is unreadable


def break_segment(here: World, bad: int) -> None:
    """Let a segment's partition be unavailable."""
    for name in ("read", "reclaim", "apply", "head", "size", "shift", "attach", "close"):
        keep = getattr(here.cluster, name)

        def fails(number: int, *arguments: Any, keep: Any = keep, **options: Any) -> Any:
            if number == bad:
                raise Busy("11: partition unavailable")
            return keep(number, *arguments, **options)

        setattr(here.cluster, name, fails)


def test_what_a_dead_session_held_comes_back_though_one_segment_of_it_cannot_be_read() -> None:
    here = World(1)
    dying, other = here.front_end(), here.front_end()
    here.run(3.0)
    ids = []
    for tube in (b"a", b"b", b"c"):
        client = dying.connect()
        client.ask(b"use %b\r\n" % tube)
        client.ask(b"watch %b\r\n" % tube)
        ids.append(client.put())
        assert client.ask(b"reserve\r\n").startswith(b"RESERVED")
    dead = dying.engine.membership.session.number
    whole = dict(vars(here.cluster))
    break_segment(here, ids[0] >> SLOT_BITS)
    dying.kill()
    here.run(30.0)
    for tube in (b"b", b"c"):
        client = other.connect()
        client.ask(b"watch %b\r\n" % tube)
        assert client.ask(b"reserve-with-timeout 0\r\n").startswith(b"RESERVED")
    here.run(200.0)
    # Not all of it was seen, so it is not forgotten.
    assert dead in here.cluster.listed_sessions()
    for name in set(vars(here.cluster)) - set(whole):
        delattr(here.cluster, name)
    here.run(10.0)
    assert other.connect().ask(b"reserve-job %d\r\n" % ids[0]).startswith(b"RESERVED")
    here.run(130.0)
    assert dead not in here.cluster.listed_sessions()


def test_a_dead_session_that_cannot_be_looked_after_keeps_no_other_from_its_end() -> None:
    here = World(1)
    other = here.front_end()
    here.run(3.0)
    first = here.front_end()
    here.run(3.0)
    second = here.front_end()
    here.run(3.0)
    client = second.connect()
    job_id = client.put()
    assert client.ask(b"reserve\r\n").startswith(b"RESERVED")
    failing = first.engine.membership.session.number
    assert failing < second.engine.membership.session.number
    leased_by = here.cluster.leased_by

    def fails(session: int) -> list[int]:
        if session == failing:
            raise Busy("11: partition unavailable")
        return leased_by(session)

    here.cluster.leased_by = fails  # type: ignore[method-assign]
    first.kill()
    second.kill()
    here.run(30.0)
    assert other.connect().ask(b"reserve-job %d\r\n" % job_id).startswith(b"RESERVED")


def test_a_lease_that_nobody_knows_is_taken_back_though_another_segment_cannot_be_read() -> None:
    here = World(1)
    front_end = here.front_end()
    client = front_end.connect()
    here.run(3.0)
    ids = []
    for tube in (b"a", b"b"):
        client.ask(b"use %b\r\n" % tube)
        ids.append(client.put())
    bad, good = (job_id >> SLOT_BITS for job_id in ids)
    assert bad < good
    lost = front_end.engine.membership.session.next_lease()
    here.cluster.attach(good, lost)
    break_segment(here, bad)
    here.run(200.0)
    assert lost not in here.cluster.segment(good).leases


@pytest.mark.parametrize("error", [Busy("11: partition unavailable"), Unknown("9: timeout")])
def test_a_tube_whose_record_cannot_be_written_is_kept_and_the_others_are_let_go(error: StoreError) -> None:
    here = World(1)
    front_end = here.front_end()
    client = front_end.connect()
    add_counters, forget_tube = here.cluster.add_counters, here.cluster.forget_tube
    added: list[str] = []

    def fails(tube: str, *counters: Any) -> None:
        if tube == "t0" and counters:
            added.append(tube)
        if tube == "t0":
            raise error
        (add_counters if counters else forget_tube)(tube, *counters)

    here.cluster.add_counters = fails  # type: ignore[method-assign]
    other = here.front_end().connect()
    for number in range(3):
        # While others use a tube, what was counted in it is kept.
        other.ask(b"watch t%d\r\n" % number)
    here.run(3.0)
    for number in range(3):
        client.ask(b"use t%d\r\n" % number)
        assert client.ask(b"delete %d\r\n" % client.put()) == b"DELETED\r\n"
    client.ask(b"use default\r\n")
    here.run(400.0)
    known = {tube.name for tube in front_end.engine.registry.known_tubes()}
    if isinstance(error, Unknown):
        # Who knows whether they were added: not again.
        assert (known, added) == ({"default"}, ["t0"])
    else:
        assert (known, len(added) > 2) == ({"default", "t0"}, True)


def serve_once(front_end: Any, count: int) -> None:
    """Use so many tubes for one job each."""
    client = front_end.connect()
    for number in range(count):
        client.ask(b"use once-%d\r\n" % number)
        assert client.ask(b"delete %d\r\n" % client.put()) == b"DELETED\r\n"
    client.hang_up()


def test_tubes_that_were_used_once_are_not_listed_for_ever(here: World) -> None:
    front_end, other = here.front_end(), here.front_end()
    here.run(3.0)
    kept = other.connect()
    kept.ask(b"use kept\r\n")
    kept.put()
    serve_once(front_end, 20)
    assert len(here.cluster.tubes()) == 21
    here.run(300.0)
    assert [*here.cluster.tubes()] == ["kept"]
    assert other.connect().ask(b"list-tubes\r\n") == b"OK 21\r\n---\n- default\n- kept\n\r\n"


def test_what_is_told_of_tubes_whose_last_user_has_died_goes_though_one_of_them_fails(here: World) -> None:
    front_end, other = here.front_end(), here.front_end()
    here.run(3.0)
    serve_once(front_end, 5)
    here.run(2.0)
    front_end.kill()
    here.run(30.0)
    assert {name: record.counters["deletes"] for name, record in here.cluster.tubes().items()} == {
        f"once-{number}": 1 for number in range(5)
    }
    forget = here.cluster.forget_tube

    def failing(tube: str) -> None:
        if tube == "once-0":
            raise Busy("11: partition unavailable")
        forget(tube)

    here.cluster.forget_tube = failing  # type: ignore[method-assign]
    # All tubes are looked at within eight minutes.
    here.run(600.0)
    assert [*here.cluster.tubes()] == ["once-0"]
    here.cluster.forget_tube = forget  # type: ignore[method-assign]
    here.run(600.0)
    assert here.cluster.tubes() == {}
    assert not other.leaving


@pytest.mark.parametrize("busy", ["sessions", "forget_tube"])
def test_a_tube_begins_anew_though_the_store_is_busy_for_a_moment(here: World, busy: str) -> None:
    client = here.front_end().connect()
    here.run(3.0)
    client.ask(b"use t\r\n")
    assert client.ask(b"delete %d\r\n" % client.put()) == b"DELETED\r\n"
    assert client.ask(b"pause-tube t 100\r\n") == b"PAUSED\r\n"
    setattr(here.cluster, busy, busy_for(here, 0.3, getattr(here.cluster, busy)))
    client.ask(b"use default\r\n")
    client.ask(b"use t\r\n")
    stats = client.stats("stats-tube t")
    assert [stats[name] for name in ("total-jobs", "cmd-delete", "cmd-pause-tube", "pause")] == ["0"] * 4


def test_a_paused_tube_that_nobody_uses_stays_paused(here: World) -> None:
    client = here.front_end().connect()
    client.ask(b"use paused\r\n")
    client.put()
    assert client.ask(b"pause-tube paused 1000\r\n") == b"PAUSED\r\n"
    client.ask(b"use default\r\n")
    here.run(300.0)
    assert client.stats("stats-tube paused")["pause"] == "1000"


# --- what takes long


def fill_tubes(here: World, front_end: Any, count: int, seconds: float) -> None:
    """Put one job into each of many tubes, and let that take its time."""
    client = front_end.connect()
    for number in range(count):
        client.post(b"use t%d\r\nput 0 0 60 1\r\nx\r\n" % number)
    here.run(seconds)


def lose_session(here: World, front_end: Any) -> None:
    """Let a front-end be frozen for too long."""
    front_end.freeze(8.0)
    here.run(7.99)
    front_end.inside(front_end.engine.membership.alive)
    assert front_end.engine.membership.session.over


def test_a_new_session_lives_while_the_leases_of_the_former_are_taken_back() -> None:
    here = World(1, latency=(0.02, 0.04))
    front_end = here.front_end()
    fill_tubes(here, front_end, 80, 30.0)
    former = front_end.engine.membership.session.number
    assert len(here.cluster.leased_by(former)) == 80
    lose_session(here, front_end)
    here.run(2.0)
    session = front_end.engine.membership.session
    assert session.number > former
    for _ in range(60):
        here.run(0.5)
        assert front_end.engine.membership.session is session
        assert front_end.engine.membership.alive()
    assert here.cluster.leased_by(former) == []


def test_others_are_looked_after_while_the_leases_of_a_dead_session_are_taken_back() -> None:
    here = World(1, latency=(0.02, 0.04))
    other = here.front_end()
    here.run(3.0)
    dying = here.front_end()
    fill_tubes(here, dying, 200, 60.0)
    dying.kill()
    dead = dying.engine.membership.session.number
    assert here.run(30.0, lambda: session_of(here, dead).dead)
    newcomer = here.front_end()
    here.run(4.0)
    assert newcomer.engine.membership.session.number in other.engine.membership.others
    assert here.cluster.leased_by(dead)


def test_a_dead_session_is_not_forgotten_before_two_passes_a_minute_apart() -> None:
    here = World(1)
    front_end = here.front_end()
    here.run(3.0)
    former = front_end.engine.membership.session.number
    lose_session(here, front_end)
    here.run(50.0)
    assert session_of(here, former).dead
    assert former in here.cluster.listed_sessions()
    here.run(20.0)
    assert former not in here.cluster.listed_sessions()


# --- the end


def close(front_end: Any) -> list[bool]:
    """Let a front-end begin to end; return what is no longer empty when that is done."""
    done: list[bool] = []
    front_end.leaving = True
    front_end.inside(lambda: front_end.engine.close().then(lambda _: done.append(True)))
    return done


def closed(here: World, front_end: Any, seconds: float) -> bool:
    """End a front-end; tell whether that is done within a time."""
    done = close(front_end)
    return here.run(seconds, lambda: bool(done))


def test_a_segment_that_stays_busy_does_not_keep_a_front_end_from_its_end() -> None:
    here = World(1)
    front_end, other = here.front_end(), here.front_end()
    here.run(3.0)
    clients = [front_end.connect() for _ in range(2)]
    ids = []
    for client, tube in zip(clients, (b"a", b"b"), strict=True):
        client.ask(b"use %b\r\n" % tube)
        client.ask(b"watch %b\r\n" % tube)
        ids.append(client.put())
        assert client.ask(b"reserve\r\n").startswith(b"RESERVED")
    apply = here.cluster.apply

    def busy(number: int, *arguments: Any) -> Outcome:
        if number == ids[0] >> SLOT_BITS:
            raise Busy("14: key busy")
        return apply(number, *arguments)

    here.cluster.apply = busy  # type: ignore[method-assign]
    for client in clients:
        client.hang_up()
    here.run(0.01)
    assert closed(here, front_end, 8.0)
    assert session_of(here, front_end.engine.membership.session.number).dead
    here.cluster.apply = apply  # type: ignore[method-assign]
    for job_id in ids:
        assert other.connect().ask(b"reserve-job %d\r\n" % job_id).startswith(b"RESERVED")


def test_the_end_gives_back_first_and_does_not_wait_for_the_counters_of_all_tubes() -> None:
    here = World(1, latency=(0.02, 0.04))
    front_end = here.front_end()
    fill_tubes(here, front_end, 300, 60.0)
    session = front_end.engine.membership.session
    done = close(front_end)
    here.run(0.2)
    assert session_of(here, session.number).dead
    assert here.run(10.0, lambda: bool(done))
    kept = [record.counters.get("total_jobs", 0) for record in here.cluster._directories.values()]
    assert kept.count(1) > 200


def test_counters_of_a_front_end_that_ends_are_kept_once() -> None:
    here = World(1)
    front_end, other = here.front_end(), here.front_end()
    client = front_end.connect()
    here.run(3.0)
    client.ask(b"use t\r\n")
    client.put()
    here.run(2.0)
    assert closed(here, front_end, 8.0)
    here.run(60.0)
    assert here.cluster._directories["t"].counters["total_jobs"] == 1
    assert other.connect().stats("stats-tube t")["total-jobs"] == "1"


def test_a_front_end_ends_though_its_store_does_not_answer() -> None:
    here = World(1)
    front_end = here.front_end()
    here.run(3.0)
    here.down_until = here.time + 60.0
    assert closed(here, front_end, 15.0)


@pytest.mark.parametrize("seed", range(4))
def test_with_a_new_session_the_others_are_heard_again_at_once(seed: int) -> None:
    here = World(seed, latency=(0.001, 0.002))
    front_end = here.front_end()
    waiting, other = front_end.connect(), here.front_end().connect()
    here.run(3.0)
    waiting.post(b"reserve\r\n")
    here.run(1.0)
    lose_session(here, front_end)
    membership = front_end.engine.membership
    assert here.run(10.0, until=lambda: not membership.session.over)
    here.run(0.5)
    other.put()
    here.run(0.1)
    assert waiting.received.startswith(b"RESERVED")


def test_who_asks_whether_the_session_lives_asks_one_after_the_other() -> None:
    here = World(1, latency=(0.1, 0.2))
    front_end = here.front_end()
    here.run(5.0)
    membership = front_end.engine.membership
    under_way = most = 0
    heartbeat = front_end.store.heartbeat

    async def counted(session: int, payload: bytes | None, writes: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await heartbeat(session, payload, writes)
        finally:
            under_way -= 1

    front_end.store.heartbeat = counted  # type: ignore[method-assign]
    front_end.inside(lambda: [front_end.engine.tasks.spawn(membership.decide()) for _ in range(20)] and None)
    here.run(10.0)
    # One of them, and that of each second.
    assert most == 2
