"""One random run of a simulated cluster: people at work, everything that can go wrong, then peace, then the reckoning."""

from __future__ import annotations

import random

from memory import Cluster, MemoryStore
from oracle import Oracle, Person, drain
from world import Faults, World

# In seconds of virtual time. Whoever died is noticed after ten; leases that nobody knows are found after two audits.
WORK_FOR = (1.5, 1.5, 1.5, 2.5, 8.0)
CALM_FOR = 15.0
PEACE_FOR = (20.0, 20.0, 20.0, 20.0, 130.0)


def run(
    seed: int,
    front_ends: int = 3,
    people: int = 5,
    records: int = 64,
    store_class: type[MemoryStore] = MemoryStore,
    cluster_class: type[Cluster] = Cluster,
    *,
    harsh: bool = False,
) -> Oracle:
    """Run one schedule; a harsh one has a third of all operations fail, and many deaths. Raises Lie."""
    chance = random.Random(f"schedule {seed}")
    work_for = chance.choice(WORK_FOR)
    peace_for = chance.choice(PEACE_FOR)
    trouble = 0.08 if harsh else chance.choice((0.0, 0.005, 0.02, 0.05))
    faults = Faults(lost=trouble, unanswered=trouble, late=trouble, busy=trouble)
    world = World(seed, faults, records, store_class, cluster_class)
    # In every third run tubes have pages.
    if seed % 3 == 0:
        world.cluster.inline_max, world.cluster.page_max = 1, 2
    oracle = Oracle(world)
    skews = [chance.uniform(-3, 3) for _ in range(front_ends)]
    for skew in skews:
        world.front_end(skew)
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
        while len(everybody) < people:
            alive = [front_end for front_end in world.front_ends if not front_end.loop.dead and not front_end.leaving]
            everybody.append(Person(oracle, chance.choice(alive), random.Random(chance.random()), number))
            number += 1
        if disasters and world.time >= disasters[0]:
            disasters.pop(0)
            strike(world, chance, everybody, harsh=harsh)
    # Peace: nothing goes wrong any more, and everybody goes home.
    world.faults = Faults()
    world.down_until = 0.0
    for front_end in world.front_ends:
        front_end.loop.frozen_until = min(front_end.loop.frozen_until, world.time + 12.0)
    world.run(CALM_FOR)
    for person in everybody:
        if person.asked is not None and person.client.answered():
            person.hear(person.client.take())
            person.asked = None
        if person.asked is not None and not person.client.is_closed and not person.front_end.loop.dead:
            raise oracle.lie(f"no reply to {person.asked[0]} since {person.asked_at:.4f} s")
        person.client.hang_up()
        person.gone()
    world.run(peace_for)
    survivors = [front_end for front_end in world.front_ends if not front_end.loop.dead]
    drain(oracle, survivors[0])
    return oracle


def strike(world: World, chance: random.Random, everybody: list[Person], *, harsh: bool) -> None:
    """Something bad happens."""
    alive = [front_end for front_end in world.front_ends if not front_end.loop.dead and not front_end.leaving]
    victim = chance.choice(alive)
    what = "kill" if harsh else chance.choice(("kill", "freeze", "long freeze", "store", "hang up", "leave"))
    if what == "kill":
        victim.kill()
        world.front_end(chance.uniform(-3, 3))
    elif what == "freeze":
        victim.freeze(chance.uniform(0.1, 3))
    elif what == "long freeze":
        victim.freeze(chance.uniform(5, 25))
    elif what == "store":
        world.down_until = world.time + chance.uniform(0.1, 9)
    elif what == "leave":
        world.front_end(chance.uniform(-3, 3))
        for person in everybody:
            if person.front_end is victim:
                person.client.hang_up()
        victim.close()
        # Then its process ends.
        world.at(world.time + 2.0, victim.kill)
    elif everybody:
        chance.choice(everybody).client.hang_up()
