"""While the disk is quick, the event loop waits for the journal's writer for a moment, and never longer."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest
from journals import Store, Stores

from beanspiked.engine.embedded.rendezvous import Rendezvous

if TYPE_CHECKING:
    from collections.abc import Iterator

    from beanspiked.engine.later import Later

MANY = 1000


def shown(meeting: Rendezvous, seconds: float) -> int:
    """Let many commits take so long; return for how many of the last hundred the event loop waits."""
    waits = []
    for _ in range(MANY):
        waits.append(meeting.expect())
        meeting.took(seconds)
        meeting.meet()
    return sum(waits[-100:])


@pytest.fixture
def store(stores: Stores) -> Store:
    """Open a journal that syncs every commit, with a disk that has shown that it is quick."""
    stores.fsync_ms = 0
    opened = stores.open()
    assert shown(opened.journal._rendezvous, 0.0) == 100
    return opened


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Make a disk that syncs once the event is set."""
    event = threading.Event()
    sync = os.fdatasync

    def after_the_event(fd: int) -> None:
        event.wait()
        sync(fd)

    monkeypatch.setattr(os, "fdatasync", after_the_event)
    yield event
    event.set()


def put(store: Store) -> Later:
    """Put a job and end the turn."""
    later = store.engine.put(store.engine.tube("default"), store.engine.new_id(), 1, 0, 60, b"x")
    assert later is not None
    store.engine.flush()
    return later


def test_a_change_is_on_disk_at_the_end_of_the_turn(store: Store) -> None:
    # A busy machine may be slow.
    store.journal._rendezvous.quick = store.journal._rendezvous.moment = 10.0
    assert [put(store).done for _ in range(20)] == [True] * 20
    assert store.journal.stats.syncs == 20


def test_the_event_loop_goes_on_while_a_disk_is_stuck(store: Store, stuck: threading.Event) -> None:
    first, second = put(store), put(store)
    assert [first.done, second.done] == [False, False]
    stuck.set()
    store.wait(first)
    store.wait(second)
    assert first.error is second.error is None


def test_what_ends_after_the_moment_is_reported_nevertheless(store: Store, stuck: threading.Event) -> None:
    for _ in range(20):
        later = put(store)
        stuck.set()
        store.wait(later)
        stuck.clear()


def test_for_a_slow_disk_the_event_loop_waits_rarely_and_for_one_that_is_quick_again_always() -> None:
    meeting = Rendezvous()
    assert shown(meeting, 0.0006) < 10
    assert shown(meeting, 0.0001) == 100
    assert shown(meeting, 0.005) < 10
    assert shown(meeting, 0.0001) == 100


def test_what_a_commit_takes_while_nobody_waits_for_it_says_nothing_about_the_disk() -> None:
    meeting = Rendezvous()
    assert shown(meeting, 0.0001) == 100
    for _ in range(MANY):
        meeting.took(1.0)
    assert meeting.expect()


def test_a_writer_that_comes_late_wakes_nobody_too_early() -> None:
    meeting = Rendezvous()
    assert shown(meeting, 0.0001) == 100
    meeting.expect()
    meeting.wait()
    assert not meeting.meet()
    meeting.expect()
    assert meeting.meet()
    meeting.expect()
    assert meeting._finished.locked(), "the next wait would end at once"


def test_changes_that_an_outcome_causes_are_written_too(store: Store) -> None:
    store.journal._rendezvous.quick = store.journal._rendezvous.moment = 10.0
    tube = store.engine.tube("default")
    caused: list[Later | None] = []
    first = store.engine.put(tube, store.engine.new_id(), 1, 0, 60, b"x")
    assert first is not None
    first.then(lambda _: caused.append(store.engine.put(tube, store.engine.new_id(), 1, 0, 60, b"y")))
    store.engine.flush()
    assert [later is not None and later.done for later in caused] == [True]
