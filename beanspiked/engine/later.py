"""An answer that comes later, without a task or a future of an event loop."""

import logging
from collections.abc import Callable

from mypy_extensions import mypyc_attr

from beanspiked.engine.errors import EngineError

__all__ = ["Later"]

logger = logging.getLogger(__name__)


@mypyc_attr(allow_interpreted_subclasses=True)
class Later:
    """The outcome of one operation that could not be answered at once.

    An engine method that returns `Later | None` has already succeeded when it returns None. Callbacks run once, in the order in which
    they were added, in the thread of the event loop; one that is added after the outcome is known runs at once. What one of them raises is
    logged and concerns nobody else.

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
        self._callback: Callable[[Later], None] | None = None
        self._others: list[Callable[[Later], None]] | None = None

    def then(self, callback: "Callable[[Later], None]") -> None:
        """Call back with this object when the outcome is known."""
        if self.done:
            self._call(callback)
        elif self._callback is None:
            self._callback = callback
        elif self._others is None:
            self._others = [callback]
        else:
            self._others.append(callback)

    def settle(self, error: EngineError | None = None) -> None:
        """Make the outcome known, once."""
        assert not self.done
        self.done = True
        self.error = error
        callback, others = self._callback, self._others
        # They may refer to what refers to this.
        self._callback = self._others = None
        if callback is not None:
            self._call(callback)
        if others is not None:
            for other in others:
                self._call(other)

    def _call(self, callback: "Callable[[Later], None]") -> None:
        try:
            callback(self)
        except Exception as error:
            logger.error("internal error after a change", exc_info=error)
