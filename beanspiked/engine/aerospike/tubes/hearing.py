"""What is done about news of others."""

from beanspiked.engine.aerospike.cluster.links import DELAYED, LOOK, READY, Item
from beanspiked.engine.aerospike.cluster.listener import NewsListener
from beanspiked.engine.aerospike.cluster.membership import Membership
from beanspiked.engine.aerospike.store.keys import DUE_KEY
from beanspiked.engine.aerospike.tubes.agenda import Agenda
from beanspiked.engine.aerospike.tubes.registry import Registry
from beanspiked.engine.aerospike.tubes.takes import Takes
from beanspiked.engine.aerospike.tubes.view import Scout

__all__ = ["Hearing"]


class Hearing(NewsListener):
    """Has what changed looked at where somebody waits for it.

    Args:
        membership: The sessions.
        agenda: What ends a turn.
        registry: The tubes that are known here.
        view: What looks at segments.
        takes: Who waits for jobs.
    """

    def __init__(self, membership: Membership, agenda: Agenda, registry: Registry, view: Scout, takes: Takes) -> None:
        self._membership = membership
        self._agenda = agenda
        self._registry = registry
        self._view = view
        self._takes = takes

    def stop_following(self) -> None:
        """Doubt what is known of all tubes: it grows old."""
        self._view.doubt_all()

    def unfollowed(self, name: str) -> None:
        """Doubt what is known of a tube: it grows old."""
        tube = self._registry.known_tube(name)
        if tube is not None:
            tube.doubt()

    def followed(self, names: list[str]) -> None:
        """Look once more at tubes of which all others tell from now on: what they did until now was not told."""
        tubes = [tube for name in names if (tube := self._registry.known_tube(name)) is not None]
        self._view.look_once_more([tube for tube in tubes if tube.waited_for() and not tube.live])

    def heard_of(self, name: str) -> None:
        """Look at a tube in which something has changed."""
        tube = self._registry.known_tube(name)
        if tube is not None:
            self._view.look_again(tube)

    def heard_item(self, name: str, item: Item) -> None:
        """Take note of jobs that are ready in a segment, or will be, or look at what else has changed."""
        tube = self._registry.known_tube(name)
        if tube is None:
            return
        if item.kind == LOOK:
            self._view.look_again(tube)
        elif item.kind == READY:
            tube.committer_of(item.segment).hear(item.key, item.count)
        elif item.kind == DELAYED:
            tube.committer_of(item.segment).hear_of_delayed(item.key[: DUE_KEY.size])
            tube.expect(item.key)
        else:
            self._view.refresh_segment(tube.committer_of(item.segment))

    def heard_all(self) -> None:
        """Request what is wanted of all that has arrived together."""
        self._agenda.turn_over()

    def look_everywhere(self) -> None:
        """Look at everything that somebody waits for: news were missed."""
        self._view.look_everywhere()

    def met(self) -> None:
        """Read the sessions: there is a front-end that may not be known."""
        self._membership.look_soon()

    def waited_for(self, name: str) -> bool:
        """Tell whether somebody waits for jobs of a tube."""
        tube = self._registry.known_tube(name)
        return tube is not None and tube.waited_for()

    def wants_jobs(self) -> bool:
        """Tell whether a job that becomes ready elsewhere is wanted here, or was lately."""
        return self._takes.wants_jobs()
