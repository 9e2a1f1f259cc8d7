"""Records that cannot be read, since others wrote them or a disk failed: each concerns nobody but those who ask for it."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from depth import FULL
from failing import for_segment
from hypothesis import given, settings
from hypothesis import strategies as st
from world import World, session_of

from beanspiked.engine.aerospike.cluster.news import unpack_news
from beanspiked.engine.aerospike.cluster.usage import PACK_ABOVE, pack_usage, unpack_many, unpack_usage
from beanspiked.engine.aerospike.store import entries
from beanspiked.engine.aerospike.store import formats as decoding
from beanspiked.engine.aerospike.store.aerospike.adapter import AerospikeStore
from beanspiked.engine.aerospike.store.directory import Directory
from beanspiked.engine.aerospike.store.keys import SLOT_BITS, due_key, lease_key, ready_key
from beanspiked.engine.aerospike.store.seam import DEAD, Busy, Damaged
from beanspiked.engine.aerospike.store.tasks import LANES

if TYPE_CHECKING:
    from world import Client, FrontEnd

# Values that bins of other types, of other versions or of damaged records may have.
ODD: list[Any] = [None, -1, 1 << 62, "text", b"\xff\x00", [], [1], {}, {1: 2}, {b"k": b"v"}, {"a": None}, 1.5, True]

SEGMENT = {
    "no": 7,
    "tube": "t",
    "own": 3,
    "st": 0,
    "hwm": 2,
    "bodies": 0,
    "nheld": 1,
    "ready": {ready_key(1, 2, 1): b"job"},
    "delayed": {due_key(5, 2): b"job"},
    "buried": {due_key(5, 3): b"job"},
    "held": {lease_key(3, 1): {ready_key(1, 2, 4): b"job"}},
}
COUNTED = {"no": 7, "st": 0, "nheld": 1, "ready-n": 1, "delayed-n": 1, "buried-n": 0, "urgent": 1}
KEYS = {"keys": [ready_key(1, 2, 1)], "last": [ready_key(1, 2, 1)], "due": [due_key(5, 2)]}
HEAD = {**COUNTED, **KEYS}
SIZES = {**COUNTED, "hwm": 9, "first": [ready_key(1, 2, 1)], "due": [due_key(5, 2)], "oldest": []}
DIRECTORY = {"segments": {7: 0}, "pause": 0, "until": 0, "total_jobs": 3}
PAGE = {"f": 1, "no": 7, "st": 0, "tube": "t", "segs": {5: 0}}


@pytest.mark.parametrize(
    ("sound", "decode"),
    [
        (SEGMENT, lambda bins: decoding.segment(7, bins)),
        (HEAD, lambda bins: decoding.head(7, bins)),
        (SIZES, lambda bins: decoding.sizes(7, bins)),
        (DIRECTORY, entries.former_directory),
        (PAGE, lambda bins: entries.page(7, bins)),
        ({"f": 1, "items": {b"t\0s12345678": 0}}, entries.items),
        ({"numbers": {1: 0}}, decoding.slots),
        ({"names": {"t": 1}}, entries.former_names),
        ({"news": b"[]"}, lambda bins: decoding.blob(bins, "news")),
    ],
)
def test_whatever_stands_in_a_bin_a_record_can_be_read_or_is_damaged(sound: dict[str, Any], decode: Any) -> None:
    assert decode(sound) is not None
    for name in sound:
        for odd in ODD:
            with contextlib.suppress(Damaged):
                decode({**sound, name: odd})
        with contextlib.suppress(Damaged):
            decode({other: value for other, value in sound.items() if other != name})


def test_a_number_is_not_taken_for_so_many_bytes() -> None:
    with pytest.raises(Damaged, match="type int"):
        decoding.blob({"news": 1 << 40}, "news")


def test_a_key_too_short_for_a_time_and_a_slot_is_damaged() -> None:
    with pytest.raises(Damaged, match="2 bytes"):
        decoding.segment(7, {**SEGMENT, "delayed": {b"xx": b"job"}})


@pytest.mark.parametrize("length", [13, 15])
def test_the_key_of_a_ready_job_is_damaged_unless_it_has_its_three_parts(length: int) -> None:
    key = ready_key(1, 2, 1).ljust(length, b"x")[:length]
    with pytest.raises(Damaged, match=f"{length} bytes"):
        decoding.segment(7, {**SEGMENT, "ready": {key: b"job"}})
    for name in ("keys", "last"):
        with pytest.raises(Damaged, match=f"{length} bytes"):
            decoding.head(7, {**HEAD, name: [key]})
    with pytest.raises(Damaged, match=f"{length} bytes"):
        decoding.sizes(7, {**SIZES, "first": [key]})


def test_a_record_that_cannot_be_read_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    aside = decoding.SetAside()
    for _ in range(3):
        assert aside.read("segment 7", lambda: decoding.segment(7, {})) is None
    assert [record.message for record in caplog.records] == [
        "segment 7 cannot be read and is left alone: no is missing"
    ]


def test_a_session_whose_record_misses_bins_can_still_be_silent() -> None:
    record = decoding.session(5, 1, {"silent": 20_000}, decoding.SetAside())
    assert (record.dead, record.silent_ms, record.payload) == (False, 20_000, b"")


@pytest.mark.parametrize("odd", [0, -1, -(1 << 62)])
def test_a_format_below_the_first_is_none_that_anybody_agrees_on(odd: int) -> None:
    sound = {"no": 5, "silent": 10, "dead": 0, "payload": b""}
    for name in ("reads", "writes"):
        record = decoding.session(5, 1, {**sound, name: odd}, decoding.SetAside())
        assert (record.reads, record.writes) == (1, 1)
        with pytest.raises(Damaged, match=f"{name} is {odd}"):
            decoding.whole_session({**sound, name: odd})
    with pytest.raises(Damaged, match=f"f is {odd}"):
        decoding.segment(7, {**SEGMENT, "f": odd})


def batch(*results: tuple[int, Any]) -> Any:
    """Make a client that gives these results for the records of a batch."""
    records = [SimpleNamespace(result=code, record=(None, None, bins)) for code, bins in results]
    return SimpleNamespace(batch_operate=lambda *_: SimpleNamespace(batch_records=records))


@pytest.mark.parametrize("odd", [(12, None), (26, None), (0, {"no": "seven"}), (0, {})])
def test_one_odd_segment_of_many_keeps_no_other_from_being_read(odd: tuple[int, Any]) -> None:
    store = AerospikeStore(batch((0, SIZES), odd, (0, SIZES)), "test")
    found = asyncio.run(store.sizes([7, 8, 7]))
    store.caller.close()
    assert [size is not None for size in found] == [True, False, True]


def test_one_odd_entry_of_a_shard_keeps_no_other_from_being_read() -> None:
    told: list[str] = []
    sound = {
        entries.numbered_item("a", entries.ITEM_SEGMENT, 7): 0,
        entries.item("c", entries.ITEM_COUNTER, "deletes"): 2,
    }
    for odd in (
        {b"b\0s": 0},
        {b"b\0w": 5},
        {b"b\0x": 1},
        {b"b\0cdeletes": "two"},
        {b"\xff\0w": [1, 2]},
        {b"b": 0},
        {"b": 0},
    ):
        found = entries.directories({**sound, **odd}, lambda what, _: told.append(what))
        assert found == {"a": Directory([7]), "c": Directory([], counters={"deletes": 2})}
    assert len(told) == 7


def test_an_entry_whose_items_are_out_of_order_is_read_in_order() -> None:
    numbers = list(range(20_000, 0, -1))
    items = {
        entries.numbered_item("a", kind, number): 0
        for number in numbers
        for kind in (entries.ITEM_SEGMENT, entries.ITEM_PAGE)
    }
    found = entries.directories(items, lambda what, _: pytest.fail(what))
    assert found == {"a": Directory(numbers[::-1], pages=numbers[::-1])}


# --- with front-ends at work


def two(here: World) -> tuple[FrontEnd, FrontEnd]:
    """Start two front-ends."""
    both = here.front_end(), here.front_end()
    here.run(3.0)
    return both


def wake_up(here: World, producer: Client, consumer: Client) -> float:
    """Return how long a job takes to somebody who waits at another front-end, in seconds."""
    consumer.post(b"reserve\r\n")
    here.run(1.3)
    job_id = producer.put()
    put_at = here.time
    assert here.run(30.0, consumer.answered)
    assert consumer.take().startswith(b"RESERVED %d " % job_id)
    took = here.time - put_at
    consumer.ask(b"delete %d\r\n" % job_id)
    return took


@pytest.mark.parametrize(
    "odd", [b"[2,[],{}]", b"\xff", b"7", b"[1,7]", b'[1,[["a",1]]]', b"[" * 5000, b'{"a":1,"b":2}']
)
def test_news_that_cannot_be_read_concern_nobody_else(odd: bytes, caplog: pytest.LogCaptureFixture) -> None:
    here = World(1, links=False)
    first, second = two(here)
    third = here.front_end()
    here.run(3.0)
    producer, consumer = first.connect(), second.connect()
    here.cluster.publish(third.engine.membership.session.number, odd)
    assert max(wake_up(here, producer, consumer) for _ in range(5)) < 0.1
    told = [record.getMessage() for record in caplog.records if "news" in record.getMessage()]
    assert len(told) <= 2
    assert all("cannot be read" in message for message in told)


def test_news_that_cannot_be_read_are_a_reason_to_look() -> None:
    here = World(1, links=False)
    first, second = two(here)
    consumer = second.connect()
    consumer.post(b"reserve\r\n")
    here.run(7.0)
    if not hasattr(second.engine.scout, "__dict__"):
        pytest.skip("a compiled scout tells no test what it does")
    rechecks = []
    second.engine.scout.look_everywhere = lambda: rechecks.append(here.time)  # type: ignore[method-assign]
    here.cluster.publish(first.engine.membership.session.number, b"of another version")
    here.run(1.0)
    assert len(rechecks) == 1


@pytest.mark.parametrize(
    "odd",
    [
        b'{"t":[1,0]}',
        b'{"t":"many"}',
        b'{"t":[1,0,0,0,0,null]}',
        b"{",
        b"[]",
        b"\xff",
        zlib.compress(b"[1]"),
        zlib.compress(b"{}")[:-3],
    ],
)
def test_how_tubes_are_used_elsewhere_concerns_nobody_if_it_cannot_be_read(odd: bytes) -> None:
    here = World(1)
    first, second = two(here)
    client = first.connect()
    session_of(here, second.engine.membership.session.number).payload = odd
    assert client.stats("stats")["current-tubes"] == "1"
    assert client.ask(b"list-tubes\r\n").startswith(b"OK")
    assert client.stats("stats-tube default")["current-watching"] == "1"


def test_a_tube_is_deleted_but_for_a_segment_that_cannot_be_read(here: World, client: Client) -> None:
    job_id = client.put()
    engine = client.front_end.engine
    # More than are deleted side by side, behind the odd one.
    others = [(job_id >> SLOT_BITS) + more for more in range(1, 2 * LANES)]
    for number in others:
        here.cluster.create(number, "default", lease_key(engine.membership.session.number, number))
        here.cluster.enlist("default", number)
    here.cluster.wipe = for_segment(job_id >> SLOT_BITS, here.cluster.wipe, Damaged("held is odd"))  # type: ignore[method-assign]
    deleting: list[Any] = []
    client.front_end.inside(lambda: deleting.append(engine.delete_tube(engine.tube("default"))))
    assert here.run(10.0, lambda: deleting[0].done)
    assert isinstance(deleting[0].error, Damaged)
    assert all(here.cluster.segment(number).state == DEAD for number in others)


@pytest.mark.slow
@given(
    st.integers(min_value=1, max_value=9),
    st.sampled_from([b"", b"}", b'],"', b"0", b"{", b"null"]),
    st.integers(min_value=0, max_value=300_000),
)
@settings(max_examples=60 if FULL else 15)
def test_much_that_is_read_in_parts_reads_as_it_does_at_once(width: int, put_in: bytes, at: int) -> None:
    usage = {f"{number:0{width}}-;$_().+/": [number, 0, 1, 0, 0, 0] for number in range(8000)}
    text = zlib.decompress(pack_usage(usage))
    assert len(text) > PACK_ABOVE
    odd = zlib.compress(text[:at] + put_in + text[at:])
    try:
        expected: object = unpack_usage(odd)
    except ValueError:
        expected = ValueError
    try:
        found: object = asyncio.run(unpack_many(odd))
    except ValueError:
        found = ValueError
    assert found == expected


def test_what_unpacks_to_more_than_anybody_publishes_is_not_unpacked() -> None:
    with pytest.raises(ValueError, match="too long"):
        unpack_usage(zlib.compress(b"{" + b" " * (65 << 20)))


def test_counts_that_a_later_version_adds_are_passed_over() -> None:
    assert unpack_usage(b'{"t":[1,2,3,4,5,6,7]}')["t"][:6] == [1, 2, 3, 4, 5, 6]


def test_news_are_numbers_and_names() -> None:
    assert unpack_news(b'[2,[[1,"a"],[2,"b"]]]') == (2, [(1, "a"), (2, "b")])


def damage(here: World, bad: int) -> None:
    """Let a segment be unreadable, as the adapter tells it."""
    size, head = here.cluster.size, here.cluster.head
    here.cluster.read = for_segment(bad, here.cluster.read, Damaged("hwm is missing"))  # type: ignore[method-assign]
    here.cluster.size = lambda number: None if number == bad else size(number)  # type: ignore[method-assign]
    here.cluster.head = lambda number: None if number == bad else head(number)  # type: ignore[method-assign]


def test_what_a_dead_session_held_comes_back_but_for_a_segment_that_cannot_be_read() -> None:
    here = World(1)
    dying, other = two(here)
    client = dying.connect()
    ids = []
    for n in range(4):
        client.ask(b"use t%d\r\n" % n)
        client.ask(b"watch t%d\r\n" % n)
        ids.append(client.put())
        assert client.ask(b"reserve\r\n").startswith(b"RESERVED")
    dead = dying.engine.membership.session.number
    queries = 0
    leased_by = here.cluster.leased_by

    def counted(session: int) -> list[int]:
        nonlocal queries
        queries += 1
        return leased_by(session)

    here.cluster.leased_by = counted  # type: ignore[method-assign]
    whole = here.cluster.read
    damage(here, ids[0] >> SLOT_BITS)
    dying.kill()
    here.run(60.0)
    for job_id in ids[1:]:
        assert other.connect().ask(b"reserve-job %d\r\n" % job_id).startswith(b"RESERVED")
    queries = 0
    here.run(300.0)
    # Once a minute for each of the two: who repairs it need not hurry.
    assert queries <= 12
    assert dead in here.cluster.listed_sessions()
    here.cluster.read = whole  # type: ignore[method-assign]
    here.run(70.0)
    assert other.connect().ask(b"reserve-job %d\r\n" % ids[0]).startswith(b"RESERVED")


def test_looks_pass_over_a_segment_that_cannot_be_read() -> None:
    here = World(1)
    first, second = two(here)
    client, other = first.connect(), second.connect()
    bad, good = client.buried(), other.buried()
    assert bad >> SLOT_BITS != good >> SLOT_BITS
    here.cluster.read = for_segment(bad >> SLOT_BITS, here.cluster.read, Damaged("hwm is missing"))  # type: ignore[method-assign]
    asked_at = here.time
    assert client.ask(b"peek-buried\r\n").startswith(b"FOUND %d " % good)
    assert client.ask(b"peek %d\r\n" % bad) == b"INTERNAL_ERROR\r\n"
    assert client.ask(b"kick 10\r\n") == b"KICKED 1\r\n"
    assert client.stats("stats")["current-jobs-ready"] == "1"
    # Nobody tries again what cannot be read.
    assert here.time - asked_at < 0.5


def test_due_jobs_become_ready_beside_a_segment_that_cannot_be_read() -> None:
    here = World(1)
    first, second = two(here)
    client, other = first.connect(), second.connect()
    bad, good = client.put(delay=2), other.put(delay=3)
    here.cluster.read = for_segment(bad >> SLOT_BITS, here.cluster.read, Damaged("hwm is missing"))  # type: ignore[method-assign]
    assert client.ask(b"reserve-with-timeout 10\r\n").startswith(b"RESERVED %d " % good)
    here.run(5.0)
    assert client.stats("stats")["current-jobs-delayed"] == "1"


def test_jobs_are_counted_without_a_segment_that_does_not_answer_but_none_is_said_not_to_be_there() -> None:
    here = World(1)
    first, second = two(here)
    client, other = first.connect(), second.connect()
    bad = client.buried()
    other.put()
    here.cluster.size = for_segment(bad >> SLOT_BITS, here.cluster.size, Busy("11: unavailable"))  # type: ignore[method-assign]
    assert client.stats("stats")["current-jobs-ready"] == "1"
    assert client.ask(b"peek-buried\r\n") == b"INTERNAL_ERROR\r\n"
    assert client.ask(b"kick 1\r\n") == b"INTERNAL_ERROR\r\n"
