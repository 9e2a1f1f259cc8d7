"""The tubes that one connection uses and watches."""

from typing import Final

from beanspiked.engine.contract import Tube
from beanspiked.engine.memory import FOR_CLIENTS
from beanspiked.engine.timers import SLICE, Timed
from beanspiked.server.broker import Broker

__all__ = ["TubeChoice"]

DEFAULT: Final = "default"


class TubeChoice(Timed):
    """The tube into which a connection puts, and those from which it reserves. `watch` and `ignore` cost the same for few and many tubes.

    Attributes:
        used: The tube for puts.
        watched: The tubes for reserves, in the order in which `list-tubes-watched` names them.
    """

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker.timers.new_id())
        default = broker.engine.tube(DEFAULT)
        default.using += 1
        default.watching += 1
        self.used: Tube = default
        self.watched: list[Tube] = [default]
        self._broker = broker
        self._places: dict[Tube, int] = {default: 0}

    def _tube(self, name: str) -> Tube | None:
        """Find or make a tube; return None if there is no memory for another one."""
        engine = self._broker.engine
        return engine.tube(name) if engine.find_tube(name) is not None or FOR_CLIENTS.stays_free() else None

    def use(self, name: str) -> bool:
        """Use another tube; return False if there is no memory for it."""
        tube = self._tube(name)
        if tube is None:
            return False
        tube.using += 1
        before = self.used
        self.used = tube
        before.using -= 1
        self._broker.engine.forget(before)
        return True

    def watch(self, name: str) -> bool:
        """Watch one more tube; return False if there is no memory for it."""
        tube = self._tube(name)
        if tube is None:
            return False
        if tube not in self._places:
            self._places[tube] = len(self.watched)
            self.watched.append(tube)
            tube.watching += 1
        return True

    def ignore(self, name: str) -> bool:
        """Stop watching a tube; return False for the last one, which must stay."""
        tube = self._broker.engine.find_tube(name)
        if tube is None or tube not in self._places:
            return True
        if len(self.watched) == 1:
            return False
        place = self._places.pop(tube)
        last = self.watched.pop()
        if last is not tube:
            # As in ms.c, the last tube takes its place.
            self.watched[place] = last
            self._places[last] = place
        self._unwatch(tube)
        return True

    def _unwatch(self, tube: Tube) -> None:
        tube.watching -= 1
        self._broker.engine.forget(tube)

    def leave(self) -> None:
        """Leave all tubes, in slices."""
        self._broker.leaving += 1
        # As in conn.c's connclose and ms.c's ms_clear, the first tube goes first, then the last. The list is a new one, since a request
        # to a shared store that is still on its way has the old one.
        self.watched = [*self.watched[1:], self.watched[0]]
        self.on_time(0.0)

    def on_time(self, now: float) -> None:  # noqa: ARG002 - it leaves a slice whenever it is called
        """Leave a slice of the tubes and drop the references to them, so that the end does not free all at once."""
        for _ in range(min(SLICE, len(self.watched))):
            tube = self.watched.pop()
            del self._places[tube]
            self._unwatch(tube)
        if self.watched:
            self._broker.timers.schedule(self, self._broker.now())
        else:
            self.used.using -= 1
            self._broker.engine.forget(self.used)
            self._broker.left()
