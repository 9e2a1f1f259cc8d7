"""What goes over a link between front-ends, and who may be at its other end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beanspiked.engine.aerospike.cluster import links
from beanspiked.engine.aerospike.cluster.links import EVERYTHING, Item, LinkError, Speaker, Subscriber, tube_hash

KEY = b"the cluster's key"

HASHES = st.integers(1, (1 << 64) - 1)

ITEMS = st.builds(
    Item, HASHES, st.integers(0, 1 << 50), st.sampled_from([0, 1, 2, 3]), st.integers(0, 65535), st.binary(max_size=14)
)


def ends(key: bytes = KEY, meant: int = 2) -> tuple[Speaker, Subscriber]:
    return Speaker(KEY, 2, b"s" * 16), Subscriber(key, 1, b"d" * 16, meant)


def opened() -> tuple[Speaker, Subscriber]:
    speaker, subscriber = ends()
    assert subscriber.receive(speaker.receive(subscriber.receive(speaker.greeting()))) == b""
    assert speaker.open
    assert subscriber.open
    return speaker, subscriber


def seen(items: list[Item]) -> list[tuple[int, int, int, int, bytes]]:
    return [(item.tube, item.segment, item.kind, item.count, item.key.ljust(14, b"\0")) for item in items]


def test_both_ends_know_each_other() -> None:
    speaker, subscriber = opened()
    assert (speaker.peer, subscriber.peer) == (1, 2)


def test_who_does_not_know_the_key_is_refused() -> None:
    speaker, stranger = ends(b"another key")
    with pytest.raises(LinkError, match="another cluster"):
        speaker.receive(stranger.receive(speaker.greeting()))
    assert not speaker.open


def test_who_is_dialled_has_to_know_the_key_as_well() -> None:
    _, subscriber = ends()
    stranger = Speaker(b"another key", 2, b"s" * 16)
    hello = subscriber.receive(stranger.greeting())
    stranger._key = KEY
    welcome = stranger.receive(hello)
    with pytest.raises(LinkError, match="another cluster"):
        subscriber.receive(welcome[:3] + bytes(16))
    assert not subscriber.open


def test_a_proof_is_good_for_one_link_only() -> None:
    first, subscriber = ends()
    hello = subscriber.receive(first.greeting())
    with pytest.raises(LinkError, match="another cluster"):
        Speaker(KEY, 2, b"t" * 16).receive(hello)


def test_who_is_not_the_session_that_was_meant_says_so() -> None:
    speaker, subscriber = ends(meant=3)
    with pytest.raises(LinkError, match="session 3 was meant"):
        speaker.receive(subscriber.receive(speaker.greeting()))


def test_another_format_is_hung_up_on() -> None:
    _, subscriber = ends()
    with pytest.raises(LinkError, match="another format"):
        subscriber.receive(links.frame(links.CHALLENGE, bytes([links.FORMAT + 1]) + b"s" * 16))


@given(st.data())
def test_news_arrive_as_they_were_told_however_the_bytes_are_split(data: st.DataObject) -> None:
    speaker, subscriber = opened()
    wanted = data.draw(st.lists(HASHES, unique=True))
    told = data.draw(st.lists(ITEMS))
    told += [Item(tube, 7, 0, 1, b"k") for tube in wanted]
    speaker.receive(subscriber.want(wanted, []))
    stream = speaker.tell(told)
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        subscriber.receive(stream[:size])
        stream = stream[size:]
    assert seen(subscriber.heard) == seen([item for item in told if item.tube in wanted])


def test_only_wanted_tubes_are_told_of() -> None:
    speaker, subscriber = opened()
    subscriber.receive(speaker.receive(subscriber.want([5, 6], [])))
    subscriber.receive(speaker.receive(subscriber.want([], [6])))
    subscriber.receive(speaker.tell([Item(tube, 1, 0, 1, b"") for tube in (4, 5, 6)]))
    assert [item.tube for item in subscriber.heard] == [5]


def test_who_wants_everything_hears_everything() -> None:
    speaker, subscriber = opened()
    subscriber.receive(speaker.receive(subscriber.want([EVERYTHING], [])))
    subscriber.receive(speaker.tell([Item(tube, 1, 0, 1, b"") for tube in (4, 5, 6)]))
    assert [item.tube for item in subscriber.heard] == [4, 5, 6]
    assert subscriber.tells_of(7)


def test_a_tube_is_told_of_from_the_moment_that_the_other_end_says_so() -> None:
    speaker, subscriber = opened()
    wish = subscriber.want([5], [])
    assert not subscriber.tells_of(5)
    subscriber.receive(speaker.receive(wish))
    assert subscriber.tells_of(5)


def test_any_number_of_tubes_may_be_wanted() -> None:
    speaker, subscriber = opened()
    many = list(range(1, 20_001))
    subscriber.receive(speaker.receive(subscriber.want(many, [])))
    assert speaker.wants == set(many)
    speaker.receive(subscriber.want([], many))
    assert not speaker.wants


@pytest.mark.parametrize("kind", [0, links.WANT, links.ASK, links.WELCOME, links.NEWS, 200])
def test_a_frame_out_of_turn_is_an_error(kind: int) -> None:
    speaker, subscriber = ends()
    with pytest.raises(LinkError):
        speaker.receive(links.frame(kind, b"\0" * 8))
    with pytest.raises(LinkError):
        subscriber.receive(links.frame(kind, b"\0" * 33))


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_waited_on_and_nothing_else(garbage: bytes) -> None:
    for end in (*opened(), *ends()):
        try:
            end.receive(garbage)
        except LinkError:
            continue


def test_names_are_called_otherwise_in_another_cluster() -> None:
    assert tube_hash(KEY, "default") != tube_hash(b"another key", "default")
