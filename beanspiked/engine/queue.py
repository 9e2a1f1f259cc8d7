"""A queue of entries ordered by (key, id), from which any entry can be removed.

Nearly all of a work queue's entries arrive in order: jobs of one priority by id, delays of one length by due time, burials and
deadlines by the clock. So the queue is a linked run of entries that came in order, plus a heap of those that did not; its first entry
is the smaller of the two first ones. In-order traffic costs the same at ten entries and at a million, and the links
live in the entries, so that removal from the middle needs no search and leaves nothing behind.
"""

from heapq import heappop, heappush
from typing import Final

from mypy_extensions import i32, mypyc_attr

__all__ = ["Entry", "Queue"]

NOWHERE: Final = -2
IN_RUN: Final = -1


@mypyc_attr(allow_interpreted_subclasses=True)
class Entry:
    """An entry of a queue; it can stand in one queue at a time.

    Attributes:
        id: Decides between equal keys.
        key: The place in the queue, set by `Queue.push`.
        spot: The queue's own: an index into its heap, or IN_RUN, or NOWHERE.
        prev, next: The queue's own: the neighbours in its run.
    """

    __slots__ = ("id", "key", "next", "prev", "spot")

    def __init__(self, id: int) -> None:  # noqa: A002 - the protocol's own word
        # Micro-optimization: first, so that it takes no space of its own when compiled.
        self.spot: i32 = NOWHERE
        self.id: int = id
        self.key: float = 0.0
        self.prev: Entry | None = None
        self.next: Entry | None = None

    def queued(self) -> bool:
        """Tell whether it stands in a queue."""
        return self.spot != NOWHERE


class Queue:
    """Entries by (key, id), smallest first."""

    __slots__ = ("_head", "_heap", "_run_length", "_tail")

    def __init__(self) -> None:
        self._head: Entry | None = None
        self._tail: Entry | None = None
        self._run_length: int = 0
        self._heap: list[Entry] = []

    def __len__(self) -> int:
        return self._run_length + len(self._heap)

    def push(self, entry: Entry, key: float) -> None:
        """Put an entry, which stands in no queue, in its place."""
        entry.key = key
        tail = self._tail
        if tail is None:
            entry.spot = IN_RUN
            self._head = entry
            self._tail = entry
            self._run_length += 1
        elif key > tail.key or (key == tail.key and entry.id > tail.id):
            entry.spot = IN_RUN
            entry.prev = tail
            tail.next = entry
            self._tail = entry
            self._run_length += 1
        else:
            self._heap.append(entry)
            self._rise(len(self._heap) - 1, entry)

    def first(self) -> Entry | None:
        """Return the smallest entry without removing it."""
        head = self._head
        if not self._heap:
            return head
        top = self._heap[0]
        if head is None or top.key < head.key or (top.key == head.key and top.id < head.id):
            return top
        return head

    def remove(self, entry: Entry) -> None:
        """Take out an entry, which must stand in this queue."""
        place = entry.spot
        entry.spot = NOWHERE
        if place == IN_RUN:
            before = entry.prev
            after = entry.next
            if before is None:
                self._head = after
            else:
                before.next = after
                entry.prev = None
            if after is None:
                self._tail = before
            else:
                after.prev = before
                entry.next = None
            self._run_length -= 1
            return
        assert place >= 0, "the entry stands in no queue"
        heap = self._heap
        last = heap.pop()
        if last is entry:
            return
        if place > 0 and _before(last, heap[(place - 1) >> 1]):
            self._rise(place, last)
        else:
            self._sink(place, last)

    def clear(self) -> None:
        """Unlink every entry."""
        entry = self._head
        while entry is not None:
            after = entry.next
            entry.spot = NOWHERE
            entry.prev = None
            entry.next = None
            entry = after
        for other in self._heap:
            other.spot = NOWHERE
        self._head = None
        self._tail = None
        self._run_length = 0
        self._heap = []

    def entries(self) -> list[Entry]:
        """List all entries, in no particular order."""
        found = list(self._heap)
        entry = self._head
        while entry is not None:
            found.append(entry)
            entry = entry.next
        return found

    def following(self, key: float, id: int, before: Entry | None, most: int, steps: int) -> list[Entry] | None:  # noqa: A002
        """List the first entries behind a place, in order.

        Args:
            key: The place's key.
            id: The place's id.
            before: The entry that stands there, if any does.
            most: How many at most.
            steps: How many entries may be looked at.

        Returns:
            The entries, or None where more would have to be looked at.
        """
        found: list[tuple[float, int, Entry]] = []
        entry = before if before is not None and before.spot == IN_RUN else self._head
        while entry is not None and len(found) < most:
            steps -= 1
            if steps < 0:
                return None
            if entry.key > key or (entry.key == key and entry.id > id):
                found.append((entry.key, entry.id, entry))
            entry = entry.next
        heap = self._heap
        # Places in the heap that are to be looked at, by what stands there: its children come behind it.
        edge: list[tuple[float, int, int]] = [(heap[0].key, heap[0].id, 0)] if heap else []
        left = most
        while edge and left:
            steps -= 1
            if steps < 0:
                return None
            first_key, first_id, place = heappop(edge)
            if first_key > key or (first_key == key and first_id > id):
                found.append((first_key, first_id, heap[place]))
                left -= 1
            for child_place in (2 * place + 1, 2 * place + 2):
                if child_place < len(heap):
                    child = heap[child_place]
                    heappush(edge, (child.key, child.id, child_place))
        found.sort()
        return [item[2] for item in found[:most]]

    def _rise(self, place: int, entry: Entry) -> None:
        heap = self._heap
        while place > 0:
            parent_place = (place - 1) >> 1
            parent = heap[parent_place]
            if not _before(entry, parent):
                break
            heap[place] = parent
            parent.spot = place
            place = parent_place
        heap[place] = entry
        entry.spot = place

    def _sink(self, place: int, entry: Entry) -> None:
        heap = self._heap
        size = len(heap)
        child_place = 2 * place + 1
        while child_place < size:
            child = heap[child_place]
            if child_place + 1 < size and _before(heap[child_place + 1], child):
                child_place += 1
                child = heap[child_place]
            if not _before(child, entry):
                break
            heap[place] = child
            child.spot = place
            place = child_place
            child_place = 2 * place + 1
        heap[place] = entry
        entry.spot = place


def _before(a: Entry, b: Entry) -> bool:
    return a.key < b.key or (a.key == b.key and a.id < b.id)
