"""A child neither writes to its parent's journal nor keeps it locked."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from forking import run

from beanspiked import blocking
from beanspiked.engine import forks
from beanspiked.engine.embedded import folder
from beanspiked.engine.embedded.folder import Folder

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_child_opens_another_journal_but_never_its_parents(tmp_path: Path) -> None:
    run(
        """
        first = "sqlite:" + directory + "/first"

        def is_refused():
            error = raised(beanspiked.StoreUnusable, lambda: blocking.connect(first))
            assert f"in use by process {me} when" in str(error), error

        def child():
            for _ in range(2):
                is_refused()
            with blocking.connect("sqlite:" + directory + "/second") as own:
                own.use("t").put(b"y")
                assert own.use("t").reserve(1).delete()

        def late_child():
            os.read(reading, 1)
            is_refused()

        reading, writing = os.pipe()
        with blocking.connect(first) as conn:
            conn.use("t").put(b"x")
            ended(forked(child))
            # The parent's lock still keeps others off.
            script = "import sys; from beanspiked import blocking; blocking.connect(sys.argv[1])"
            other = subprocess.run([sys.executable, "-c", script, first], capture_output=True, text=True)
            assert "in use by another server" in other.stderr, other.stderr
            assert conn.use("t").reserve(1).body == b"x"
            pid = forked(late_child)
        # SQLite believes for each process which locks it holds, also of what its parent has closed.
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
        script = (
            "import os, signal, sys; from beanspiked import blocking; conn = blocking.connect(sys.argv[1]);"
            "conn.use('t').put(b'second'); os.kill(os.getpid(), signal.SIGKILL)"
        )
        subprocess.run([sys.executable, "-c", script, first])
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
        from beanspiked.engine.embedded.database import open_for_writing, prepare

        class Client:
            pass

        path = Path(directory, "jobs.sqlite")
        prepare(path)
        database = open_for_writing(path)
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
