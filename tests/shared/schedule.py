"""One random run of a simulated cluster. Clients work while everything fails. Then nothing fails any more, and all is checked."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from memory import Cluster, MemoryStore
from operators import MovingOracle, Operator
from oracle import Oracle, Person, drain
from versions import NEXT
from world import Faults, World

from beanspiked.engine.aerospike.segment.codec import FORMATS

if TYPE_CHECKING:
    from world import FrontEnd

    from beanspiked.engine.aerospike.segment.codec import Formats

# In seconds of virtual time. Others notice a dead front-end after ten. Leases that no front-end knows are found after two audits.
WORK_FOR = (1.5, 1.5, 1.5, 2.5, 8.0)
CALM_FOR = 15.0
# The part of the schedules that has links between front-ends.
LINKED = 0.7
PEACE_FOR = (20.0, 20.0, 20.0, 20.0, 130.0)
# With two versions: the time until a new format is written, and the time after that.
AGREED_AFTER = 4.0
MIXED_FOR = 10.0
# How many operators move and clear jobs at a time.
OPERATORS = 2

# The versions of the first front-ends, and those of their replacements.
PLANS: dict[str, tuple[tuple[Formats, ...], tuple[Formats, ...]]] = {
    "as it is": ((FORMATS,), (FORMATS,)),
    "side by side": ((FORMATS, NEXT), (FORMATS, NEXT)),
    "upgrade": ((FORMATS,), (NEXT,)),
    "downgrade": ((NEXT,), (FORMATS,)),
}


def run(
    seed: int,
    front_ends: int = 3,
    people: int = 5,
    records: int = 64,
    store_class: type[MemoryStore] = MemoryStore,
    cluster_class: type[Cluster] = Cluster,
    *,
    harsh: bool = False,
    plan: str = "as it is",
    operators: bool = False,
) -> Oracle:
    """Run one schedule. In a harsh one a third of all operations fail, and many front-ends die. Raises Lie.

    With two versions the front-ends are replaced one after the other, whatever else happens. Operators move and
    clear jobs as well.
    """
    before, after = PLANS[plan]
    mixed = before != after or len(before) > 1
    chance = random.Random(f"schedule {seed}")
    work_for = chance.choice(WORK_FOR)
    peace_for = chance.choice(PEACE_FOR)
    trouble = 0.08 if harsh else chance.choice((0.0, 0.005, 0.02, 0.05))
    faults = Faults(lost=trouble, unanswered=trouble, late=trouble, busy=trouble)
    # On some networks front-ends only reach the store, and on some the way between front-ends fails.
    roads = random.Random(f"links {seed}")
    world = World(seed, faults, records, store_class, cluster_class, links=roads.random() < LINKED)
    for _ in range(roads.randrange(3)):
        world.cut(roads.uniform(0.1, work_for), roads.uniform(0.01, 4.0))
    # In every third run tubes have pages.
    if seed % 3 == 0:
        world.cluster.inline_max, world.cluster.page_max = 1, 2
    oracle = MovingOracle(world) if operators else Oracle(world)
    operating: list[Operator] = []
    skews = [chance.uniform(-3, 3) for _ in range(front_ends)]
    for i, skew in enumerate(skews):
        world.front_end(skew, before[i % len(before)])
    if mixed:
        world.run(AGREED_AFTER)
        work_for = AGREED_AFTER + MIXED_FOR
    replaced = [AGREED_AFTER + MIXED_FOR * (i + 1) / (front_ends + 2) for i in range(front_ends)] if mixed else []
    first = list(world.front_ends)
    everybody = [
        Person(oracle, world.front_ends[number % front_ends], random.Random(chance.random()), number)
        for number in range(people)
    ]
    number = people
    disasters = sorted(chance.uniform(0.1, work_for) for _ in range(6 if harsh else chance.randrange(4)))
    while world.time < work_for:
        world.run(chance.uniform(0.0005, 0.02))
        for person in everybody:
            if not person.done:
                person.act()
        everybody = [person for person in everybody if not person.done]
        operating = [
            operator for operator in operating if not (operator.front_end.loop.dead or operator.front_end.leaving)
        ]
        if operators and len(operating) < OPERATORS:
            alive = [front_end for front_end in world.front_ends if not front_end.loop.dead and not front_end.leaving]
            operating.append(Operator(chance.choice(alive), random.Random(chance.random())))
        for operator in operating:
            operator.act()
        while len(everybody) < people:
            alive = [front_end for front_end in world.front_ends if not front_end.loop.dead and not front_end.leaving]
            everybody.append(Person(oracle, chance.choice(alive), random.Random(chance.random()), number))
            number += 1
        if disasters and world.time >= disasters[0]:
            disasters.pop(0)
            strike(world, chance, everybody, after, harsh=harsh)
        if replaced and world.time >= replaced[0]:
            replaced.pop(0)
            victim = first[len(replaced)]
            if not victim.loop.dead and not victim.leaving:
                leave(world, chance, victim, chance.choice(after))
    # Peace: nothing fails any more, and all clients finish.
    world.faults = Faults()
    world.down_until = 0.0
    for front_end in world.front_ends:
        # One that had only begun lets commands wait for five seconds when it wakes.
        front_end.loop.frozen_until = min(front_end.loop.frozen_until, world.time + CALM_FOR - 5.0)
    if mixed:
        # A front-end that knows the new format gives out the jobs of that format.
        world.front_end(formats=NEXT)
    world.run(CALM_FOR)
    for person in everybody:
        if person.asked is not None and person.client.answered():
            person.hear(person.client.take())
            person.asked = None
        if person.asked is not None and not person.client.is_closed and not person.front_end.loop.dead:
            raise oracle.lie(f"no reply to {person.asked[0]} since {person.asked_at:.4f} s")
        person.client.hang_up()
        person.gone()
    for operator in operating:
        if operator.later is not None and not operator.later.done and not operator.front_end.loop.dead:
            raise oracle.lie("a change of many jobs does not end")
    world.run(peace_for)
    survivors = [front_end for front_end in world.front_ends if not front_end.loop.dead]
    drain(oracle, survivors[-1 if mixed else 0])
    return oracle


def strike(
    world: World, chance: random.Random, everybody: list[Person], after: tuple[Formats, ...], *, harsh: bool
) -> None:
    """Let a random thing fail."""
    alive = [front_end for front_end in world.front_ends if not front_end.loop.dead and not front_end.leaving]
    victim = chance.choice(alive)
    what = "kill" if harsh else chance.choice(("kill", "freeze", "long freeze", "store", "hang up", "leave"))
    if what == "kill":
        victim.kill()
        world.front_end(chance.uniform(-3, 3), after[0] if len(after) == 1 else chance.choice(after))
    elif what == "leave":
        leave(world, chance, victim, after[0] if len(after) == 1 else chance.choice(after))
    elif what != "hang up":
        victim.befall(what, chance)
    elif everybody:
        chance.choice(everybody).client.hang_up()


def leave(world: World, chance: random.Random, victim: FrontEnd, formats: Formats) -> None:
    """Stop a front-end in order, and start another one in its place."""
    world.front_end(chance.uniform(-3, 3), formats)
    victim.leave()
