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
        def with_a_blocking_connection():
            with blocking.Conn(connect(url)) as conn:
                tube = conn.use(tube_name)
                tube.put(b"x", ttr=60)
                job = tube.reserve(5)
                other = tube.put(b"y")

                def child():
                    more = job.give_back, lambda: conn.use("another"), job.keep_alive().__enter__
                    for call in (*calls(conn, tube, job, other), *more):
                        refused(call, me)
                    assert (conn.closed, conn.owner, job.held, job.body) == (True, me, False, b"x")
                    conn.close()

                ended(forked(child))
                assert (conn.closed, conn.owner, job.held) == (False, 0, True)
                assert job.delete() and tube.delete(other)

        async def with_an_asynchronous_connection():
            async with connect(url) as conn:
                tube = conn.use(tube_name)
                await tube.put(b"x", ttr=60)
                job = await tube.reserve(5)
                other = await tube.put(b"y")

                def child():
                    more = job.keep_alive().__aenter__, beanspiked.Worker(tube, print).run
                    for call in (*calls(conn, tube, job, other), *more):
                        # None of them waits for anything first.
                        refused(lambda: call().send(None), me)
                    refused(lambda: conn.use("another"), me)
                    job.give_back()
                    assert (conn.closed, conn.owner, job.held, job.body) == (True, me, False, b"x")

                ended(forked(child))
                assert (conn.closed, conn.owner, job.held) == (False, 0, True)
                assert await job.delete() and await tube.delete(other)

        with_a_blocking_connection()
        asyncio.run(with_an_asynchronous_connection())
        """,
        stores,
    )


def test_the_error_of_a_pools_process_comes_back() -> None:
    run(
        """
        import multiprocessing

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


@pytest.mark.slow
def test_what_waits_as_another_task_forks_fails_in_the_child_and_goes_on_in_the_parent(stores: Stores) -> None:
    run(
        """
        async def waiting_for_a_job(tube):
            waiting = asyncio.create_task(tube.reserve())
            await asyncio.sleep(0.05)
            await asyncio.to_thread(ended, await raised_in_child(beanspiked.ConnForked, waiting))
            await tube.put(b"for the parent", ttr=60)
            return await waiting, b"for the parent"

        async def given_a_job_but_not_yet_told(tube):
            waiting = asyncio.create_task(tube.reserve())
            await asyncio.sleep(0.05)
            asyncio.create_task(tube.put(b"x", ttr=60))
            await asyncio.sleep(0)
            # The store has it, and has told the event loop.
            time.sleep(0.1)
            pid = await raised_in_child(beanspiked.ConnForked, waiting)
            job = await waiting
            await asyncio.to_thread(ended, pid)
            return job, b"x"

        async def keeping_a_job_alive(tube):
            await tube.put(b"kept", ttr=60)
            job = await tube.reserve(5)
            going_on = asyncio.Event()

            async def work():
                async with job.keep_alive():
                    await going_on.wait()

            working = asyncio.create_task(work())
            await asyncio.sleep(0.05)
            await asyncio.to_thread(ended, await raised_in_child(beanspiked.JobLost, working))
            going_on.set()
            await working
            return job, b"kept"

        async def main():
            async with connect(url) as conn:
                for moment in waiting_for_a_job, given_a_job_but_not_yet_told, keeping_a_job_alive:
                    job, body = await moment(conn.use(tube_name))
                    assert (job.body, job.held) == (body, True), moment
                    assert await job.delete(), moment

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
        unopened = connect(url)
        with blocking.Conn(connect(url)) as conn:
            tube = conn.use(tube_name)
            tube.put(b"x", ttr=60)
            held = tube.reserve(5)

            def child():
                with blocking.Conn(unopened) as own:
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
