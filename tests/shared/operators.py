"""Operators that move, clear, kick and list matching jobs while clients work, and an oracle that expects jobs to get new ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oracle import TUBES, Known, Oracle

from beanspiked.engine.aerospike.segment.codec import FORMATS
from beanspiked.engine.contract import Filter
from beanspiked.engine.filters import ANY_STATE

if TYPE_CHECKING:
    from random import Random

    from world import FrontEnd

    from beanspiked.engine.contract import Bulk, Listing
    from beanspiked.engine.later import Later

# Jobs with one of these in their bodies may be cleared.
CLEARED = (b".0", b".1", b".2")


class MovingOracle(Oracle):
    """Knows jobs by their bodies, since a job that moves gets another id."""

    def new(self, body: bytes, tube: bytes) -> Known:
        known = super().new(body, tube)
        known.doubted = any(text in body for text in CLEARED)
        return known

    def reserved(self, job_id: int, body: bytes) -> Known:
        known = self.by_body.get(body)
        if known is not None:
            known.job_id = job_id
            self.by_id[job_id] = known
        return super().reserved(job_id, body)

    def inserted(self, known: Known, job_id: int) -> None:
        if known.job_id:
            # The job has moved, and was reserved, before the client read the reply.
            known.acknowledged = True
            self.by_id[job_id] = known
        else:
            super().inserted(known, job_id)

    def settled(self) -> None:
        """Check, when nothing is on its way, that each job is in one place at most."""
        super().settled()
        bodies: set[bytes] = set()
        for record in self.world.cluster._segments.values():
            # An attach that arrives late may leave an empty one.
            if any(lease < 0 and held for lease, held in record.leases.items()):
                raise self.lie(f"jobs are still on the move in segment {record.number}")
            for entries in (*record.queues.values(), *record.leases.values()):
                for packed in entries.values():
                    # Empty if the body has a record of its own.
                    found = FORMATS.unpack(packed).body
                    if found in bodies:
                        raise self.lie(f"{found!r} is there twice")
                    if found in self.by_body:
                        bodies.add(found)


class Operator:
    """An operator who asks one front-end for changes of many jobs.

    Attributes:
        later: The outcome of the last request, while it is not known.
    """

    def __init__(self, front_end: FrontEnd, chance: Random) -> None:
        self.front_end = front_end
        self.chance = chance
        self.later: Bulk | Listing | Later | None = None

    def act(self) -> None:
        """Ask for a change, unless the last one is still going on."""
        if self.later is None or self.later.done:
            self.front_end.inside(self._ask)

    def _ask(self) -> None:
        engine, chance = self.front_end.engine, self.chance
        source, target = (name.decode() for name in chance.sample(TUBES, 2))
        tube = engine.tube(source)
        states = chance.sample(ANY_STATE, chance.randrange(1, 5))
        draw = chance.random()
        if draw < 0.6:
            moving = engine.move(tube, engine.tube(target), Filter(states, min_pri=chance.choice((0, 0, 1))))
            if chance.random() < 0.1:
                moving.stop()
            self.later = moving
        elif draw < 0.75:
            self.later = engine.clear(tube, Filter(text=chance.choice(CLEARED)))
        elif draw < 0.9:
            self.later = engine.list_jobs(tube, chance.choice(states), Filter(), limit=chance.randrange(1, 20))
        else:
            self.later = engine.kick_jobs(tube, Filter())
