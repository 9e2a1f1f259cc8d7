"""The library for programs without an event loop."""

from __future__ import annotations

import asyncio
import inspect
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import beanspiked
from beanspiked import blocking
from beanspiked.library.metrics import NoMetrics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stores import Stores


@pytest.fixture
def conn(stores: Stores) -> Iterator[blocking.Conn]:
    with blocking.Conn(stores.connect()) as conn:
        yield conn


def test_a_jobs_usual_life(conn: blocking.Conn, stores: Stores) -> None:
    tube = conn.use(stores.tube)
    job_id = tube.put(b"hello", ttr=30, metadata="mine", born=5.0)
    assert stores.tube in conn.tubes()
    assert tube.find("mine") == [job_id]
    job = tube.reserve(5)
    assert job is not None
    assert (job.id, job.body, job.ttr, job.born, job.metadata, job.held) == (job_id, b"hello", 30, 5.0, "mine", True)
    job.touch()
    job.update(b"changed")
    job.release(count_retry=True, failed=True, priority=7)
    job = tube.reserve(5)
    assert job is not None
    assert (job.body, job.retries, job.failed, job.priority) == (b"changed", 1, True, 7)
    assert 0 < job.time_left <= 30
    job.bury("why")
    buried = tube.peek_buried()
    assert buried is not None
    assert (buried.reason, tube.stats().buried) == ("why", 1)
    tube.kick_job(job_id)
    ready = tube.peek_ready()
    assert ready is not None
    assert (ready.id, tube.peek_delayed(), tube.kick(5)) == (job_id, None, 0)
    [job] = tube.reserve_many(5, 1)
    assert job.delete() is True
    assert job.delete() is False
    assert (tube.peek(job_id), conn.peek(job_id), tube.reserve(0)) == (None, None, None)
    with pytest.raises(beanspiked.JobLost):
        job.touch()
    tube.pause(0)
    assert tube.delete(tube.put(b"")) is True
    conn.delete_tube(stores.tube)


def test_a_job_is_kept_alive_while_the_program_blocks(conn: blocking.Conn, stores: Stores) -> None:
    tube = conn.use(stores.tube)
    tube.put(b"", ttr=0.2)
    job = tube.reserve(5)
    assert job is not None
    with job.keep_alive():
        time.sleep(0.5)
    assert job.held
    with pytest.raises(beanspiked.JobLost), job.keep_alive():
        conn.delete_tube(stores.tube)


def test_a_block_in_which_its_connection_is_closed_ends_as_it_would_have(stores: Stores) -> None:
    def block(error: Exception | None) -> None:
        conn = blocking.Conn(stores.connect())
        conn.use(stores.tube).put(b"", ttr=60)
        job = conn.use(stores.tube).reserve(5)
        assert job is not None
        with job.keep_alive():
            conn.close()
            if error is not None:
                raise error

    with pytest.raises(beanspiked.JobLost):
        block(None)
    with pytest.raises(ValueError, match="a fault"):
        block(ValueError("a fault"))


@pytest.mark.slow
def test_threads_may_share_a_connection(conn: blocking.Conn, stores: Stores) -> None:
    tube = conn.use(stores.tube)
    got: list[bytes] = []

    def work() -> None:
        while (job := tube.reserve(1)) is not None:
            got.append(job.body)
            job.delete()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(40):
        tube.put(b"%d" % number, ttr=60)
    for thread in threads:
        thread.join()
    assert sorted(map(int, got)) == list(range(40))


def test_a_closed_connection_says_so(stores: Stores) -> None:
    conn = blocking.Conn(stores.connect())
    tube = conn.use(stores.tube)
    conn.close()
    conn.close()
    with pytest.raises(beanspiked.ConnClosed):
        tube.put(b"")


def test_a_program_ends_with_what_it_left_open(stores: Stores) -> None:
    script = """
import os, sys
from forking import connect
import beanspiked
from beanspiked import blocking

class Late:
    def __init__(self, job):
        self.job = job

    def __del__(self, ConnClosed=beanspiked.ConnClosed, write=os.write):
        try:
            self.job.delete()
        except ConnClosed as error:
            write(1, str(error).encode())

conn = blocking.Conn(connect(sys.argv[1], client_id="me"))
tube = conn.use(sys.argv[2])
tube.put(b"x", ttr=60)
job = tube.reserve(5)
kept = job.keep_alive()
kept.__enter__()
# It is destroyed when other threads stand still.
late = Late(job)
"""
    shared = Path(__file__).parents[1] / "shared"
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(shared)!r})\n{script}",
        stores.url,
        stores.tube,
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    assert ended.stdout == "me: the program ends"
    assert "Exception ignored" not in ended.stderr


def test_a_call_in_the_thread_of_its_own_event_loop_is_refused() -> None:
    told: list[Exception] = []

    class Metrics(NoMetrics):
        def count(self, event: str, tube: str, number: int) -> None:  # noqa: ARG002 - it counts nothing
            try:
                conn.use("t").put(b"x")
            except RuntimeError as error:
                told.append(error)

    with blocking.connect("memory:", metrics=Metrics()) as conn:
        conn.use("t").put(b"x")
    assert "in the thread of its own event loop" in str(told[0])


def test_a_store_that_cannot_be_used_leaves_no_thread(tmp_path: object) -> None:
    before = threading.active_count()
    with pytest.raises(beanspiked.StoreUnusable):
        blocking.connect(f"sqlite:{tmp_path}/no/such/directory")
    assert threading.active_count() == before


def test_a_store_is_left_when_the_call_that_opened_it_was_interrupted(tmp_path: Path) -> None:
    class Interrupted(beanspiked.Conn):
        async def open(self) -> beanspiked.Conn:
            await super().open()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            return await asyncio.Future()

    directory = str(tmp_path / "jobs")
    with pytest.raises(KeyboardInterrupt):
        blocking.Conn(Interrupted(directory))
    with blocking.connect(f"sqlite:{directory}") as conn:
        assert conn.tubes()


@pytest.mark.parametrize(
    ("waiting", "asynchronous"),
    [(blocking.Tube, beanspiked.Tube), (blocking.Job, beanspiked.Job), (blocking.Conn, beanspiked.Conn)],
)
def test_every_call_is_there_with_the_same_arguments(waiting: type, asynchronous: type) -> None:
    for name, method in inspect.getmembers(asynchronous):
        # What cannot be called from another thread, or is done when it is made.
        if name.startswith("_") or name in ("when_lost", "open", "before_close"):
            continue
        twin = getattr(waiting, name)
        if callable(method):
            assert list(inspect.signature(twin).parameters) == list(inspect.signature(method).parameters), name
