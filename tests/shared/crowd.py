"""One random run of a simulated cluster: a crowd of clients shares many tubes. Then nothing fails, and the store tells what is true.

An oracle that knows the wire alone must understand each reply. Here nobody does, so clients may do anything at any time: send commands
before they have replies, watch, ignore and pause tubes while they wait, read nothing, or send no more. In the end what the front-ends
believe is compared with the store's records.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from crowd_checks import check
from world import Faults, World

from beanspiked.server.gate import RESERVING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from world import Client, FrontEnd

# All times are in seconds of virtual time.
WORK_FOR = (1.0, 2.0, 4.0)
# The longest time between two turns of the crowd.
TURNS = (0.05, 0.2)
LATENCIES = ((0.0001, 0.0008), (0.0001, 0.0008), (0.001, 0.02), (0.003, 0.05))
TROUBLE = (0.0, 0.01, 0.03, 0.08)
LINKED = 0.8
# The part of the runs in which tubes have pages.
PAGED = 0.3
# The part of the clients that put jobs. The others mostly reserve some, so that often more clients wait than there are jobs.
PUTTING = (0.1, 0.3, 0.6)
# Others notice a dead front-end after ten, and one that was frozen wakes after five.
CALM_FOR = 15.0
WAKES_AFTER = 5.0
# More reserves than a client gets jobs for.
MANY = 100
LONG_BODY = b"y" * 3000


class Member:
    """One client, which does random things.

    Attributes:
        client: Its connection.
        done: Whether it does nothing more. It may have hung up, or only send no more.
    """

    def __init__(self, client: Client, tubes: list[bytes], chance: random.Random, *, puts: bool) -> None:
        self.client = client
        self.done = False
        self._tubes = tubes
        self._chance = chance
        self._held: list[int] = []
        self._acts = (
            (25 if puts else 3, self._put),
            (3 if puts else 25, self._reserve),
            (5, self._poll),
            (15, self._give_back),
            (3, self._watch),
            (2, self._ignore),
            (2, self._pause),
            (2, self._kick),
            (3, self._send_no_more),
            (4, self._hang_up),
            (2, self._ask_for_figures),
            (2, self._read_or_not),
            (10, self._rest),
        )
        self._weights = [weight for weight, _ in self._acts]
        for tube in chance.sample(tubes, chance.randint(1, min(len(tubes), chance.choice((1, 3, 40))))):
            client.post(b"watch %b\r\n" % tube)
        if chance.random() < 0.8:
            client.post(b"ignore default\r\n")

    def act(self) -> None:
        """Read what came, and do something."""
        if self.client.is_closed:
            self.done = True
            return
        while self.client.received and self.client.answered():
            reply = self.client.take()
            if reply.startswith(b"RESERVED"):
                self._held.append(int(reply.split()[1]))
        ((_, act),) = self._chance.choices(self._acts, self._weights)
        act()

    def _tube(self) -> bytes:
        return self._chance.choice(self._tubes)

    def _put(self) -> None:
        for _ in range(self._chance.choice((1, 1, 1, 2, 5))):
            body = self._chance.choice((b"x", b"x", LONG_BODY))
            pri, delay, ttr = (
                self._chance.randrange(3),
                self._chance.choice((0, 0, 0, 1, 2)),
                self._chance.choice((1, 3, 60)),
            )
            self.client.post(b"use %b\r\nput %d %d %d %d\r\n%b\r\n" % (self._tube(), pri, delay, ttr, len(body), body))

    def _reserve(self) -> None:
        self.client.post(b"reserve\r\n" * self._chance.choice((1, 1, 1, 2, 5, 20)))

    def _poll(self) -> None:
        self.client.post(b"reserve-with-timeout %d\r\n" % self._chance.choice((0, 0, 1, 3)))

    def _give_back(self) -> None:
        if self._held:
            job_id = self._held.pop(self._chance.randrange(len(self._held)))
            commands = (
                b"delete %d\r\n",
                b"delete %d\r\n",
                b"release %d 1 0\r\n",
                b"release %d 0 1\r\n",
                b"bury %d 1\r\n",
            )
            self.client.post(self._chance.choice(commands) % job_id)

    def _watch(self) -> None:
        self.client.post(b"watch %b\r\n" % self._tube())

    def _ignore(self) -> None:
        self.client.post(b"ignore %b\r\n" % self._tube())

    def _pause(self) -> None:
        self.client.post(b"pause-tube %b %d\r\n" % (self._tube(), self._chance.choice((0, 1, 2, 3))))

    def _kick(self) -> None:
        if self._held and self._chance.random() < 0.3:
            self.client.post(b"kick-job %d\r\n" % self._chance.choice(self._held))
        else:
            self.client.post(b"use %b\r\nkick 3\r\n" % self._tube())

    def _send_no_more(self) -> None:
        self.client.half_close()
        self.done = True

    def _hang_up(self) -> None:
        self.client.hang_up()
        self.done = True

    def _ask_for_figures(self) -> None:
        asked = b"".join(b"stats-tube %b\r\n" % self._tube() for _ in range(self._chance.choice((1, 3, 20))))
        self.client.post(asked + self._chance.choice((b"", b"use t0\r\n", b"list-tubes\r\n", b"reserve\r\n")))

    def _read_or_not(self) -> None:
        if self.client.flow._out.choked:
            read_on(self.client)
        else:
            self.client.front_end.inside(self.client.flow.choke)

    def _rest(self) -> None:
        pass


def read_on(client: Client) -> None:
    """Let a client read again that did not."""

    def unchoke() -> None:
        client.flow.unchoke()
        client.front_end.broker.end_turn()

    client.front_end.inside(unchoke)


class Crowd:
    """A world, its tubes, and the clients that share them. All is drawn from the seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = chance = random.Random(f"crowd {seed}")
        trouble = chance.choice(TROUBLE)
        self.world = World(
            seed,
            Faults(lost=trouble, unanswered=trouble, late=trouble, busy=trouble),
            records=256,
            latency=chance.choice(LATENCIES),
            links=chance.random() < LINKED,
        )
        if chance.random() < PAGED:
            self.world.cluster.inline_max, self.world.cluster.page_max = 1, 2
        self.tubes = [b"t%d" % number for number in range(chance.choice((2, 4, 8, 40)))]
        for _ in range(chance.randint(1, 3)):
            self._front_end()
        self._putting = chance.choice(PUTTING)
        self._size = chance.choice((3, 6, 10))
        self._members: list[Member] = []

    def alive(self) -> list[FrontEnd]:
        """Return the front-ends that go on serving."""
        return [front_end for front_end in self.world.front_ends if not front_end.loop.dead and not front_end.leaving]

    def clients(self) -> Iterator[Client]:
        """Yield all connections that are open."""
        for front_end in self.alive():
            yield from (client for client in front_end.clients if not client.is_closed)

    def waiting(self) -> list[Client]:
        """Return the clients that wait for a job."""
        return [client for client in self.clients() if client.flow.gate.why == RESERVING]

    def _front_end(self) -> None:
        made = self.world.front_end(self.chance.uniform(-2, 2))
        made.broker.linger_from = self.chance.choice((1, 1, 2, 3, 32))

    # --- work

    def work(self) -> None:
        """Let the crowd work while everything fails."""
        chance, world = self.chance, self.world
        if chance.random() < 0.5:
            # Each front-end knows of the others by then.
            world.run(4.0)
        begun, end = world.time, world.time + chance.choice(WORK_FOR)
        disasters = sorted(chance.uniform(begun, end) for _ in range(chance.choice((0, 0, 1, 2, 4))))
        for _ in range(chance.choice((0, 0, 1, 2))):
            world.cut(chance.uniform(begun, end), chance.uniform(0.01, 4.0))
        longest = chance.choice(TURNS)
        while world.time < end:
            self._gather()
            world.run(chance.uniform(0.0001, longest))
            if disasters and world.time >= disasters[0]:
                disasters.pop(0)
                self._strike()
            for member in self._members:
                member.act()

    def _gather(self) -> None:
        """Replace those who are done."""
        self._members = [member for member in self._members if not (member.done or member.client.is_closed)]
        while len(self._members) < self._size:
            client = self.chance.choice(self.alive()).connect()
            puts = self.chance.random() < self._putting
            self._members.append(Member(client, self.tubes, self.chance, puts=puts))

    def _strike(self) -> None:
        """Let a random thing fail."""
        chance, world = self.chance, self.world
        victim = chance.choice(self.alive())
        what = chance.choice(("kill", "freeze", "long freeze", "store", "leave", "leave", "cut"))
        if what == "kill":
            victim.kill()
            self._front_end()
        elif what == "cut":
            world.cut(world.time, chance.uniform(0.1, 5))
        elif what == "leave":
            self._front_end()
            victim.leave()
        else:
            victim.befall(what, chance)

    def calm(self) -> None:
        """End all failures, and let everybody read on. In half of the runs everybody wants more jobs than there are."""
        world = self.world
        if self.chance.random() < 0.5:
            self._gather()
            for member in self._members:
                member.client.post(b"reserve\r\n" * MANY)
        world.faults = Faults()
        world.down_until = 0.0
        for front_end in world.front_ends:
            front_end.loop.frozen_until = min(front_end.loop.frozen_until, world.time + WAKES_AFTER)
        for client in self.clients():
            if client.flow._out.choked:
                read_on(client)
        world.run(CALM_FOR)


def run(seed: int) -> Crowd:
    """Run one crowd, and check all. Raises AssertionError."""
    crowd = Crowd(seed)
    crowd.work()
    crowd.calm()
    check(crowd)
    return crowd
