"""What a child does to the parent that works on: nothing, however it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from depth import full_depth
from forking import run

if TYPE_CHECKING:
    from pathlib import Path

    from stores import Stores

pytestmark = full_depth


def test_a_child_that_leaves_does_nothing_to_its_parent(stores: Stores) -> None:
    run(
        """
        conn = blocking.Conn(connect(url))
        tube = conn.use(tube_name)
        tube.put(b"held", ttr=60)
        held = tube.reserve(5)
        for leave in "conn.close()", "pass", "del conn, tube, held; gc.collect()":
            pid = os.fork()
            if pid == 0:
                signal.alarm(10)
                exec(leave)
                sys.exit(0)
            ended(pid)
            assert held.held, leave
        # Now other threads are in calls.
        with conn:
            got, waited = [], conn.use(tube_name + "-waited")
            waiter = threading.Thread(target=lambda: got.append(waited.reserve(20)))
            waiter.start()
            stopping, ids = threading.Event(), []

            def put():
                while not stopping.is_set():
                    ids.append(tube.put(b"x" * 5000, compress=False))

            putter = threading.Thread(target=put)
            putter.start()
            for number, leave in enumerate([os._exit, sys.exit] * 3):
                while len(ids) < 20 * number:
                    time.sleep(0.001)
                pid = os.fork()
                if pid == 0:
                    signal.alarm(10)
                    with conn:
                        leave(0)
                ended(pid)
            count = len(ids)
            while len(ids) < count + 20:
                time.sleep(0.001)
            stopping.set()
            putter.join()
            assert held.held and held.delete()
            waited.put(b"")
            waiter.join()
            assert len(got) == 1 and got[0].delete()
            assert tube.stats().ready == len(ids) == len(set(ids))
            if url.startswith("sqlite:"):
                from beanspiked.engine.embedded.backup import backup
                directory = url.removeprefix("sqlite:")
                assert backup(directory, directory + "/copy") == len(ids)
                database = sqlite3.connect(directory + "/jobs.sqlite")
                assert database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
                database.close()
            conn.delete_tube(tube_name)
        """,
        stores,
    )


def test_a_child_that_leaves_an_event_loop_does_nothing_to_its_parents(stores: Stores) -> None:
    run(
        """
        import uvloop

        async def main(leave):
            async with connect(url) as conn:
                tube = conn.use(tube_name)
                await tube.put(b"held", ttr=60)
                held = await tube.reserve(5)
                waiting = asyncio.create_task(tube.reserve(20))
                await asyncio.sleep(0)
                pid = os.fork()
                if pid == 0:
                    signal.alarm(10)
                    return leave(0)
                os.waitpid(pid, 0)
                # Each waits for a thread of the store.
                began = time.monotonic()
                for number in range(20):
                    await tube.put(b"%d" % number)
                assert (await waiting).body == b"0"
                assert await held.delete()
                assert time.monotonic() - began < 1.5
                await conn.delete_tube(tube_name)

        def simply_return(code):
            pass

        for loop, leave in (
            (asyncio, os._exit), (asyncio, sys.exit), (asyncio, simply_return), (uvloop, os._exit),
        ):
            with asyncio.Runner(loop_factory=loop.new_event_loop) as runner:
                runner.run(main(leave))
            if os.getpid() != me:
                sys.exit(0)
        """,
        stores,
    )


def test_a_job_is_kept_alive_in_the_parent_and_its_block_fails_at_its_end_in_a_child() -> None:
    run(
        """
        with blocking.Conn(connect(url)) as conn:
            tube = conn.use(tube_name)
            tube.put(b"x", ttr=2)
            job = tube.reserve(5)
            block = job.keep_alive()
            block.__enter__()

            def leave():
                leaving = SystemExit(0)
                assert not block.__exit__(SystemExit, leaving, None)

            ended(forked(lambda: refused(lambda: block.__exit__(None, None, None), me)))
            ended(forked(leave))
            left = job.time_left
            while job.time_left <= left:
                assert job.held
                time.sleep(0.01)
            block.__exit__(None, None, None)
            assert job.held and job.delete()
        """
    )


def test_another_program_starts_without_a_trace_of_it(stores: Stores) -> None:
    run(
        """
        with blocking.Conn(connect(url)) as conn:
            tube = conn.use(tube_name)
            for options in ({}, {"preexec_fn": os.getpid}):
                assert subprocess.run(["true"], check=True, **options).returncode == 0
                assert tube.delete(tube.put(b"x"))
        """,
        stores,
    )


def test_a_childs_copy_of_an_event_loop_shares_no_pipe_and_no_selector() -> None:
    run(
        """
        def of(loop):
            # Their numbers are the same.
            return [os.fstat(sock.fileno()).st_ino for sock in (loop._ssock, loop._csock)]

        async def main():
            async with connect(url):
                loop = asyncio.get_running_loop()
                before = of(loop)
                listener = socket.create_server(("127.0.0.1", 0))
                woken = loop.create_future()
                loop.add_reader(listener, lambda: woken.done() or woken.set_result(None))

                def child():
                    assert not set(before) & set(of(loop))
                    assert not os.get_inheritable(loop._ssock.fileno()) and not loop._ssock.getblocking()
                    # The parent does not learn of it.
                    loop.remove_reader(listener)

                ended(forked(child))
                client = socket.create_connection(listener.getsockname())
                await asyncio.wait_for(woken, 5)
                loop.remove_reader(listener)
                client.close()
                listener.close()

        asyncio.run(main())
        """
    )


def test_nothing_goes_on_by_itself_in_a_child() -> None:
    run(
        """
        async def main():
            async with connect(url) as conn:
                await conn.use(tube_name).put(b"x", delay=0.05)
                later = asyncio.get_running_loop().create_future()
                asyncio.get_running_loop().call_later(0.2, later.set_result, None)
                pid = os.fork()
                await later
                ready = conn._core.broker.engine.counts.ready
                if pid == 0:
                    os._exit(ready)
                ended(pid)
                assert ready == 1

        asyncio.run(main())
        """
    )


def test_what_fails_to_be_told_of_a_fork_keeps_nothing_else_from_it() -> None:
    run(
        """
        from beanspiked.engine import forks

        class Faulty:
            def forked(self, owner):
                raise ValueError

        faulty = [Faulty() for _ in range(20)]
        for thing in faulty:
            forks.watch(thing)
        with blocking.Conn(connect(url)) as conn:
            ended(forked(lambda: refused(conn.tubes, me)))
        """
    )


def test_a_child_of_a_signals_handler_leaves_the_call_that_was_interrupted_at_once() -> None:
    run(
        """
        pids = []

        def fork(*_):
            pids.append(os.fork())
            if pids[0] == 0:
                signal.alarm(3)
                sys.exit(0)

        signal.signal(signal.SIGUSR1, fork)
        with blocking.Conn(connect(url)) as conn:
            threading.Timer(0.1, lambda: os.kill(me, signal.SIGUSR1)).start()
            assert conn.use(tube_name).reserve(0.3) is None
        ended(pids[0])
        """
    )


def test_a_child_does_not_go_on_connecting_or_closing(tmp_path: Path) -> None:
    run(
        """
        from beanspiked.engine.embedded.journal import Journal

        async def main():
            url = "sqlite:" + directory + "/jobs"
            conn = await connect(url)
            trying = asyncio.create_task(connect(url, retry=beanspiked.Retry(first=0.05, longest=0.05)).open())
            await asyncio.sleep(0.01)

            await asyncio.to_thread(ended, await raised_in_child(beanspiked.ConnForked, trying))
            trying.cancel()

            async def closer():
                global pid
                pid = os.fork()
                if pid == 0:
                    Journal.close = lambda _: os._exit(9)

            conn.before_close(closer)
            await conn.close()

        pid = 0
        try:
            asyncio.run(main())
        except beanspiked.ConnForked:
            assert os.getpid() != me
            os._exit(0)
        ended(pid)
        """,
        directory=tmp_path,
    )
