"""Delays, TTRs, timeouts and pauses of one or two seconds: the table of twins/timed.py, all its scenarios side by side."""

import re
import time

import pytest
from twins.pair import Pair
from twins.timed import ROUND_S, SCENARIOS, Scenario

pytestmark = [pytest.mark.real, pytest.mark.slow]


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


def test_time_passes_alike(pair: Pair) -> None:
    pair.restart()
    plays = [Play(pair, number, scenario) for number, scenario in enumerate(SCENARIOS)]
    start = time.monotonic()
    for number in range(max(len(play.rounds) for play in plays) + 1):
        time.sleep(max(0.0, start + number * ROUND_S - time.monotonic()))
        for play in plays:
            play.wake()
        pair.settle()
        for play in plays:
            play.play(number)
    pair.agree(b"stats\r\nlist-tubes\r\n", 2)
