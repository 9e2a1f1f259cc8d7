"""Reserves many of a tube's jobs at once, for `move` and `clear`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from beanspiked.cli.command import number_of
from beanspiked.client import requests
from beanspiked.client.errors import DeadlineSoon, Refused
from beanspiked.client.requests import Job

if TYPE_CHECKING:
    from beanspiked.client.blocking import Conn
    from beanspiked.client.documents import Stats

__all__ = ["at_once", "take_ready", "todo", "watch_only"]

# How many jobs a command holds at a time, and about how many bytes of them.
MAX_JOBS: Final = 64
MAX_BYTES: Final = 1 << 23


def watch_only(conn: Conn, tube: str) -> None:
    """Reserve from this tube only."""
    conn.ask(requests.watch(tube))
    if tube != "default":
        conn.ask(requests.ignore("default"))


def at_once(conn: Conn) -> int:
    """Return how many jobs a command may hold at a time, by their largest size."""
    return max(1, min(MAX_JOBS, MAX_BYTES // max(1, number_of(conn.ask(requests.stats()), "max-job-size"))))


def todo(told: Stats, state: str, number: int | None) -> int:
    """Return how many jobs of a state a tube has now. A command that takes only these ends although producers go on."""
    there = number_of(told, f"current-jobs-{state}")
    return there if number is None else min(there, number)


def take_ready(conn: Conn, number: int) -> list[Job]:
    """Reserve up to this many ready jobs. Raises Refused."""
    jobs = []
    for outcome in conn.ask_all([requests.reserve_with_timeout(0)] * number):
        if isinstance(outcome, Job):
            jobs.append(outcome)
        elif isinstance(outcome, Refused) and not isinstance(outcome, DeadlineSoon):
            raise outcome
    return jobs
