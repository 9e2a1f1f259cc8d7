"""The event loop waits a moment for the journal's writer while the disk is quick.

Two threads that work by turns lose less than two that contend for the interpreter; and what arrives meanwhile goes into one commit.
"""

import threading
from typing import Final

__all__ = ["Rendezvous"]

# The event loop waits while commits usually take less than the first, and never longer than the second, in seconds.
QUICK_SECONDS: Final = 0.0005
MOST_SECONDS: Final = 0.001
# While they take longer, it waits for one of so many, to learn when the disk is quick again. Of the others nothing can be learnt: their
# writer contends for the interpreter.
TRIED_EVERY: Final = 16
# The weight of one commit in what is usual.
WEIGHT: Final = 0.2


class Rendezvous:
    """Lets the event loop wait for the writer. At first it seldom does: the disk has to show that it is quick.

    Attributes:
        quick: What commits usually take on a quick disk, at most, in seconds.
        moment: How long the event loop waits, at most, in seconds.
    """

    def __init__(self) -> None:
        self.quick: float = QUICK_SECONDS
        self.moment: float = MOST_SECONDS
        self._usual = 2 * QUICK_SECONDS
        self._passed = 0
        self._timed = False
        self._awaited = False
        self._finished = threading.Lock()
        self._finished.acquire()

    def expect(self) -> bool:
        """Decide whether the event loop waits for a commit. Ask this before the writer gets it, while the writer has nothing to do."""
        self._passed += 1
        if self._usual >= self.quick and self._passed % TRIED_EVERY:
            return False
        # The writer may have come when an earlier wait was over.
        self._finished.acquire(blocking=False)
        self._timed = self._awaited = True
        return True

    def wait(self) -> None:
        """Wait for the writer. Afterwards ask whether it has finished: if it has not, `meet` will tell it that nobody waits."""
        self._finished.acquire(timeout=self.moment)
        self._awaited = False

    def took(self, seconds: float) -> None:
        """Learn how long a commit took."""
        if self._timed:
            self._timed = False
            self._usual += WEIGHT * (seconds - self._usual)

    def meet(self) -> bool:
        """Let the event loop go on, from the writer that has counted its batch as done; tell whether it waits."""
        awaited = self._awaited
        if awaited and self._finished.locked():
            self._finished.release()
        return awaited
