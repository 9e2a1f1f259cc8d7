"""Where the event loop waits a moment for the journal's writer, while the disk is quick.

Two threads that work by turns lose less than two that contend for the interpreter; and what arrives meanwhile goes into one commit.
"""

import threading
from typing import Final

__all__ = ["Rendezvous"]

# The event loop waits while commits usually take less than the first, and never longer than the second, in seconds.
QUICK_SECONDS: Final = 0.0005
MOST_SECONDS: Final = 0.001
# The weight of one commit in what is usual.
WEIGHT: Final = 0.1


class Rendezvous:
    """One waits for the other, for a moment. At first nobody does: the disk has to show that it is quick.

    Attributes:
        quick: What commits usually take on a quick disk, at most, in seconds.
        moment: How long the event loop waits, at most, in seconds.
    """

    def __init__(self) -> None:
        self.quick: float = QUICK_SECONDS
        self.moment: float = MOST_SECONDS
        self._usual = 1.0
        self._awaited = False
        self._finished = threading.Lock()
        self._finished.acquire()

    def took(self, seconds: float) -> None:
        """Learn how long a commit took."""
        self._usual += WEIGHT * (seconds - self._usual)

    def is_quick(self) -> bool:
        """Tell whether to wait for the next commit."""
        return self._usual < self.quick

    def expect(self) -> None:
        """Announce that the event loop is going to wait, before the writer gets anything to do."""
        # The writer may have come when an earlier wait was over.
        self._finished.acquire(blocking=False)
        self._awaited = True

    def wait(self) -> None:
        """Wait for the writer. Afterwards ask whether it has finished: if it has not, `meet` will tell it that nobody waits."""
        self._finished.acquire(timeout=self.moment)
        self._awaited = False

    def meet(self) -> bool:
        """Let the event loop go on, from the writer that has counted its batch as done; tell whether it waits."""
        awaited = self._awaited
        if awaited and self._finished.locked():
            self._finished.release()
        return awaited
