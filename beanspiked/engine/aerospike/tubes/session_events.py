"""What becomes of the tubes when a session begins or ends, and with each second of it."""

from collections.abc import Sequence

from beanspiked.engine.aerospike.cluster.listener import SessionListener
from beanspiked.engine.aerospike.cluster.membership import Membership
from beanspiked.engine.aerospike.cluster.news import News
from beanspiked.engine.aerospike.tubes.agenda import Agenda
from beanspiked.engine.aerospike.tubes.held import Holdings
from beanspiked.engine.aerospike.tubes.leftovers import Leftovers
from beanspiked.engine.aerospike.tubes.lifecycle import Lifecycle
from beanspiked.engine.aerospike.tubes.pair_ends import PairEnds
from beanspiked.engine.aerospike.tubes.puts import Puts
from beanspiked.engine.aerospike.tubes.registry import Registry
from beanspiked.engine.aerospike.tubes.room import Room
from beanspiked.engine.aerospike.tubes.takes import Takes
from beanspiked.engine.aerospike.tubes.view import Scout
from beanspiked.engine.errors import JobGone
from beanspiked.engine.timers import Clock

__all__ = ["SessionEvents"]


class SessionEvents(SessionListener):
    """Hands on what a session tells.

    Args:
        clock: This process's time.
        membership: The sessions.
        agenda: What is in flight.
        news: This front-end's news.
        registry: The tubes that are known here.
        room: Whether the store has room.
        view: What looks at segments.
        lifecycle: What lets go of tubes.
        holdings: The jobs that are held here.
        takes: Who waits for jobs.
        puts: What puts jobs.
        leftovers: What finishes what others have left behind.
        pair_ends: What finishes moves of jobs.
    """

    def __init__(
        self,
        clock: Clock,
        membership: Membership,
        agenda: Agenda,
        news: News,
        registry: Registry,
        room: Room,
        view: Scout,
        lifecycle: Lifecycle,
        holdings: Holdings,
        takes: Takes,
        puts: Puts,
        leftovers: Leftovers,
        pair_ends: PairEnds,
    ) -> None:
        self._clock = clock
        self._membership = membership
        self._agenda = agenda
        self._news = news
        self._registry = registry
        self._room = room
        self._view = view
        self._lifecycle = lifecycle
        self._holdings = holdings
        self._takes = takes
        self._puts = puts
        self._leftovers = leftovers
        self._pair_ends = pair_ends

    def session_began(self) -> None:
        """Go on with what waited for a session."""
        self._view.doubt_all()
        for tube in self._registry.known_tubes():
            for committer in list(tube.committers.values()):
                if committer.session.over:
                    committer.abandon(JobGone("the session is over"))
            if tube.arriving:
                self._puts.place(tube)
            if tube.waited_for():
                self._view.refresh(tube)
        # Without a session no news were read, whoever waited.
        self._news.wake()
        self._agenda.turn_over()

    def session_over(self) -> None:
        """Give up every held job; what was not sent goes with the next session."""
        self._news.end()
        self._puts.forget_numbers()
        self._view.doubt_all()
        for tube in self._registry.known_tubes():
            tube.forget_segments(JobGone("the session is over"))
            self._takes.advance_seeks(tube, anew=True)
        self._agenda.turn_over()

    def tick(self) -> None:
        """Fail what waits for a store that does not answer, and look at tubes that are waited for."""
        now = self._clock.now()
        for committer in list(self._agenda.running):
            committer.expire(now)
        self._takes.expire(now)
        for committer in list(self._agenda.suspended):
            committer.resume(now)
        self._holdings.expire(now)
        if self._membership.session.over:
            self._puts.expire()
        else:
            self._room.tick(now)
            self._view.recheck(now)
            self._pair_ends.go_on()
        self._news.tick()
        self._agenda.turn_over()

    def others_changed(self) -> None:
        """Look again: the news of new front-ends were not heard until now, nor are the last news of those that have ended."""
        self._view.doubt_all()
        self._view.look_everywhere()

    def became_ready(self, tube: str, segment: int) -> None:
        """Look at a tube with new ready jobs if somebody waits for them, and tell the others."""
        self._view.segment_changed(tube, segment)

    async def finish_moves(self, number: int, leases: Sequence[int]) -> None:
        """Finish the moves of jobs that a segment is in, if their makers are dead. Raises StoreError."""
        await self._pair_ends.finish_for(number, leases)

    async def sweep(self) -> None:
        """Let go of tubes that nobody here uses, and of segments that are finished."""
        await self._lifecycle.sweep()

    async def look_through(self) -> None:
        """Finish a part of what others have left behind. Raises StoreError."""
        await self._leftovers.look_through()
