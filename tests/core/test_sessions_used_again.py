"""Records of sessions are used again: as many stay as front-ends were alive at once, and no two sessions are confused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from failing import always

from beanspiked.engine.aerospike.store.seam import Busy

if TYPE_CHECKING:
    from world import FrontEnd, World

# A dead session is forgotten after two passes a minute apart, once it has been declared dead.
FORGOTTEN_WITHIN = 100.0


def number_of(front_end: FrontEnd) -> int:
    return front_end.engine.membership.session.number


def replace(here: World, front_end: FrontEnd, *, cleanly: bool) -> FrontEnd:
    if cleanly:
        front_end.close()
        here.run(2.0)
    front_end.kill()
    here.front_ends.remove(front_end)
    return here.front_end()


def test_front_ends_that_were_replaced_leave_no_records(here: World) -> None:
    staying, replaced = here.front_end(), here.front_end()
    for turn in range(10):
        waiting = staying.connect()
        waiting.post(b"reserve-with-timeout 5\r\n")
        here.run(3.0)
        replaced.connect().put()
        here.run(FORGOTTEN_WITHIN)
        replaced = replace(here, replaced, cleanly=turn % 2 == 0)
    here.run(FORGOTTEN_WITHIN)
    assert sorted(here.cluster.listed_sessions()) == [number_of(staying), number_of(replaced)]
    # The successor joins before the former one is forgotten.
    assert len(here.cluster._sessions) == 3
    assert len(here.cluster._news) <= 3


def test_what_a_front_end_remembers_of_sessions_goes_with_them_whoever_forgets_them(here: World) -> None:
    staying = [here.front_end() for _ in range(3)]
    for _ in range(3):
        dying = here.front_end()
        here.run(3.0)
        dying.kill()
        here.run(2 * FORGOTTEN_WITHIN)
    for front_end in staying:
        membership = front_end.engine.membership
        assert (membership.burial._next_passes, membership.burial._passed, len(membership.records)) == ({}, set(), 3)


def test_a_front_end_that_dies_between_being_listed_and_joining_is_listed_no_more(here: World) -> None:
    staying = here.front_end()
    here.run(15.0)
    claim = here.cluster.claim
    here.cluster.claim = always(Busy("11"))  # type: ignore[method-assign]
    dying = here.front_end()
    here.run(0.05)
    dying.kill()
    here.cluster.claim = claim  # type: ignore[method-assign]
    (number,) = here.cluster.listed_sessions().keys() - {number_of(staying)}
    here.run(2 * FORGOTTEN_WITHIN)
    assert list(here.cluster.listed_sessions()) == [number_of(staying)]
    assert number_of(here.front_end()) < number
    here.run(3.0)
    assert number_of(here.front_ends[-1]) > number
    assert len(here.cluster._sessions) == 2


def test_a_front_end_that_is_about_to_join_is_given_time(here: World) -> None:
    here.front_end()
    here.run(15.0)
    here.cluster.list_session(100, 2)
    here.run(9.0)
    here.cluster.claim(100)
    assert not here.cluster.session(100).dead  # type: ignore[union-attr]


def test_a_front_end_whose_record_another_has_by_now_learns_that_it_is_dead_and_harms_nobody(here: World) -> None:
    staying, frozen = here.front_end(), here.front_end()
    here.run(3.0)
    former = number_of(frozen)
    frozen.freeze(2 * FORGOTTEN_WITHIN)
    here.run(1.5 * FORGOTTEN_WITHIN)
    assert list(here.cluster.listed_sessions()) == [number_of(staying)]
    successor = here.front_end()
    client = successor.connect()
    job_id = client.put(ttr=1000)
    assert client.ask(b"reserve\r\n").startswith(b"RESERVED")
    slot = here.cluster.listed_sessions()[number_of(successor)]
    assert here.cluster._sessions[slot].number == number_of(successor)
    assert here.cluster._slots[former] == slot
    here.run(FORGOTTEN_WITHIN)
    assert len({former, number_of(frozen), number_of(successor)}) == 3
    assert client.ask(b"touch %d\r\n" % job_id) == b"TOUCHED\r\n"
    assert sorted(here.cluster.listed_sessions()) == sorted(map(number_of, (staying, successor, frozen)))


def test_a_front_end_whose_cluster_has_another_key_begins_anew_with_it(here: World) -> None:
    stayed = here.front_end()
    here.run(3.0)
    former = number_of(stayed)
    # Another front-end has made it, since the nodes had lost the first.
    here.cluster.key = b"made anew"
    other = here.front_end()
    here.run(10.0)
    assert not stayed.engine.membership.session.over
    assert number_of(stayed) != former
    assert stayed.engine.news.mesh.hears(number_of(other))
    assert other.engine.news.mesh.hears(number_of(stayed))
