"""What goes wrong around a job leaves it in somebody's hands, and every call comes to an end."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from memory import Cluster
from stores import SimulatedConn, reserved

import beanspiked
from beanspiked import blocking

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stores import Stores

    from beanspiked import Conn, Job


def slow(conn: SimulatedConn, wanted: str) -> asyncio.Event:
    """Let one kind of operation take until the event is set."""
    go_on = asyncio.Event()

    async def transport(name: str, operation: Callable[[], Any]) -> Any:
        if name == wanted:
            await go_on.wait()
        return operation()

    conn.transport = transport
    return go_on


def simulated(check: Callable[[SimulatedConn], Any], **options: Any) -> None:
    async def connected() -> None:
        async with SimulatedConn(Cluster(lambda: int(time.time() * 1000)), **options) as conn:
            await asyncio.wait_for(check(conn), 20)

    asyncio.run(connected())


# --- changes that meet


@pytest.mark.parametrize("change", ["delete", "release", "bury", "update"])
def test_a_change_that_meets_the_end_of_its_tube_comes_after_it(stores: Stores, change: str) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(b"x", ttr=600)
        job = await reserved(tube)
        calls = {"delete": job.delete, "release": job.release, "bury": job.bury, "update": lambda: job.update(b"y")}
        both = asyncio.gather(conn.delete_tube(stores.tube), calls[change](), return_exceptions=True)
        _, outcome = await asyncio.wait_for(both, 10)
        assert outcome in (None, True, False) or isinstance(outcome, beanspiked.JobLost)
        stats = await tube.stats()
        assert min(stats.jobs, stats.ready, stats.reserved, stats.buried) >= 0
        if outcome is not None and outcome is not True:
            assert (stats.jobs, await tube.reserve(0)) == (0, None)

    stores.run(check)


def test_a_touch_that_meets_an_update_is_no_loss() -> None:
    async def check(conn: SimulatedConn) -> None:
        tube = conn.use("testtube")
        await tube.put(b"x", ttr=0.4)
        job = await reserved(tube)
        async with job.keep_alive():
            go_on = slow(conn, "apply")
            updating = asyncio.create_task(job.update(b"y"))
            # The touch at half of the time to run falls into it.
            await asyncio.sleep(0.25)
            assert job.held
            go_on.set()
            await updating
            await asyncio.sleep(0.6)
        assert job.held

    simulated(check)


def test_a_job_that_is_given_back_while_it_changes_goes_back_if_it_is_still_here() -> None:
    async def check(conn: SimulatedConn) -> None:
        tube = conn.use("testtube")
        await tube.put(b"x")
        job = await reserved(tube)
        go_on = slow(conn, "apply")
        updating = asyncio.create_task(job.update(b"y"))
        await asyncio.sleep(0.01)
        updating.cancel()
        job.give_back()
        go_on.set()
        assert (await reserved(tube)).body == b"y"

    simulated(check)


def test_arguments_that_cannot_be_leave_the_job_held(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(b"x")
        job = await reserved(tube)
        with pytest.raises(TypeError, match="priority"):
            await job.release(priority=1.5)  # type: ignore[arg-type]
        assert job.held
        assert await job.delete()

    stores.run(check)


def test_what_is_no_text_is_a_type_error_and_the_job_stays_held(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(b"x")
        job = await reserved(tube)
        wrong: Any
        for wrong in (5, b"bytes", ["list"]):
            with pytest.raises(TypeError, match="store"):
                beanspiked.connect(wrong)
            with pytest.raises(TypeError, match="name"):
                conn.use(wrong)
            with pytest.raises(TypeError, match="name"):
                await conn.delete_tube(wrong)
            with pytest.raises(TypeError, match="metadata"):
                await tube.put(b"y", metadata=wrong)
            with pytest.raises(TypeError, match="metadata"):
                await tube.find(wrong)
            with pytest.raises(TypeError, match="reason"):
                await job.bury(wrong)
        assert job.held
        assert (await tube.stats()).jobs == 1
        assert await job.delete()

    stores.run(check)


def test_what_is_no_whole_number_is_a_type_error_and_the_tube_works_on(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        for body in (b"buried", b"ready"):
            await tube.put(body)
        await (await reserved(tube)).bury()
        wrong: Any
        for wrong in (1.5, "1", None):
            for call in (tube.peek, tube.delete, tube.kick_job):
                with pytest.raises(TypeError, match=f"job_id: a whole number, not {wrong!r}"):
                    await call(wrong)
            with pytest.raises(TypeError, match=f"number: a whole number, not {wrong!r}"):
                await tube.reserve_many(wrong)
            with pytest.raises(TypeError, match=f"number: a whole number, not {wrong!r}"):
                await tube.kick(wrong)
        assert await tube.kick(2) == 1
        assert {(await reserved(tube)).body for _ in range(2)} == {b"buried", b"ready"}

    stores.run(check)


def test_a_priority_is_shown_as_a_number(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(b"x", priority=True)
        info = await tube.peek_ready()
        assert info is not None
        assert repr(info.priority) == "1"
        assert await tube.delete(info.id)

    stores.run(check)


def test_a_job_that_somebody_else_deleted_is_no_longer_there_also_for_who_keeps_it_alive(stores: Stores) -> None:
    if not stores.shared:
        pytest.skip("the store belongs to one process")

    async def check() -> None:
        async with stores.connect() as one, stores.connect() as other:
            tube = one.use(stores.tube)
            await tube.put(b"x", ttr=60)
            job = await reserved(tube)
            async with job.keep_alive():
                await other.delete_tube(stores.tube)
                assert await job.delete() is False

    asyncio.run(check())


# --- closing


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["create", "apply", "write_body", "directory", "wipe"])
def test_closing_leaves_no_call_waiting(operation: str) -> None:
    async def check(conn: SimulatedConn) -> None:
        tube = conn.use("testtube")
        await tube.put(b"x", ttr=600)
        job = await reserved(tube)
        go_on = slow(conn, operation)
        # Later than any call has to be answered; a store does not take longer either.
        asyncio.get_running_loop().call_later(3, go_on.set)
        large = os.urandom(5000)
        calls: list[Any] = [
            conn.use("new").put(b""),
            tube.put(large),
            tube.reserve(),
            tube.stats(),
            tube.kick(1),
            job.update(large),
            conn.delete_tube("testtube"),
        ]
        tasks = [asyncio.create_task(call) for call in calls]
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(conn.close())
        _, waiting = await asyncio.wait(tasks, timeout=15)
        assert not waiting
        for task in tasks:
            assert task.exception() is None or isinstance(task.exception(), beanspiked.BeanspikeError)
        closing.cancel()

    simulated(check)


def test_closing_twice_at_once_closes_once(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        async with beanspiked.Worker(conn.use(stores.tube), lambda body, job: asyncio.sleep(0)):  # noqa: ARG005
            await asyncio.sleep(0.01)
            await asyncio.wait_for(asyncio.gather(conn.close(), conn.close()), 10)

    stores.run(check)


@pytest.mark.parametrize("what", ["worker", "conn"])
def test_a_handler_may_close_what_it_works_for(stores: Stores, what: str) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(b"x", ttr=60)

        async def handle(body: bytes, job: Job) -> None:  # noqa: ARG001
            await (worker.close() if what == "worker" else conn.close())

        worker = beanspiked.Worker(tube, handle)
        await asyncio.wait_for(worker.run(), 10)

    stores.run(check)


# --- what programs hand in


def test_metrics_that_raise_harm_nobody(stores: Stores) -> None:
    class Broken:
        def count(self, *_: object) -> None:
            raise ZeroDivisionError

        def timing(self, *_: object) -> None:
            raise ZeroDivisionError

    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(b"x", ttr=0.05)
        job = await reserved(tube)
        again = await reserved(tube)
        assert not job.held
        await again.touch()
        assert await again.delete()

    stores.run(check, metrics=Broken())


def test_a_callback_that_raises_keeps_nobody_from_learning_of_a_loss(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(b"", ttr=60)
        await tube.put(b"", ttr=60)
        told = asyncio.Event()
        first, second = await reserved(tube), await reserved(tube)
        first.when_lost(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
        second.when_lost(told.set)
        await conn.delete_tube(stores.tube)
        await asyncio.wait_for(told.wait(), 5)
        late = asyncio.Event()
        first.when_lost(late.set)
        await asyncio.wait_for(late.wait(), 5)

    stores.run(check)


def test_a_job_deleted_by_its_id_is_lost_to_who_works_on_it(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        job_id = await tube.put(b"x", ttr=60)
        job = await reserved(tube)
        asyncio.get_running_loop().call_later(0.01, lambda: tasks.append(asyncio.create_task(conn.delete(job_id))))
        tasks: list[asyncio.Task[bool]] = []
        with pytest.raises(beanspiked.JobLost):
            async with job.keep_alive():
                await asyncio.sleep(30)
        assert await tasks[0] is True

    stores.run(check)


def test_a_connection_is_refused_in_another_event_loop() -> None:
    loop = asyncio.new_event_loop()
    conn = loop.run_until_complete(beanspiked.connect("memory:").open())
    tube = conn.use("testtube")
    with pytest.raises(RuntimeError, match="event loop"):
        asyncio.run(tube.put(b"x"))
    assert loop.run_until_complete(tube.stats()).jobs == 0
    loop.run_until_complete(conn.close())
    loop.close()


# --- blocking


INTERRUPTED = """
import os, signal, threading, time
from beanspiked import blocking

for delay in (0.0, 0.0005, 0.001, 0.003):
    with blocking.connect("memory:") as conn:
        tube = conn.use("testtube")
        threading.Timer(0.05, lambda: tube.put(b"x")).start()
        threading.Timer(0.05 + delay, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        job = None
        try:
            job = tube.reserve(10)
            time.sleep(1)
        except KeyboardInterrupt:
            job = job or tube.reserve(5)
        assert job.delete()
        print("done", flush=True)
"""


def test_an_interrupt_as_a_job_arrives_leaves_it_to_others() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "done\n" * 4, done.stderr


def test_closing_ends_the_calls_of_other_threads(tmp_path: Path) -> None:
    conn = blocking.connect(f"sqlite:{tmp_path}/jobs")
    tube = conn.use("testtube")
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            tube.reserve()
        except beanspiked.ConnClosed as error:
            ended.append(error)

    threads = [threading.Thread(target=wait) for _ in range(5)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    conn.close()
    for thread in threads:
        thread.join(5)
    assert len(ended) == 5


def test_two_servers_of_one_connection_end_apart() -> None:
    async def check() -> None:
        async with beanspiked.connect("memory:") as conn:
            first = await beanspiked.serve(conn, "127.0.0.1:0")
            second = await beanspiked.serve(conn, "127.0.0.1:0")
            host, _, port = second.addresses[0].rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            await first.close()
            for _ in range(2):
                writer.write(b"list-tube-used\r\n")
                assert await asyncio.wait_for(reader.readline(), 5) == b"USING default\r\n"
            writer.close()

    asyncio.run(check())
