"""Programs that fork: a connection stays with the process that opened it, and its calls are refused in a child."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING

import pytest
from forking import run

import beanspiked
from beanspiked import blocking

if TYPE_CHECKING:
    from stores import Stores


# --- what a child gets told


def test_every_call_that_waits_is_refused_in_a_child(stores: Stores) -> None:
    run(
        """
        with blocking.Conn(connect(url)) as conn:
            tube = conn.use(tube_name)
            tube.put(b"x", ttr=60)
            job = tube.reserve(5)
            other = tube.put(b"y")

            def child():
                for call in (
                    lambda: tube.put(b""), tube.reserve, lambda: tube.reserve(0), lambda: tube.reserve_many(3),
                    lambda: tube.peek(other), tube.peek_ready, tube.peek_delayed, tube.peek_buried, tube.stats,
                    lambda: tube.find("m"), lambda: tube.kick(1), lambda: tube.delete(other), lambda: tube.kick_job(other),
                    lambda: tube.pause(0), conn.tubes, lambda: conn.use("another"), lambda: conn.delete_tube(tube_name),
                    lambda: conn.peek(other), lambda: conn.delete(other), lambda: conn.kick_job(other),
                    lambda: conn.serve("127.0.0.1:0"), job.touch, job.delete, job.give_back, job.release, job.bury,
                    lambda: job.update(b""), job.keep_alive().__enter__,
                ):
                    refused(call, me)
                assert (conn.closed, conn.owner, job.held, job.body) == (True, me, False, b"x")
                conn.close()

            ended(forked(child))
            assert (conn.closed, conn.owner, job.held) == (False, 0, True)
            assert job.delete() and tube.delete(other)
        """,
        stores,
    )


def test_every_asynchronous_call_is_refused_in_a_child(stores: Stores) -> None:
    run(
        """
        async def main():
            async with connect(url) as conn:
                tube = conn.use(tube_name)
                await tube.put(b"x", ttr=60)
                job = await tube.reserve(5)
                other = await tube.put(b"y")
                pid = os.fork()
                if pid == 0:
                    for call in (
                        lambda: tube.put(b""), tube.reserve, lambda: tube.reserve(0), lambda: tube.reserve_many(3),
                        lambda: tube.peek(other), tube.peek_ready, tube.peek_delayed, tube.peek_buried, tube.stats,
                        lambda: tube.find("m"), lambda: tube.kick(1), lambda: tube.delete(other), lambda: tube.kick_job(other),
                        lambda: tube.pause(0), conn.tubes, lambda: conn.delete_tube(tube_name),
                        lambda: conn.peek(other), lambda: conn.delete(other), lambda: conn.kick_job(other),
                        lambda: conn.serve("127.0.0.1:0"), job.touch, job.delete, job.release, job.bury,
                        lambda: job.update(b""), job.keep_alive().__aenter__, beanspiked.Worker(tube, print).run,
                    ):
                        # None of them waits for anything first.
                        refused(lambda: call().send(None), me)
                    refused(lambda: conn.use("another"), me)
                    job.give_back()
                    assert (conn.closed, conn.owner, job.held, job.body) == (True, me, False, b"x")
                    os._exit(0)
                ended(pid)
                assert (conn.closed, conn.owner, job.held) == (False, 0, True)
                assert await job.delete() and await tube.delete(other)

        asyncio.run(main())
        """,
        stores,
    )


def test_the_error_of_a_pools_process_comes_back() -> None:
    run(
        """
        import multiprocessing

        with blocking.Conn(connect(url)) as conn:
            tube = conn.use(tube_name)
            with multiprocessing.get_context("fork").Pool(2) as pool:
                try:
                    pool.map(tube.put, [b"x"])
                except TypeError as error:
                    assert "cannot be pickled" in str(error)
                else:
                    raise AssertionError
                put = lambda number: tube.put(b"%d" % number)

        def put(number):
            tube.put(b"%d" % number)

        with blocking.Conn(connect(url)) as conn:
            tube = conn.use(tube_name)
            with multiprocessing.get_context("fork").Pool(2) as pool:
                refused(lambda: pool.map(put, range(4)), me)
            assert tube.stats().jobs == 0
            process = multiprocessing.get_context("fork").Process(target=lambda: refused(lambda: put(1), me))
            process.start()
            process.join()
            assert process.exitcode == 0
        """
    )


def test_a_call_that_waits_as_its_task_forks_ends_in_the_child(stores: Stores) -> None:
    run(
        """
        async def main():
            async with connect(url) as conn:
                tube = conn.use(tube_name)
                waiting = asyncio.create_task(tube.reserve())
                await asyncio.sleep(0.05)
                pid = os.fork()
                if pid == 0:
                    signal.alarm(5)
                    try:
                        await waiting
                    except beanspiked.ConnForked:
                        os._exit(0)
                    os._exit(1)
                await asyncio.to_thread(ended, pid)
                await tube.put(b"for the parent")
                assert (await waiting).body == b"for the parent"

        asyncio.run(main())
        """,
        stores,
    )


def test_a_job_that_was_about_to_arrive_arrives_only_in_the_parent(stores: Stores) -> None:
    run(
        """
        async def main():
            async with connect(url) as conn:
                tube = conn.use(tube_name)
                waiting = asyncio.create_task(tube.reserve())
                await asyncio.sleep(0.05)
                asyncio.create_task(tube.put(b"x", ttr=60))
                await asyncio.sleep(0)
                # The store has it, and has told the event loop.
                time.sleep(0.1)
                pid = os.fork()
                if pid == 0:
                    signal.alarm(5)
                    try:
                        await waiting
                    except beanspiked.ConnForked:
                        os._exit(0)
                    os._exit(1)
                job = await waiting
                assert (job.body, job.held) == (b"x", True)
                await asyncio.to_thread(ended, pid)
                assert await job.delete()

        asyncio.run(main())
        """,
        stores,
    )


def test_who_keeps_a_job_alive_as_another_task_forks_learns_in_the_child_that_it_has_none(stores: Stores) -> None:
    run(
        """
        async def work(job):
            async with job.keep_alive():
                await going_on.wait()

        async def main():
            global going_on
            going_on = asyncio.Event()
            async with connect(url) as conn:
                tube = conn.use(tube_name)
                await tube.put(b"x", ttr=60)
                job = await tube.reserve(5)
                working = asyncio.create_task(work(job))
                await asyncio.sleep(0.05)
                pid = os.fork()
                if pid == 0:
                    signal.alarm(5)
                    try:
                        await working
                    except beanspiked.JobLost:
                        os._exit(0)
                    os._exit(1)
                await asyncio.to_thread(ended, pid)
                going_on.set()
                await working
                assert await job.delete()

        asyncio.run(main())
        """,
        stores,
    )


# --- a child's own connections


def test_a_child_connects_anew(stores: Stores) -> None:
    if stores.name == "sqlite":
        pytest.skip("its parent has the journal")
    run(
        """
        with blocking.Conn(connect(url)) as conn:
            tube = conn.use(tube_name)
            tube.put(b"x", ttr=60)
            held = tube.reserve(5)

            def child():
                with blocking.Conn(connect(url)) as own:
                    mine = own.use(tube_name + "-own")
                    mine.put(b"y", ttr=60)
                    job = mine.reserve(5)
                    with job.keep_alive():
                        assert job.body == b"y"
                    # Children of children are no exception.
                    owner = os.getpid()
                    ended(forked(lambda: [refused(lambda: mine.put(b""), owner), refused(lambda: tube.put(b""), me)]))
                    assert job.delete()

                async def asynchronous():
                    async with connect(url) as own:
                        assert await own.use(tube_name + "-own").delete(await own.use(tube_name + "-own").put(b"z"))

                asyncio.run(asynchronous())

            for leave in (os._exit, sys.exit):
                ended(forked(child, leave))
            assert held.held and held.delete()
        """,
        stores,
    )


def test_what_was_not_opened_yet_a_child_may_open() -> None:
    run(
        """
        conn = connect(url)
        def child():
            with blocking.Conn(conn) as mine:
                assert mine.use("t").put(b"x") == 1

        ended(forked(child))
        """
    )


def test_children_do_not_try_again_all_at_the_same_moments() -> None:
    run(
        """
        reading, writing = os.pipe()
        for _ in range(2):
            ended(forked(lambda: os.write(writing, f"{beanspiked.Retry().pause(1)} ".encode())))
        one, other = os.read(reading, 100).split()
        assert one != other
        """
    )


def test_a_child_that_exits_leaves_its_parent_the_lua_module() -> None:
    run(
        """
        from beanspiked.engine.aerospike.store.aerospike.udf import module_directory

        module = module_directory()
        ended(forked(leave=sys.exit))
        assert os.listdir(module)
        """
    )


# --- what cannot be sent to another process


def test_what_belongs_to_a_process_cannot_be_pickled_or_copied() -> None:
    with blocking.connect("memory:") as conn:
        tube = conn.use("t")
        tube.put(b"x", ttr=60)
        job = tube.reserve(1)
        assert job is not None
        for thing in (conn, tube, job, conn._conn, tube._tube, job._job, beanspiked.Worker(tube._tube, print)):
            for send in (pickle.dumps, copy.copy):
                with pytest.raises(TypeError, match=f"a {type(thing).__name__} cannot be pickled or copied"):
                    send(thing)
        info = conn.peek(job.id)
        assert pickle.loads(pickle.dumps(info)) == info
    error = pickle.loads(pickle.dumps(beanspiked.ConnForked("me", 5)))
    assert (str(error), error.owner) == (str(beanspiked.ConnForked("me", 5)), 5)
