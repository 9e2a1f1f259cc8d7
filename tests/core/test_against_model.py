"""Random commands of several clients, and time passing: the server answers what a plain model of beanstalkd says."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar, TypeVar

import pytest
from depth import FULL
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from model import Model, ModelJob, State
from simulated import Client, HandJournal, Wire
from world import World

from beanspiked.engine.aerospike.segment.codec import unpack
from beanspiked.engine.aerospike.segment.jobs import job_id
from beanspiked.engine.aerospike.store.keys import job_slot
from beanspiked.engine.contract import Filter
from beanspiked.engine.embedded.engine import EmbeddedEngine
from beanspiked.engine.filters import ANY_STATE
from beanspiked.engine.later import Later

if TYPE_CHECKING:
    from collections.abc import Callable

    from beanspiked.engine.contract import Listing, TubeEngine

Result = TypeVar("Result", bound=Later)

# As the engine numbers them.
STATES: list[State] = ["ready", "delayed", "reserved", "buried"]
TUBES = ["default", "a"]
HOLDERS = ["one", "two"]

tubes = st.sampled_from(TUBES)
holders = st.sampled_from(HOLDERS)
priorities = st.sampled_from([5, 5, 5, 0, 1023, 1024, 4294967295])
delays = st.sampled_from([0, 0, 2, 7])
# So few that most name a job that is there, and jobs meet others of their priority.
ids = st.integers(1, 7)

chosen_states = st.sets(st.sampled_from(ANY_STATE))

NAME_A_JOB = ("reserve-job", "delete", "release", "bury", "touch", "kick-job", "peek", "stats-job")
# By how much a shared store's clock runs ahead with each step, in seconds.
TICK = 0.002


class InstantJournal(HandJournal):
    """Commits at the end of each turn."""

    def flush(self) -> None:
        super().flush()
        sent, self.sent = self.sent, []
        for write in sent:
            write.settle()


class ServerMachine(RuleBasedStateMachine):
    """An embedded engine in memory, behind sessions that never block."""

    journaled: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.wire = Wire()
        if self.journaled:
            self.wire.engine = EmbeddedEngine(self.wire.timers, self.wire.broker, InstantJournal(self.wire))
            self.wire.broker.engine = self.wire.engine
        self.model = Model()
        self.model.referenced = set(TUBES)
        # Keeps the tubes, and asks.
        self.asker = self.connect()
        self.clients = {holder: self.connect() for holder in HOLDERS}

    def model_id(self, job_id: int) -> int:
        return job_id

    def places(self) -> dict[int, int]:
        """Return the ids of jobs by something that a move leaves as it is."""
        return {}

    def follow(self, before: dict[int, int]) -> None:
        """Learn the new ids of jobs that have moved."""

    def connect(self) -> Client:
        client = self.wire.connect()
        client.send(b"".join(b"watch %b\r\n" % tube.encode() for tube in TUBES))
        return client

    def ask(self, client: Client, line: str, body: bytes | None = None) -> bytes:
        data = line.encode() + b"\r\n" + (b"" if body is None else body + b"\r\n")
        reply = client.send(data)
        if not reply and self.journaled:
            # Outcomes come with the flush that ends a turn; their replies leave in the next.
            self.wire.broker.end_turn()
            reply = client.take()
        return reply

    def expected_job(self, word: str, job: ModelJob | None, otherwise: bytes = b"NOT_FOUND\r\n") -> bytes:
        return otherwise if job is None else b"%b %d %d\r\n%b\r\n" % (word.encode(), job.id, len(job.body), job.body)

    @rule(
        holder=holders,
        tube=tubes,
        pri=priorities,
        delay=delays,
        ttr=st.sampled_from([0, 3, 50]),
        body=st.binary(max_size=5),
    )
    def put(self, holder: str, tube: str, pri: int, delay: int, ttr: int, body: bytes) -> None:
        client = self.clients[holder]
        client.send(f"use {tube}\r\n".encode())
        expected = self.model.put(tube, body, pri, delay, ttr)
        assert self.ask(client, f"put {pri} {delay} {ttr} {len(body)}", body) == b"INSERTED %d\r\n" % expected

    @rule(holder=holders, watched=st.sets(tubes, min_size=1))
    def reserve(self, holder: str, watched: set[str]) -> None:
        client = self.clients[holder]
        lines = [f"watch {tube}\r\n" for tube in sorted(watched)] + [
            f"ignore {tube}\r\n" for tube in TUBES if tube not in watched
        ]
        client.send("".join(lines).encode())
        soon = min((job.due_at for job in self.model.jobs if job.holder == holder), default=1e9) - 1 <= self.model.now
        expected = self.expected_job(
            "RESERVED", self.model.take(holder, watched), b"DEADLINE_SOON\r\n" if soon else b"TIMED_OUT\r\n"
        )
        assert self.ask(client, "reserve-with-timeout 0") == expected

    @rule(holder=holders, job_id=ids)
    def reserve_job(self, holder: str, job_id: int) -> None:
        expected = self.expected_job("RESERVED", self.model.take_job(holder, job_id))
        assert self.ask(self.clients[holder], f"reserve-job {job_id}") == expected

    def meant(self, holder: str, job_id: int) -> int:
        """Make half of the ids those of jobs that the client holds."""
        held = [job.id for job in self.model.jobs if job.holder == holder]
        return held[job_id % len(held)] if held and job_id % 2 else job_id

    @rule(holder=holders, job_id=ids)
    def delete(self, holder: str, job_id: int) -> None:
        job_id = self.meant(holder, job_id)
        expected = b"DELETED\r\n" if self.model.delete(job_id, holder) else b"NOT_FOUND\r\n"
        assert self.ask(self.clients[holder], f"delete {job_id}") == expected

    @rule(holder=holders, job_id=ids, pri=priorities, delay=delays)
    def release(self, holder: str, job_id: int, pri: int, delay: int) -> None:
        job_id = self.meant(holder, job_id)
        expected = b"RELEASED\r\n" if self.model.release(holder, job_id, pri, delay) else b"NOT_FOUND\r\n"
        assert self.ask(self.clients[holder], f"release {job_id} {pri} {delay}") == expected

    @rule(holder=holders, job_id=ids, pri=priorities)
    def bury(self, holder: str, job_id: int, pri: int) -> None:
        job_id = self.meant(holder, job_id)
        expected = b"BURIED\r\n" if self.model.bury(holder, job_id, pri) else b"NOT_FOUND\r\n"
        assert self.ask(self.clients[holder], f"bury {job_id} {pri}") == expected

    @rule(holder=holders, job_id=ids)
    def touch(self, holder: str, job_id: int) -> None:
        job_id = self.meant(holder, job_id)
        expected = b"TOUCHED\r\n" if self.model.touch(holder, job_id) else b"NOT_FOUND\r\n"
        assert self.ask(self.clients[holder], f"touch {job_id}") == expected

    @rule(tube=tubes, bound=st.integers(0, 3))
    def kick(self, tube: str, bound: int) -> None:
        self.asker.send(f"use {tube}\r\n".encode())
        assert self.ask(self.asker, f"kick {bound}") == b"KICKED %d\r\n" % len(self.model.kick(tube, bound))

    @rule(job_id=ids)
    def kick_job(self, job_id: int) -> None:
        expected = b"KICKED\r\n" if self.model.kick_job(job_id) else b"NOT_FOUND\r\n"
        assert self.ask(self.asker, f"kick-job {job_id}") == expected

    def done(self, ask: Callable[[TubeEngine], Result]) -> Result:
        """Ask for something that may concern many jobs, and let turns pass until it is done."""
        later = ask(self.wire.engine)
        while not later.done:
            self.wire.broker.end_turn()
            self.wire.broker.on_alarm()
        assert later.error is None
        return later

    @rule(tube=tubes, states=chosen_states, min_pri=st.sampled_from([0, 1024]))
    def clear(self, tube: str, states: set[int], min_pri: int) -> None:
        bulk = self.done(lambda engine: engine.clear(engine.tube(tube), Filter(states, min_pri=min_pri)))
        assert bulk.value == self.model.clear(tube, [STATES[state] for state in sorted(states)], min_pri)

    @rule(tube=tubes, states=chosen_states, min_pri=st.sampled_from([0, 1024]))
    def move(self, tube: str, states: set[int], min_pri: int) -> None:
        target = "a" if tube == "default" else "default"
        before = self.places()
        wanted = Filter(states, min_pri=min_pri)
        bulk = self.done(lambda engine: engine.move(engine.tube(tube), engine.tube(target), wanted))
        self.follow(before)
        moved = self.model.move(tube, target, [STATES[state] for state in sorted(states)], min_pri)
        assert bulk.value == len(moved)

    @rule(tube=tubes, state=st.sampled_from(ANY_STATE), min_pri=st.sampled_from([0, 1024]), limit=st.integers(1, 3))
    def list_jobs(self, tube: str, state: int, min_pri: int, limit: int) -> None:
        found: list[int] = []
        after = ""
        while True:
            ask = partial(self.ask_for_page, tube, state, Filter(min_pri=min_pri), after, limit)
            listing = self.done(ask)
            found += [self.model_id(job.id) for job in listing.jobs]
            after = listing.after
            if not after:
                break
        assert found == [job.id for job in self.model.chosen(tube, [STATES[state]], min_pri)]

    def ask_for_page(
        self, tube: str, state: int, wanted: Filter, after: str, limit: int, engine: TubeEngine
    ) -> Listing:
        return engine.list_jobs(engine.tube(tube), state, wanted, after, limit)

    @rule(tube=tubes, seconds=st.sampled_from([0, 4]))
    def pause(self, tube: str, seconds: int) -> None:
        self.model.pause(tube, seconds)
        assert self.ask(self.asker, f"pause-tube {tube} {seconds}") == b"PAUSED\r\n"

    @rule(seconds=st.sampled_from([0.25, 1, 3.5, 60]))
    def pass_time(self, seconds: float) -> None:
        self.model.advance(seconds)
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self.wire.advance(seconds)

    @rule(holder=holders)
    def leave(self, holder: str) -> None:
        self.model.leave(holder)
        self.clients[holder].hang_up()
        self.clients[holder] = self.connect()

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data())
    def look_at_a_job(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.model.jobs))
        assert self.ask(self.asker, f"peek {job.id}") == self.expected_job("FOUND", job)
        self.compare(self.asker.stats(f"stats-job {job.id}"), self.model.job_stats(job.id) or {})

    @rule(tube=tubes, state=st.sampled_from(["ready", "delayed", "buried"]))
    def look_at_the_next(self, tube: str, state: str) -> None:
        self.asker.send(f"use {tube}\r\n".encode())
        expected = self.expected_job("FOUND", self.model.peek_next(tube, state))  # type: ignore[arg-type]
        assert self.ask(self.asker, f"peek-{state}") == expected

    @invariant()
    def counts_agree(self) -> None:
        for tube in TUBES:
            self.compare(self.asker.stats(f"stats-tube {tube}"), self.model.tube_stats(tube) or {})

    def compare(self, stats: dict[str, str], expected: dict[str, int | float | str]) -> None:
        assert {key: stats[key].strip('"') for key in expected} == {key: str(value) for key, value in expected.items()}


class DurableMachine(ServerMachine):
    """The same, with every change passing a journal."""

    journaled = True


class WorldClient:
    """A client of a front-end of a simulated cluster, which speaks of jobs by the ids that the model gives them."""

    def __init__(self, machine: SharedMachine) -> None:
        self.machine = machine
        self.client = machine.front_end.connect()

    def send(self, data: bytes) -> bytes:
        return b"".join(self.client.ask(line + b"\r\n") for line in data.split(b"\r\n")[:-1])

    def stats(self, what: str) -> dict[str, str]:
        stats = self.client.stats(self.machine.to_store(what))
        if "id" in stats:
            stats["id"] = str(self.machine.model_id(int(stats["id"])))
        return stats

    def hang_up(self) -> None:
        self.client.hang_up()
        self.machine.world.run(TICK)


class SharedMachine(ServerMachine):
    """A front-end of a cluster in memory in which nothing goes wrong.

    Operations take a moment there, so its clock runs ahead of the model's by a little more with every step; burials are told apart
    by the millisecond, and no two delays begin at the same time.
    """

    def __init__(self) -> None:
        RuleBasedStateMachine.__init__(self)
        self.world = World(1, latency=(1e-6, 1e-6))
        self.front_end = self.world.front_end()
        self.world.run(1.0)
        self.model = Model(delays_differ=True)
        self.model.referenced = set(TUBES)
        self.ids: list[int] = []
        self.asker = self.connect()
        self.clients = {holder: self.connect() for holder in HOLDERS}

    def connect(self) -> WorldClient:  # type: ignore[override]
        client = WorldClient(self)
        client.send(b"".join(b"watch %b\r\n" % tube.encode() for tube in TUBES))
        return client

    def done(self, ask: Callable[[TubeEngine], Result]) -> Result:
        asked: list[Result] = []
        self.front_end.inside(lambda: asked.append(ask(self.front_end.engine)))
        (later,) = asked
        assert self.world.run(30, lambda: later.done)
        assert later.error is None
        self.world.run(TICK)
        return later

    def model_id(self, job_id: int) -> int:
        return self.ids.index(job_id) + 1

    def places(self) -> dict[int, int]:
        found: dict[int, int] = {}
        for record in self.world.cluster._segments.values():
            for entries in (*record.queues.values(), *record.leases.values()):
                for key, packed in entries.items():
                    put_us = unpack(packed).put_us
                    assert put_us not in found
                    found[put_us] = job_id(record.number, job_slot(key))
        return found

    def follow(self, before: dict[int, int]) -> None:
        now = self.places()
        moved = {old: now[put_us] for put_us, old in before.items()}
        self.ids = [moved.get(number, number) for number in self.ids]

    def to_store(self, line: str) -> str:
        """Name a job as the store does."""
        words = line.split()
        if words[0] in NAME_A_JOB:
            number = int(words[1])
            words[1] = str(self.ids[number - 1] if number <= len(self.ids) else 2**60 + number)
        return " ".join(words)

    def ask(self, client: WorldClient, line: str, body: bytes | None = None) -> bytes:  # type: ignore[override]
        data = self.to_store(line).encode() + b"\r\n" + (b"" if body is None else body + b"\r\n")
        reply = client.client.ask(data)
        self.world.run(TICK)
        first, end, rest = reply.partition(b"\r\n")
        words = first.split()
        if words[0] == b"INSERTED":
            self.ids.append(int(words[1]))
        if words[0] in (b"INSERTED", b"RESERVED", b"FOUND"):
            words[1] = b"%d" % self.model_id(int(words[1]))
        return b" ".join(words) + end + rest

    def advance(self, seconds: float) -> None:
        self.world.run(seconds + TICK)

    def compare(self, stats: dict[str, str], expected: dict[str, int | float | str]) -> None:
        for left in ("time-left", "pause-time-left"):
            # What is left in whole seconds, of a little less.
            if left in expected and int(stats[left]) == int(expected[left]) - 1:
                stats[left] = str(expected[left])
        super().compare(stats, expected)


SharedMachine.TestCase.settings = settings(max_examples=100 if FULL else 25, stateful_step_count=60)
TestOnASharedStore = pytest.mark.scaled(SharedMachine.TestCase)
ServerMachine.TestCase.settings = settings(max_examples=100 if FULL else 25, stateful_step_count=60)
DurableMachine.TestCase.settings = settings(max_examples=100 if FULL else 25, stateful_step_count=60)
TestInMemory = ServerMachine.TestCase
TestWithAJournal = DurableMachine.TestCase
