"""An engine over a real journal that is opened again and again."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from typing import TYPE_CHECKING

from beanspiked.engine.contract import READY, Details, Job
from beanspiked.engine.embedded.database import FILE_NAME
from beanspiked.engine.embedded.engine import EmbeddedEngine
from beanspiked.engine.embedded.journal import Journal
from beanspiked.engine.timers import Timers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from simulated import VirtualClock, Wire

    from beanspiked.engine.later import Later

# The files that hold jobs. A crash leaves them as they are.
FILES = (FILE_NAME, f"{FILE_NAME}-wal", "log.0", "log.1")


def crash(directory: Path, copy: Path) -> Path:
    """Copy a journal as a crash would leave it."""
    copy.mkdir()
    for name in FILES:
        shutil.copy(directory / name, copy / name)
    return copy


def failing_fold(*_: object) -> Iterator[None]:
    """Fail where the log is folded."""
    raise sqlite3.OperationalError("disk I/O error")


class Store:
    """An engine over a real journal. Each method waits until its change is on disk."""

    def __init__(
        self, directory: Path, clock: VirtualClock, wire: Wire, fsync_ms: int = -1, *, lone_client: bool = False
    ) -> None:
        self.news = threading.Event()
        self.journal = Journal(directory, clock, fsync_ms=fsync_ms)
        self.journal.notify = self.news.set
        self.journal.alone = lambda: lone_client
        self.engine = EmbeddedEngine(Timers(clock), wire.broker, self.journal)
        self.engine.load(self.journal.reading.chunks(), *self.journal.reading.state())
        self.journal.start()
        folder = self.journal._folder
        fold, folding = folder.fold, threading.Lock()

        def alone(older_than: float) -> bool:
            # The folder's own thread may have been woken just now; elsewhere nobody else folds.
            with folding:
                return fold(older_than)

        folder.fold = alone  # type: ignore[method-assign]

    def fold(self) -> bool:
        """Fold the log now, instead of some seconds later."""
        log, folder = self.journal._log, self.journal._folder
        while log.full is not None and folder.error is None:
            # The writer has woken the folder already.
            time.sleep(0.001)
        return folder.fold(0.0)

    def wait(self, later: Later | None) -> None:
        assert later is not None
        self.engine.flush()
        while not later.done:
            assert self.news.wait(10)
            self.news.clear()
            self.journal.settle()

    def put(self, tube: str = "default", **values: object) -> int:
        job_id = self.engine.new_id()
        given: dict[str, object] = {"pri": 1, "delay": 0, "ttr": 60, "body": b"x", **values}
        self.wait(self.engine.put(self.engine.tube(tube), job_id, **given))  # type: ignore[arg-type]
        return job_id

    def another(self) -> Later | None:
        """Put a job, whatever the outcome."""
        later = self.engine.put(self.engine.tube("default"), self.engine.new_id(), 1, 0, 60, b"x" * 1000)
        self.wait(later)
        return later

    def job(self, job_id: int) -> Job:
        job = self.engine.find_job(job_id)
        assert job is not None
        return job

    def close(self) -> None:
        self.wait(self.engine.close())


class Stores:
    """One journal, opened again and again."""

    def __init__(self, directory: Path, wire: Wire) -> None:
        self.directory = directory
        self.wire = wire
        self.clock = wire.clock
        self.fsync_ms = -1
        # Whether its event loop may commit, where every commit is synced.
        self.alone = False
        self.now: Store | None = None

    def close(self) -> None:
        if self.now is not None:
            self.now.close()
        self.now = None

    def open(self) -> Store:
        self.close()
        self.now = Store(self.directory, self.clock, self.wire, self.fsync_ms, lone_client=self.alone)
        return self.now


def described(job: Job) -> tuple[object, ...]:
    """Everything about a job that a restart must keep. A reserved job has the state that it had before."""
    details = job.details or Details()
    place = 0.0 if job.state == READY else job.key
    library = (details.metadata, details.reason, details.retries, details.failed, details.raw_size)
    counters = (job.releases, job.buries, job.kicks)
    return (
        job.id,
        job.tube.name,
        job.state,
        job.pri,
        job.delay,
        job.ttr,
        job.born,
        place,
        job.body,
        *counters,
        *library,
    )
