"""Which ready jobs of a segment are there for whoever asks next: what it was last seen with and what is being put, less what was asked for.

Others take and put, too, so it may be wrong; that costs an operation that takes less than it was to.
"""

from beanspiked.engine.aerospike.segment.jobs import Put
from beanspiked.engine.aerospike.store.keys import ready_key
from beanspiked.engine.aerospike.store.seam import Head

__all__ = ["Forecast"]


class Forecast:
    """The ready jobs of one segment that nobody here has asked for.

    Attributes:
        expected: How many there are.
    """

    def __init__(self) -> None:
        self.expected: int = 0
        self._head: Head | None = None
        self._asked: int = 0
        self._first_put: bytes | None = None
        self._last_put: bytes | None = None
        self._ready_puts: int = 0

    def update(self, head: Head, puts: list[Put], asked: int) -> None:
        """Begin anew with what was seen, the puts that wait, and how many jobs were asked for and not sent for yet."""
        self._head = head
        self._asked = asked
        self._first_put = None
        self._last_put = None
        self._ready_puts = 0
        self.expected = head.ready - asked
        for put in puts:
            if put.due_ms == 0:
                self.add(put)

    def add(self, put: Put) -> None:
        """A ready job is going to be put."""
        self.expected += 1
        self._ready_puts += 1
        key = ready_key(put.pri, put.put_us, 0)
        if self._first_put is None or key < self._first_put:
            self._first_put = key
        if self._last_put is None or key > self._last_put:
            self._last_put = key

    def ask(self, count: int) -> None:
        """The first jobs were asked for."""
        self._asked += count
        self.expected -= count

    def best(self) -> bytes | None:
        """Return the key of the most urgent job that is expected here, or what is not greater."""
        if self.expected <= 0:
            return None
        best = self._first_put
        head = self._head
        if head is not None and self._asked < head.ready:
            keys = head.first_keys
            key = keys[self._asked] if self._asked < len(keys) else keys[-1]
            if best is None or key < best:
                best = key
        return best

    def askable(self, bound: bytes | None) -> int:
        """Count the expected jobs that surely are more urgent than a bound."""
        if bound is None:
            return self.expected
        count = 0
        head = self._head
        if head is not None and self._asked < head.ready:
            if head.last_key is not None and head.last_key <= bound:
                count = head.ready - self._asked
            else:
                for key in head.first_keys[self._asked :]:
                    if key > bound:
                        return min(count, self.expected)
                    count += 1
                if self._asked + count < head.ready:
                    return min(count, self.expected)
        if self._last_put is not None and self._last_put <= bound:
            count += self._ready_puts
        elif self._first_put is not None and self._first_put <= bound:
            count += 1
        return min(count, self.expected)
