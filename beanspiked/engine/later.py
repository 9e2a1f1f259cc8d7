"""An answer that comes later, without a task or a future of an event loop."""

import logging
from collections.abc import Callable

from mypy_extensions import mypyc_attr

from beanspiked.engine.errors import EngineError

__all__ = ["Later", "Listener"]

logger = logging.getLogger(__name__)


@mypyc_attr(allow_interpreted_subclasses=True)
class Listener:
    """Who is told of an outcome. To call its method costs compiled code less than to call a function made for one outcome."""

    def settled(self, later: "Later") -> None:
        """The outcome is known."""
        raise NotImplementedError


class Call(Listener):
    """Calls a function with the outcome."""

    def __init__(self, callback: "Callable[[Later], None]") -> None:
        self._callback = callback

    def settled(self, later: "Later") -> None:
        """The outcome is known."""
        self._callback(later)


@mypyc_attr(allow_interpreted_subclasses=True)
class Later:
    """The outcome of one operation that could not be answered at once.

    An engine method that returns `Later | None` has already succeeded when it returns None. Listeners are told once, in the order in
    which they were added, in the thread of the event loop; one that is added after the outcome is known is told at once. What one of them
    raises is logged and concerns nobody else.

    Attributes:
        done: Whether the outcome is known.
        error: What went wrong, or None.
        value: What came of it where that is known only afterwards: the id of a put, the number of jobs kicked.
    """

    def __init__(self) -> None:
        self.done: bool = False
        self.value: int = 0
        self.error: EngineError | None = None
        # Most have one; a list is made for those that have more.
        self._listener: Listener | None = None
        self._others: list[Listener] | None = None

    def then(self, callback: "Callable[[Later], None]") -> None:
        """Call back with this object when the outcome is known."""
        self.tell(Call(callback))

    def tell(self, listener: Listener) -> None:
        """Tell a listener when the outcome is known."""
        if self.done:
            self._tell(listener)
        elif self._listener is None:
            self._listener = listener
        elif self._others is None:
            self._others = [listener]
        else:
            self._others.append(listener)

    def settle(self, error: EngineError | None = None) -> None:
        """Make the outcome known, once."""
        assert not self.done
        self.done = True
        self.error = error
        listener, others = self._listener, self._others
        # They may refer to what refers to this.
        self._listener = self._others = None
        if listener is not None:
            self._tell(listener)
        if others is not None:
            for other in others:
                self._tell(other)

    def _tell(self, listener: Listener) -> None:
        try:
            listener.settled(self)
        except Exception as error:
            logger.error("internal error after a change", exc_info=error)
