"""What is done to the servers, at moments that a seed decides."""

from __future__ import annotations

import asyncio
import random
import signal
from typing import TYPE_CHECKING

from processes import until
from record import Outage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cluster import Cluster, Node
    from fronts import FrontEnd
    from record import Record

FRONT_KILLED = "front-end killed"
FRONT_FROZEN = "front-end frozen"
NODE_KILLED = "node killed"
NODE_FROZEN = "node frozen"
NODE_RESTARTED = "node restarted"
KINDS = (FRONT_KILLED, FRONT_FROZEN, NODE_KILLED, NODE_FROZEN, NODE_RESTARTED)

# Longer than anything is out of order, in seconds.
RECOVERS_WITHIN = 120.0


class Faults:
    """Does so much of everything, spread over a time; it takes longer where the cluster needs longer to be whole again.

    Args:
        record: Where to note what is done.
        cluster: The nodes. Two copies survive the loss of one, so one node is hurt at a time, and the next when all copies are there.
        fronts: The front-ends. Any number of them may be lost; one is spared so that something goes on.
        seconds: The time.
        count: How many faults of each kind.
        seed: Decides what happens when.
        kinds: Which kinds of faults.
        longest_freeze: Of a node, in seconds.
    """

    def __init__(
        self,
        record: Record,
        cluster: Cluster,
        fronts: list[FrontEnd],
        seconds: float,
        count: int,
        seed: str,
        kinds: tuple[str, ...],
        longest_freeze: float,
    ) -> None:
        self._record = record
        self._cluster = cluster
        self._fronts = fronts
        self._seconds = seconds
        self._seed = seed
        self._longest_freeze = longest_freeze
        self._well = list(fronts)
        self._on_fronts = [kind for kind in (FRONT_KILLED, FRONT_FROZEN) if kind in kinds] * count
        self._on_nodes = [kind for kind in (NODE_KILLED, NODE_FROZEN, NODE_RESTARTED) if kind in kinds] * count

    async def run(self) -> None:
        """Do it all; when this returns everything runs again."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hurt_fronts(random.Random(f"{self._seed} front-ends"), group))
            group.create_task(self._hurt_nodes(random.Random(f"{self._seed} nodes")))

    def _note(self, kind: str, whom: str, *more: object) -> None:
        self._record.faults[kind] += 1
        self._record.say(f"{kind}:", whom, *more)

    async def _wait_for_turn(self, chance: random.Random, index: int, count: int) -> None:
        gap = self._seconds / count
        await asyncio.sleep(max(0.0, (index + chance.random()) * gap - self._record.now()))

    # --- front-ends

    async def _hurt_fronts(self, chance: random.Random, group: asyncio.TaskGroup) -> None:
        what: dict[str, Callable[[FrontEnd, float], Awaitable[None]]] = {
            FRONT_KILLED: self._kill_front,
            FRONT_FROZEN: self._freeze_front,
        }
        kinds = list(self._on_fronts)
        chance.shuffle(kinds)
        for index, kind in enumerate(kinds):
            await self._wait_for_turn(chance, index, len(kinds))
            await until(self._enough_are_well, RECOVERS_WITHIN)
            front = chance.choice(self._well)
            self._well.remove(front)
            seconds = chance.uniform(1, 20)
            if kind == FRONT_KILLED:
                seconds = chance.choice((0.0, chance.uniform(0.5, 14)))
            group.create_task(self._hurt_front(what[kind], front, seconds))

    async def _enough_are_well(self) -> bool:
        return len(self._well) >= 2

    async def _hurt_front(
        self, what: Callable[[FrontEnd, float], Awaitable[None]], front: FrontEnd, seconds: float
    ) -> None:
        await what(front, seconds)
        # Clients find it again before the next thing happens to it.
        await asyncio.sleep(1.0)
        self._well.append(front)

    async def _kill_front(self, front: FrontEnd, seconds: float) -> None:
        self._note(FRONT_KILLED, front.name, f"for {seconds:.1f} s")
        outage = Outage(front.number, "killed", self._record.now())
        self._record.outages.append(outage)
        await front.end(signal.SIGKILL)
        await asyncio.sleep(seconds)
        front.start()
        await front.until_it_serves()
        outage.ended = self._record.now()
        self._record.log(front.name, "serves again")

    async def _freeze_front(self, front: FrontEnd, seconds: float) -> None:
        self._note(FRONT_FROZEN, front.name, f"for {seconds:.1f} s")
        outage = Outage(front.number, "frozen", self._record.now())
        self._record.outages.append(outage)
        front.freeze()
        await asyncio.sleep(seconds)
        front.thaw()
        outage.ended = self._record.now()
        self._record.log(front.name, "goes on")

    # --- nodes

    async def _hurt_nodes(self, chance: random.Random) -> None:
        what: dict[str, Callable[[Node, random.Random], Awaitable[None]]] = {
            NODE_KILLED: self._kill_node,
            NODE_FROZEN: self._freeze_node,
            NODE_RESTARTED: self._restart_node,
        }
        kinds = list(self._on_nodes)
        chance.shuffle(kinds)
        for index, kind in enumerate(kinds):
            await self._wait_for_turn(chance, index, len(kinds))
            await self._cluster.until_whole()
            await asyncio.sleep(chance.uniform(0, 1))
            await what[kind](chance.choice(self._cluster.nodes), chance)
            hurt = self._record.now()
            await asyncio.sleep(1.0)
            await self._cluster.until_whole()
            self._record.log(f"the cluster is whole after {self._record.now() - hurt:.1f} s")

    async def _kill_node(self, node: Node, chance: random.Random) -> None:
        seconds = chance.uniform(0, 5)
        self._note(NODE_KILLED, node.name, f"for {seconds:.1f} s")
        await node.end(signal.SIGKILL)
        await asyncio.sleep(seconds)
        node.start()
        self._record.log(node.name, "starts")

    async def _freeze_node(self, node: Node, chance: random.Random) -> None:
        seconds = chance.uniform(0.3, self._longest_freeze)
        self._note(NODE_FROZEN, node.name, f"for {seconds:.1f} s")
        node.freeze()
        await asyncio.sleep(seconds)
        node.thaw()
        self._record.log(node.name, "goes on")

    async def _restart_node(self, node: Node, chance: random.Random) -> None:
        seconds = chance.uniform(0, 3)
        self._note(NODE_RESTARTED, node.name, f"after {seconds:.1f} s")
        code = await node.end(signal.SIGTERM)
        if code != 0:
            self._record.say(node.name, "ended with", code)
        await asyncio.sleep(seconds)
        node.start()
        self._record.log(node.name, "starts")
