"""The model against beanstalkd itself, job by job, with no time passing but what it is told to skip."""

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model import STATES, Model
from twins.replies import Reply
from twins.side import Side

if TYPE_CHECKING:
    from collections.abc import Iterator

TUBES = ["default", "a", "b"]
HOLDERS = {"one": 1, "two": 2}

VERBS = [
    "put",
    "put",
    "put",
    "take",
    "take",
    "take_job",
    "delete",
    "release",
    "bury",
    "kick",
    "kick_job",
    "touch",
    "pause",
    "leave",
]

actions = st.tuples(
    st.sampled_from(VERBS),
    st.sampled_from(TUBES),
    st.sampled_from(sorted(HOLDERS)),
    st.integers(0, 6),
    st.sampled_from([0, 1, 1023, 1024]),
    st.sampled_from([0, 0, 20000, 50000]),
)
Action = tuple[str, str, str, int, int, int]


@pytest.fixture(scope="module")
def side(reference: str) -> "Iterator[Side]":
    server = Side([reference])
    yield server
    server.stop()


class Both:
    """One model and one beanstalkd, told the same things."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.model = Model(referenced=set(TUBES))
        for number in HOLDERS.values():
            side.open(number)
            self._say(number, b"watch a\r\nwatch b\r\n", 2)
        self.model.last_id = self._say(1, b"put 0 0 100000 0\r\n\r\n", 1)[0].job_id or 0
        self._say(1, b"delete %d\r\n" % self.model.last_id, 1)
        # Deletes and pauses of earlier examples stay in the counters of `default`, and nowhere else: a and b end with their connections.
        self.before = self._stats(b"stats-tube default")

    def _say(self, number: int, data: bytes, count: int) -> list[Reply]:
        wire = self.side.wires[number]
        wire.send(data)
        while len(wire.fresh) < count:
            self.side.drain(1)
            assert not wire.ended
        replies, wire.fresh = wire.fresh[:count], wire.fresh[count:]
        return replies

    def _stats(self, command: bytes) -> dict[str, str]:
        body = self._say(1, command + b"\r\n", 1)[0].body
        return dict(line.split(": ") for line in body.decode()[4:].splitlines()) if body else {}

    def act(self, action: Action) -> None:
        """Do one thing to both and compare the answers."""
        what, tube, holder, place, pri, delay = action
        number, model, name = HOLDERS[holder], self.model, tube.encode()
        # What only a holder may do is mostly tried on what it holds.
        held = sorted(
            job.id for job in model.jobs if job.holder == holder and what in {"release", "bury", "touch"} and place < 5
        )
        ids = held or sorted(job.id for job in model.jobs)
        job_id = ids[-1 - place % len(ids)] if ids else 0
        line: bytes
        expected: bytes
        if what == "put":
            self._say(number, b"use %s\r\n" % name, 1)
            expected = b"INSERTED %d" % model.put(tube, b"", pri, delay, 100000)
            line = b"put %d %d 100000 0\r\n" % (pri, delay)
        elif what in {"take", "take_job"}:
            job = model.take(holder, TUBES) if what == "take" else model.take_job(holder, job_id)
            line = b"reserve-with-timeout 0" if what == "take" else b"reserve-job %d" % job_id
            expected = b"RESERVED %d 0" % job.id if job else b"TIMED_OUT" if what == "take" else b"NOT_FOUND"
        elif what == "kick":
            self._say(number, b"use %s\r\n" % name, 1)
            line, expected = b"kick %d" % place, b"KICKED %d" % len(model.kick(tube, place))
        elif what == "pause":
            line, expected = (
                b"pause-tube %s %d" % (name, delay),
                b"PAUSED" if model.pause(tube, delay) else b"NOT_FOUND",
            )
        elif what == "leave":
            model.leave(holder)
            self.side.wires[number].sock.close()
            self.side.open(number)
            line, expected = b"watch a\r\nwatch b", b"WATCHING 3"
            self._say(number, b"watch a\r\n", 1)
            line = b"watch b"
            self.side.recount = True
            self.side.settle()
        else:
            done, word, line = self._by_id(what, holder, job_id, pri, delay)
            expected = word if done else b"NOT_FOUND"
        assert self._say(number, line + b"\r\n", 1)[0].line == expected

    def _by_id(self, what: str, holder: str, job_id: int, pri: int, delay: int) -> tuple[bool, bytes, bytes]:
        model = self.model
        if what == "delete":
            return model.delete(job_id, holder), b"DELETED", b"delete %d" % job_id
        if what == "release":
            return model.release(holder, job_id, pri, delay), b"RELEASED", b"release %d %d %d" % (job_id, pri, delay)
        if what == "bury":
            return model.bury(holder, job_id, pri), b"BURIED", b"bury %d %d" % (job_id, pri)
        if what == "kick_job":
            return model.kick_job(job_id), b"KICKED", b"kick-job %d" % job_id
        return model.touch(holder, job_id), b"TOUCHED", b"touch %d" % job_id

    def compare(self) -> None:
        """Compare all that the model knows with what beanstalkd tells."""
        for job in self.model.jobs:
            told, known = self._stats(b"stats-job %d" % job.id), self.model.job_stats(job.id) or {}
            for key in set(known) - {"time-left", "age"}:
                assert told[key] == str(known[key]), (key, job)
        for tube in TUBES:
            told, known = self._stats(b"stats-tube %s" % tube.encode()), self.model.tube_stats(tube) or {}
            for key in set(known) - {"pause-time-left"}:
                earlier = (
                    int(self.before[key])
                    if tube == "default" and key in {"total-jobs", "cmd-delete", "cmd-pause-tube"}
                    else 0
                )
                assert told[key] == (known[key] if key == "name" else str(int(known[key]) + earlier)), (key, tube)
            self._say(1, b"use %s\r\n" % tube.encode(), 1)
            for state in STATES:
                if state != "reserved":
                    first = self.model.peek_next(tube, state)
                    reply = self._say(1, b"peek-%s\r\n" % state.encode(), 1)[0]
                    assert reply.line == (b"FOUND %d 0" % first.id if first else b"NOT_FOUND")

    def clean(self) -> None:
        """Leave the server empty."""
        for wire in self.side.wires.values():
            wire.sock.close()
            wire.gone = True
        self.side.recount = True
        self.side.settle()
        self.side.wires = {}
        ids = [job.id for job in self.model.jobs]
        self.side.ask(b"".join(b"delete %d\r\n" % job_id for job_id in ids) + b"pause-tube default 0\r\n", len(ids) + 1)


@pytest.mark.real
@pytest.mark.slow
@settings(max_examples=80, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(script=st.lists(actions, min_size=20, max_size=60))
def test_the_model_is_beanstalkd(side: Side, script: list[Action]) -> None:
    both = Both(side)
    try:
        for action in script:
            both.act(action)
        both.compare()
    finally:
        both.clean()


def test_time_in_the_model() -> None:
    model = Model()
    late, soon, held = model.put("a", b"", delay=5), model.put("a", b"", delay=2), model.put("a", b"", ttr=3)
    assert model.take("me", ["a"]) is model.peek(held)
    assert model.advance(1.5) == []
    assert (model.job_stats(soon) or {})["time-left"] == 0
    assert model.touch("me", held)
    assert model.advance(3.5) == [soon, held, late]
    assert (model.job_stats(held) or {})["timeouts"] == 1
    assert not model.release("me", held, 0, 0)
    assert not model.bury("you", held, 0)


def test_pauses_and_tubes_in_the_model() -> None:
    model = Model()
    assert not model.pause("a", 5)
    job_id = model.put("a", b"")
    assert model.pause("a", 5)
    assert model.take("me", ["a"]) is None
    assert (model.tube_stats("a") or {})["pause-time-left"] == 5
    model.advance(5)
    assert model.take("me", ["a"]) is not None
    assert not model.delete(job_id, "you")
    assert model.delete(job_id, "me")
    assert model.tube_stats("a") is None
    assert model.tube_stats("default") is not None
