"""Programs that fork: a connection stays with the process that opened it, whatever its children do."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import beanspiked
from beanspiked import blocking
from beanspiked.engine import forks
from beanspiked.engine.embedded import folder
from beanspiked.engine.embedded.folder import Folder

if TYPE_CHECKING:
    from stores import Stores

SHARED = str(Path(__file__).parents[1] / "shared")
# How long a script may take, in seconds.
WITHIN = 30

PREAMBLE = f"""
import asyncio, gc, os, signal, socket, sqlite3, subprocess, sys, threading, time, warnings
sys.path.insert(0, {SHARED!r})
# What the scripts are about: processes with threads that fork.
warnings.filterwarnings("ignore", category=DeprecationWarning)
import beanspiked
from beanspiked import blocking
from forking import connect, ended, forked, refused
url, tube_name, directory = sys.argv[1:]
me = os.getpid()
"""


def run(script: str, stores: Stores | None = None, directory: Path | None = None) -> None:
    """Run a script that has to succeed and to say so."""
    url, tube = ("memory:", "testtube") if stores is None else (stores.url, stores.tube)
    text = PREAMBLE + textwrap.dedent(script) + "\nassert os.getpid() == me\nprint('well')\n"
    command = [sys.executable, "-c", text, url, tube, str(directory or "")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN, check=False)
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stdout + done.stderr


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


# --- what a child does to its parent


def test_a_child_that_leaves_does_nothing_to_its_parent(stores: Stores) -> None:
    run(
        """
        conn = blocking.Conn(connect(url))
        with conn:
            tube = conn.use(tube_name)
            tube.put(b"held", ttr=60)
            held = tube.reserve(5)
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


@pytest.mark.parametrize(
    ("loop", "leave"),
    [("asyncio", "os._exit(0)"), ("asyncio", "sys.exit(0)"), ("asyncio", "return"), ("uvloop", "os._exit(0)")],
)
def test_a_child_that_leaves_an_event_loop_does_nothing_to_its_parents(stores: Stores, leave: str, loop: str) -> None:
    run(
        f"""
        import {loop}

        async def main():
            async with connect(url) as conn:
                tube = conn.use(tube_name)
                await tube.put(b"held", ttr=60)
                held = await tube.reserve(5)
                waiting = asyncio.create_task(tube.reserve(20))
                await asyncio.sleep(0)
                pid = os.fork()
                if pid == 0:
                    signal.alarm(10)
                    {leave}
                os.waitpid(pid, 0)
                # Each waits for a thread of the store.
                began = time.monotonic()
                for number in range(20):
                    await tube.put(b"%d" % number)
                assert (await waiting).body == b"0"
                assert await held.delete()
                assert time.monotonic() - began < 1.5
                await conn.delete_tube(tube_name)

        with asyncio.Runner(loop_factory={loop}.new_event_loop) as runner:
            runner.run(main())
        if os.getpid() != me:
            sys.exit(0)
        """,
        stores,
    )


def test_a_child_ends_however_it_leaves(stores: Stores) -> None:
    run(
        """
        conn = blocking.Conn(connect(url))
        tube = conn.use(tube_name)
        tube.put(b"x", ttr=60)
        job = tube.reserve(5)
        for leave in "conn.close()", "pass", "del conn, tube, job; gc.collect()", "raise SystemExit(0)":
            pid = os.fork()
            if pid == 0:
                signal.alarm(10)
                exec(leave)
                sys.exit(0)
            ended(pid)
            assert job.held, leave
        assert job.delete()
        conn.close()
        """,
        stores,
    )


def test_a_job_is_kept_alive_while_and_after_a_child_lives() -> None:
    run(
        """
        with blocking.Conn(connect(url)) as conn:
            tube = conn.use(tube_name)
            tube.put(b"x", ttr=2)
            job = tube.reserve(5)
            with job.keep_alive():
                ended(forked())
                left = job.time_left
                while job.time_left <= left:
                    assert job.held
                    time.sleep(0.01)
            assert job.delete()
        """
    )


def test_a_block_that_keeps_a_job_alive_says_so_at_its_end_in_a_child() -> None:
    run(
        """
        with blocking.Conn(connect(url)) as conn:
            tube = conn.use(tube_name)
            tube.put(b"x", ttr=60)
            job = tube.reserve(5)
            block = job.keep_alive()
            block.__enter__()
            ended(forked(lambda: refused(lambda: block.__exit__(None, None, None), me)))

            def leave():
                leaving = SystemExit(0)
                assert not block.__exit__(SystemExit, leaving, None)

            ended(forked(leave))
            block.__exit__(None, None, None)
            assert job.held
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

            async def in_child(waiting):
                signal.alarm(5)
                try:
                    await waiting
                except beanspiked.ConnForked:
                    os._exit(0)
                os._exit(1)

            pid = os.fork()
            if pid == 0:
                await in_child(trying)
            await asyncio.to_thread(ended, pid)
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


# --- the journal


def test_a_child_opens_another_journal_but_not_its_parents(tmp_path: Path) -> None:
    run(
        """
        first = "sqlite:" + directory + "/first"
        with blocking.connect(first) as conn:
            conn.use("t").put(b"x")

            def child():
                for _ in range(2):
                    try:
                        blocking.connect(first)
                    except beanspiked.StoreUnusable as error:
                        assert f"in use by process {me} when" in str(error), error
                    else:
                        raise AssertionError
                with blocking.connect("sqlite:" + directory + "/second") as own:
                    own.use("t").put(b"y")
                    assert own.use("t").reserve(1).delete()

            ended(forked(child))
            # The parent's lock still keeps others off.
            script = "import sys; from beanspiked import blocking; blocking.connect(sys.argv[1])"
            other = subprocess.run([sys.executable, "-c", script, first], capture_output=True, text=True)
            assert "in use by another server" in other.stderr, other.stderr
            assert conn.use("t").reserve(1).body == b"x"
        """,
        directory=tmp_path,
    )


def test_a_child_cannot_open_its_parents_journal_after_it_either(tmp_path: Path) -> None:
    # SQLite believes for each process which locks it holds.
    run(
        """
        first = "sqlite:" + directory + "/first"
        reading, writing = os.pipe()
        with blocking.connect(first) as conn:
            def child():
                os.read(reading, 1)
                try:
                    blocking.connect(first)
                except beanspiked.StoreUnusable as error:
                    assert f"in use by process {me} when" in str(error), error
                else:
                    raise AssertionError

            pid = forked(child)
        with blocking.connect(first) as conn:
            os.write(writing, b"x")
            ended(pid)
        """,
        directory=tmp_path,
    )


def test_a_child_that_outlives_its_parent_takes_nothing_from_who_comes_after_it(tmp_path: Path) -> None:
    run(
        """
        first = "sqlite:" + directory + "/first"
        database = directory + "/first/jobs.sqlite"
        go_reading, go_writing = os.pipe()
        done_reading, done_writing = os.pipe()
        owner = os.fork()
        if owner == 0:
            conn = blocking.connect(first)
            conn.use("t").put(b"first")
            if os.fork() == 0:
                os.close(go_writing)
                os.close(done_reading)
                os.read(go_reading, 1)
                # Its pipe is closed when it has ended.
                sys.exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(owner, 0)
        script = '''
        import os, signal, sys
        from beanspiked import blocking
        conn = blocking.connect(sys.argv[1])
        conn.use("t").put(b"second")
        os.kill(os.getpid(), signal.SIGKILL)
        '''
        import textwrap
        subprocess.run([sys.executable, "-c", textwrap.dedent(script), first])
        assert os.path.exists(database + "-wal")
        os.close(done_writing)
        os.write(go_writing, b"x")
        os.read(done_reading, 1)
        with blocking.connect(first) as conn:
            assert [job.body for job in conn.use("t").reserve_many(5, 0)] == [b"first", b"second"]
        """,
        directory=tmp_path,
    )


def test_a_child_never_destroys_what_would_reach_into_its_parents_store(tmp_path: Path) -> None:
    run(
        """
        import weakref
        from pathlib import Path
        from beanspiked.engine.aerospike.store.aerospike.calls import Caller
        from beanspiked.engine.embedded.database import open_for_writing

        class Client:
            pass

        database = open_for_writing(Path(directory, "jobs.sqlite"))
        database.execute("CREATE TABLE t (x)")
        caller = Caller(Client())
        left = [weakref.ref(database), weakref.ref(caller.client)]

        def child():
            global database, caller
            assert caller.client is None
            del database, caller
            gc.collect()
            assert all(ref() is not None for ref in left)

        ended(forked(child))
        """,
        directory=tmp_path,
    )


def test_nobody_forks_while_a_library_holds_its_locks() -> None:
    lock = forks.undisturbed()
    order: list[str] = []

    def work() -> None:
        with lock:
            order.append("begun")
            forking.start()
            time.sleep(0.05)
            order.append("ended")

    def fork() -> None:
        forks._before()
        order.append("forked")
        forks._after()

    forking = threading.Thread(target=fork)
    work()
    forking.join()
    assert order == ["begun", "ended", "forked"]
    assert not lock.locked()


def test_nobody_forks_while_the_journals_writer_is_in_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked: dict[str, bool] = {}

    def called(self: Folder, name: str) -> None:
        locked[name] = locked.get(name, True) and self._writing.locked()

    def keep_house(self: Folder) -> None:
        called(self, "keep_house")
        kept(self)

    def run(self: Folder) -> None:
        self._database.set_trace_callback(lambda _: called(self, "statements"))
        ran(self)

    kept, ran = Folder.keep_house, Folder._run
    monkeypatch.setattr(Folder, "keep_house", keep_house)
    monkeypatch.setattr(Folder, "_run", run)
    monkeypatch.setattr(folder, "HOUSEKEEPING_SECONDS", 0.01)
    with blocking.connect(f"sqlite:{tmp_path}/jobs") as conn:
        conn.use("t").put(b"x")
        time.sleep(0.03)
    assert locked == {"statements": True, "keep_house": True}


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


# --- workers and servers


def test_a_handler_that_forks_leaves_its_jobs_to_the_parents_worker(stores: Stores) -> None:
    run(
        """
        pids, done = [], []

        async def handle(task, job):
            pid = os.fork()
            if pid == 0:
                signal.alarm(10)
                return
            pids.append(pid)
            await asyncio.sleep(0.05)
            done.append(task)
            if len(done) == 3:
                asyncio.get_running_loop().call_later(0.2, worker.stop)

        async def main():
            global worker
            async with connect(url) as conn:
                tube = conn.use(tube_name)
                for number in range(3):
                    await tube.put(b"%d" % number, ttr=60)
                worker = beanspiked.Worker(tube, handle, concurrency=2)
                await worker.run()
                assert (await tube.stats()).jobs == 0

        try:
            asyncio.run(main())
        except beanspiked.ConnForked as error:
            # Each child's copy of the worker ends.
            os._exit(0 if error.owner == me and os.getpid() != me and not done[3:] else 1)
        assert sorted(done) == [b"0", b"1", b"2"]
        for pid in pids:
            ended(pid)
        """,
        stores,
    )


def test_a_handler_that_forks_does_not_fail_in_the_child() -> None:
    run(
        """
        import logging

        class Heard(logging.Handler):
            def emit(self, record):
                heard.append(record.getMessage())

        heard = []
        logging.getLogger("beanspiked").addHandler(Heard())

        async def handle(task, job):
            pid = os.fork()
            if pid == 0:
                signal.alarm(10)
                await job.release()
            ended(pid)
            worker.stop()

        async def main():
            global worker
            async with connect(url) as conn:
                tube = conn.use(tube_name)
                await tube.put(b"x", ttr=60)
                worker = beanspiked.Worker(tube, handle)
                await worker.run()

        try:
            asyncio.run(main())
        except beanspiked.ConnForked:
            os._exit(len(heard))
        """
    )


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_signal_for_a_child_ends_the_child_and_not_its_parents_worker(number: str, loop: str) -> None:
    run(
        f"""
        import {loop}

        async def handle(task, job):
            pid = os.fork()
            if pid == 0:
                try:
                    time.sleep(10)
                finally:
                    os._exit(3)
            await asyncio.sleep(0.1)
            os.kill(pid, signal.{number})
            status = os.waitpid(pid, 0)[1]
            assert os.waitstatus_to_exitcode(status) in (-signal.{number}, 3), status
            await asyncio.sleep(0.1)
            fine.append(job.held)
            worker.stop()

        async def main():
            global worker
            async with connect(url) as conn:
                tube = conn.use(tube_name)
                await tube.put(b"x", ttr=60)
                worker = beanspiked.Worker(tube, handle)
                began = time.monotonic()
                await worker.run()
                assert time.monotonic() - began < 5

        fine = []
        with asyncio.Runner(loop_factory={loop}.new_event_loop) as runner:
            runner.run(main())
        assert fine == [True]
        """
    )


def test_clients_see_their_server_hang_up_though_a_child_lives_on() -> None:
    run(
        """
        reading, writing = os.pipe()
        conn = blocking.Conn(connect(url))
        [address] = conn.serve("127.0.0.1:0")
        host, port = address.split(":")
        client = socket.create_connection((host, int(port)), timeout=5)
        client.sendall(b"list-tube-used\\r\\n")
        assert client.recv(100) == b"USING default\\r\\n"

        def child():
            os.close(writing)
            os.read(reading, 1)

        pid = forked(child)
        client.sendall(b"list-tube-used\\r\\n")
        assert client.recv(100) == b"USING default\\r\\n"
        conn.close()
        assert client.recv(100) == b""
        try:
            socket.create_connection((host, int(port)), timeout=5)
        except ConnectionRefusedError:
            pass
        else:
            raise AssertionError
        os.close(writing)
        ended(pid)
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
