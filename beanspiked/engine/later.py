"""An answer that comes later, without a task or a future of an event loop."""

from collections.abc import Callable

from beanspiked.engine.errors import EngineError

__all__ = ["Later"]


class Later:
    """The outcome of one operation that could not be answered at once.

    An engine method that returns `Later | None` has already succeeded when it returns None. Callbacks run once, in the order in which
    they were added, in the thread of the event loop; one that is added after the outcome is known runs at once.

    Attributes:
        done: Whether the outcome is known.
        error: What went wrong, or None.
        value: What came of it where that is known only afterwards: the id of a put, the number of jobs kicked.
    """

    def __init__(self) -> None:
        self.done: bool = False
        self.value: int = 0
        self.error: EngineError | None = None
        self._callbacks: list[Callable[[Later], None]] = []

    def then(self, callback: "Callable[[Later], None]") -> None:
        """Call back with this object when the outcome is known."""
        if self.done:
            callback(self)
        else:
            self._callbacks.append(callback)

    def settle(self, error: EngineError | None = None) -> None:
        """Make the outcome known, once."""
        assert not self.done
        self.done = True
        self.error = error
        callbacks = self._callbacks
        self._callbacks = []
        for callback in callbacks:
            callback(self)
