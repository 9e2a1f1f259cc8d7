"""Which format a front-end writes while others read less."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from versions import AGREED, NEXT, NEXT_FORM
from world import Faults, World

from beanspiked.engine.aerospike.cluster.burial import DEAD_AFTER
from beanspiked.engine.aerospike.segment.codec import FORMATS
from beanspiked.engine.aerospike.store.keys import SLOT_BITS
from beanspiked.engine.aerospike.store.seam import FIRST, READY

if TYPE_CHECKING:
    import pytest
    from world import Client, FrontEnd

    from beanspiked.engine.aerospike.store.seam import Ring


def writes(front_end: FrontEnd) -> int:
    return front_end.engine.membership.agreement.writes


def form_of_put(here: World, client: Client) -> int:
    return here.cluster.segment(client.put() >> SLOT_BITS).form


def test_a_new_format_is_written_when_all_read_it_and_not_before(here: World) -> None:
    old, new = here.front_end(), here.front_end(formats=NEXT)
    client = new.connect()
    here.run(10.0)
    assert form_of_put(here, client) == FIRST
    old.close()
    here.run(AGREED)
    assert form_of_put(here, client) == NEXT_FORM


def test_a_dead_front_end_keeps_nobody_from_a_new_format(here: World) -> None:
    old, new = here.front_end(), here.front_end(formats=NEXT)
    here.run(3.0)
    old.kill()
    here.run(DEAD_AFTER)
    assert writes(new) == FIRST
    here.run(AGREED)
    assert writes(new) == NEXT_FORM


def test_who_reads_less_serves_when_the_others_write_no_more_than_that(here: World) -> None:
    new = here.front_end(formats=NEXT)
    client = new.connect()
    here.run(AGREED)
    assert form_of_put(here, client) == NEXT_FORM
    old = here.front_end()
    waiting = old.connect()
    served = here.run(10.0, lambda: not old.engine.membership.session.over)
    assert served
    assert writes(new) == FIRST
    assert form_of_put(here, client) == FIRST
    assert waiting.ask(b"reserve-with-timeout 1\r\n").startswith(b"RESERVED")


def test_who_waits_to_serve_says_why_once(here: World, caplog: pytest.LogCaptureFixture) -> None:
    new = here.front_end(formats=NEXT)
    here.run(AGREED)
    new.freeze(5.0)
    old = here.front_end()
    here.run(4.0)
    assert old.engine.membership.session.over
    told = [record.getMessage() for record in caplog.records if "writes no more" in record.getMessage()]
    assert len(told) == 1
    here.run(5.0)
    assert not old.engine.membership.session.over


def test_who_waits_to_serve_waits_for_nobody_who_is_silent(here: World) -> None:
    here.front_end(formats=NEXT)
    here.run(AGREED)
    here.front_ends[0].kill()
    old = here.front_end()
    here.run(DEAD_AFTER - 2.0)
    assert old.engine.membership.session.over
    here.run(4.0)
    assert not old.engine.membership.session.over


def test_who_ends_while_it_waits_to_serve_keeps_no_session(here: World) -> None:
    here.front_end(formats=NEXT)
    here.run(AGREED)
    here.front_ends[0].freeze(60.0)
    old = here.front_end()
    here.run(2.0)
    old.close()
    here.run(3.0)
    assert [record.dead for record in here.cluster._sessions.values()] == [False, True]


def test_nobody_writes_more_than_who_begins_to_serve_reads() -> None:
    for seed in range(150):
        here = World(seed, Faults(lost=0.03, unanswered=0.03, busy=0.03))
        new = here.front_end(formats=NEXT)
        # Some begin while the other one is about to write the new format.
        here.run(here.chance.uniform(0.5, 3.5))
        old = here.front_end()
        assert here.run(60.0, lambda: not old.engine.membership.session.over)  # noqa: B023
        assert writes(new) == FIRST
        here.run(2.0)
        assert writes(new) == FIRST


def test_puts_that_wait_for_a_segment_are_packed_in_the_format_that_is_written_by_then(here: World) -> None:
    new = here.front_end(formats=NEXT)
    client = new.connect()
    # Between two looks at the others.
    here.run(AGREED + 0.5)
    large = here.chance.randbytes(3000)
    client.post(b"put 0 0 60 1\r\nx\r\nput 0 0 60 3000\r\n%b\r\n" % large)
    reserve_places = here.cluster.reserve_places

    def meanwhile(*arguments: Any) -> Ring:
        # The sessions agree on another format before there is a segment.
        new.engine.membership.agreement.writes = FIRST
        return reserve_places(*arguments)

    here.cluster.reserve_places = meanwhile  # type: ignore[method-assign]
    here.run(0.3)
    assert client.received.count(b"INSERTED") == 2
    (first,) = [record for record in here.cluster._segments.values() if record.form == FIRST]
    assert first.queues[READY]
    assert all(FORMATS.knows(packed) for packed in first.queues[READY].values())
    assert client.take().startswith(b"INSERTED")
    assert client.take().startswith(b"INSERTED")
    assert client.ask(b"reserve\r\n").endswith(b"\r\nx\r\n")
    assert client.ask(b"reserve\r\n").endswith(large + b"\r\n")
