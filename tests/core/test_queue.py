"""The queue of entries, against a sorted list."""

import random

import pytest
from depth import FULL
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from beanspiked.engine.queue import Entry, Queue


class QueueMachine(RuleBasedStateMachine):
    """Pushes and removes in any order; the smallest entry is always first."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = Queue()
        self.entries: list[Entry] = []
        self.next_id = 0

    @rule(key=st.integers(0, 5))
    def push(self, key: int) -> None:
        self.next_id += 1
        entry = Entry(self.next_id)
        self.queue.push(entry, float(key))
        self.entries.append(entry)

    @precondition(lambda self: self.entries)
    @rule(data=st.data(), key=st.integers(0, 5))
    def push_again(self, data: st.DataObject, key: int) -> None:
        entry = data.draw(st.sampled_from(self.entries))
        self.queue.remove(entry)
        self.queue.push(entry, float(key))

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.entries))
        self.queue.remove(entry)
        self.entries.remove(entry)
        assert not entry.queued()

    @precondition(lambda self: self.entries)
    @rule()
    def pop(self) -> None:
        first = self.queue.first()
        assert first is not None
        self.queue.remove(first)
        self.entries.remove(first)

    @rule(data=st.data(), most=st.integers(1, 5))
    def list_what_follows(self, data: st.DataObject, most: int) -> None:
        in_order = sorted(self.entries, key=lambda entry: (entry.key, entry.id))
        before = data.draw(st.sampled_from([None, *self.entries]))
        key, number = (-1.0, 0) if before is None else (before.key, before.id)
        rest = [entry for entry in in_order if (entry.key, entry.id) > (key, number)]
        assert self.queue.following(key, number, before, most, 2 * len(self.entries)) == rest[:most]
        # The place says it as well when what stood there is gone.
        assert self.queue.following(key, number, None, most, 2 * len(self.entries)) == rest[:most]

    @invariant()
    def agrees(self) -> None:
        expected = min(self.entries, key=lambda entry: (entry.key, entry.id), default=None)
        assert self.queue.first() is expected
        assert len(self.queue) == len(self.entries)
        assert {id(entry) for entry in self.queue.entries()} == {id(entry) for entry in self.entries}


def test_what_follows_is_not_told_when_too_much_stands_before_it() -> None:
    queue = Queue()
    for number in range(10):
        queue.push(Entry(number), 0.0)
    assert queue.following(0.0, 6, None, most=3, steps=9) is None
    assert queue.following(0.0, 6, None, most=3, steps=10) is not None


QueueMachine.TestCase.settings = settings(max_examples=100 if FULL else 30, stateful_step_count=40)
TestQueue = QueueMachine.TestCase


def test_everything_comes_out_in_order() -> None:
    chooser = random.Random(1)
    queue = Queue()
    for number in range(3000):
        queue.push(Entry(number), float(chooser.randrange(50)))
    found = []
    while (first := queue.first()) is not None:
        queue.remove(first)
        found.append((first.key, first.id))
    assert found == sorted(found)
    assert len(found) == 3000


def test_removing_what_is_not_queued_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        Queue().remove(Entry(1))


def test_cleared_entries_can_be_queued_again() -> None:
    queue = Queue()
    entries = [Entry(number) for number in (3, 1, 2)]
    for entry in entries:
        queue.push(entry, 0.0)
    queue.clear()
    assert (len(queue), queue.first()) == (0, None)
    for entry in entries:
        queue.push(entry, 0.0)
    assert queue.first() is entries[1]


def test_what_is_left_comes_out_in_order_after_many_were_taken_from_the_middle() -> None:
    chooser = random.Random(2)
    queue = Queue()
    # Falling keys: all but the first stand in the heap.
    entries = [Entry(number) for number in range(2000)]
    for entry in entries:
        queue.push(entry, float(chooser.randrange(1000) - 1000 * entry.id))
    chooser.shuffle(entries)
    for entry in entries[:1500]:
        queue.remove(entry)
    found = []
    while (first := queue.first()) is not None:
        queue.remove(first)
        found.append(first)
    assert found == sorted(entries[1500:], key=lambda entry: entry.key)


def test_an_entry_that_was_taken_from_behind_another_can_be_the_first_of_a_run() -> None:
    queue = Queue()
    first, second, third = Entry(1), Entry(2), Entry(3)
    for entry in (first, second):
        queue.push(entry, 0.0)
    queue.remove(second)
    queue.remove(first)
    queue.push(second, 0.0)
    queue.push(third, 0.0)
    queue.remove(second)
    assert (queue.first(), len(queue)) == (third, 1)


def test_cleared_entries_stand_nowhere_and_hold_on_to_nobody() -> None:
    queue = Queue()
    # The last one goes into the heap.
    entries = [Entry(1), Entry(2), Entry(3), Entry(0)]
    for entry in entries:
        queue.push(entry, 0.0)
    queue.clear()
    assert [entry for entry in entries if entry.queued() or entry.prev is not None or entry.next is not None] == []
