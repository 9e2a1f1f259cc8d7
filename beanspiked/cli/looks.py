"""Reads and prints jobs, for `peek` and `jobs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from beanspiked.cli.terminal import body_fields, shown, shown_body
from beanspiked.client import requests

if TYPE_CHECKING:
    from beanspiked.client.blocking import Conn
    from beanspiked.client.documents import Stats
    from beanspiked.client.requests import Job

__all__ = ["PEEKS", "as_fields", "described", "next_of", "print_job"]

PEEKS: Final = {
    "ready": requests.peek_ready,
    "delayed": requests.peek_delayed,
    "buried": requests.peek_buried,
}


def next_of(conn: Conn, tube: str, states: list[str]) -> list[tuple[Job, Stats]]:
    """Return the next job of each state, with its stats."""
    conn.ask(requests.use(tube))
    found = []
    for state in states:
        job = conn.ask(PEEKS[state]())
        if job is not None and (told := described(conn, job)) is not None:
            found.append((job, told))
    return found


def described(conn: Conn, job: Job) -> Stats | None:
    """Return a job's stats; None if the job is gone by now."""
    return conn.ask(requests.stats_job(job.id))


def as_fields(job: Job, told: Stats) -> dict[str, object]:
    """Return a job for JSON."""
    return {**told, "size": len(job.body), **body_fields(job.body)}


def print_job(job: Job, told: Stats) -> None:
    """Print a job for people: its stats, an empty line, its body."""
    for key, value in told.items():
        print(f"{key}: {shown(value)}")
    print(f"size: {len(job.body)}\n")
    print(shown_body(job.body))
