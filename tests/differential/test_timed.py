"""Delays, TTRs, timeouts and pauses of one or two seconds: the table of twins/timed.py, all its scenarios side by side."""

import re
import time

import pytest
from twins.pair import GRACE_S, MismatchError, Pair
from twins.timed import ROUND_S, SCENARIOS, Scenario

pytestmark = [pytest.mark.real, pytest.mark.slow]

# A busy machine may hold up a round so long that it proves nothing: rounds come 1.5 s apart, for times of 1 and 2 s.
LATE_S = 0.4
ATTEMPTS = 5


class Play:
    """One scenario under way: its connections and the ids of its jobs."""

    def __init__(self, pair: Pair, number: int, scenario: Scenario) -> None:
        self.pair = pair
        self.tube = b"t%d" % number
        self.rounds = scenario.rounds
        self.connections = {"A": 2 * number + 1, "B": 2 * number + 2}
        self.jobs: list[int] = []
        for connection in self.connections.values():
            pair.open(connection)
            pair.send(connection, b"use %s\r\nwatch %s\r\nignore default\r\n" % (self.tube, self.tube))
            pair.settle()

    def play(self, number: int) -> None:
        """Send what this round asks for, one command after the other."""
        for line in self.rounds[number] if number < len(self.rounds) else ():
            who, command = line.split(" ", 1)
            connection = self.connections[who]
            if command in {"close", "reset"}:
                self.pair.close(connection, reset=command == "reset")
            elif command == "half":
                self.pair.half_close(connection)
            else:
                self.pair.send(connection, self._render(command))
            for reply in self.pair.settle().get(connection, []):
                if reply.line.startswith(b"INSERTED ") and reply.job_id is not None:
                    self.jobs.append(reply.job_id)

    def wake(self) -> None:
        """Say something on each connection that does not wait: an idle one's TTR is not something beanstalkd always notices."""
        for connection in self.connections.values():
            if not self.pair.pending(connection) and not self.pair.ended(connection):
                self.pair.send(connection, b"")

    def _render(self, command: str) -> bytes:
        line = re.sub(rb"\bT\b", self.tube, command.encode())
        line = re.sub(rb"#(\d)", lambda match: b"%d" % self._job(int(match[1])), line)
        return line.replace(b"/", b"\r\n") + b"\r\n"

    def _job(self, place: int) -> int:
        return self.jobs[place] if place < len(self.jobs) else 999999999


def play_all(pair: Pair) -> bool:
    """Play all scenarios. Return False if the servers differ, but a round was late: then a time may be over for one of them only.

    Raises:
        MismatchError: They differ, and each round was in time.
    """
    pair.restart()
    plays = [Play(pair, number, scenario) for number, scenario in enumerate(SCENARIOS)]
    start = time.monotonic()
    late = 0.0
    for number in range(max(len(play.rounds) for play in plays) + 1):
        begins = start + number * ROUND_S
        time.sleep(max(0.0, begins - time.monotonic()))
        try:
            for play in plays:
                play.wake()
            pair.settle()
            for play in plays:
                play.play(number)
        except MismatchError:
            if max(late, time.monotonic() - GRACE_S - begins) < LATE_S:
                raise
            return False
        late = max(late, time.monotonic() - begins)
    pair.agree(b"stats\r\nlist-tubes\r\n", 2)
    return True


def test_time_passes_alike(pair: Pair) -> None:
    assert any(play_all(pair) for _ in range(ATTEMPTS))
