"""The journal's database: its schema and upgrades, how it is locked, opened and copied."""

import contextlib
import fcntl
import logging
import os
import resource
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from beanspiked.engine import forks
from beanspiked.engine.errors import StoreUnusable

__all__ = [
    "APPLICATION_ID",
    "BUSY_MS",
    "FILE_NAME",
    "PRIVATE",
    "SCHEMA_VERSION",
    "Lock",
    "Watch",
    "failed_by",
    "log_paths",
    "name_and_folded",
    "no_waiting",
    "open_for_writing",
    "open_read_only",
    "prepare",
]

logger = logging.getLogger(__name__)

FILE_NAME: Final = "jobs.sqlite"
# "bspk" in SQLite's header marks the file as ours.
APPLICATION_ID: Final = 0x6273706B
SCHEMA_VERSION: Final = 2
# The write-ahead log is copied into the database when it has this many pages.
WAL_PAGES: Final = 1000
# How long a change waits for other programs that have locked the database, in milliseconds.
BUSY_MS: Final = 2000

# One step for each version: a journal of version n is brought up by the steps from n on.
MIGRATIONS: Final[list[str]] = [
    """
    CREATE TABLE job (
        id        INTEGER PRIMARY KEY AUTOINCREMENT,  -- AUTOINCREMENT: an id is never used again
        tube      TEXT    NOT NULL,
        state     INTEGER NOT NULL,                   -- 0 ready, 1 delayed, 3 buried
        pri       INTEGER NOT NULL,
        delay     REAL    NOT NULL,                   -- seconds
        ttr       REAL    NOT NULL,                   -- seconds, 0 for never
        born      REAL    NOT NULL,                   -- seconds since the epoch
        place     REAL    NOT NULL,                   -- when due, or the number of the burial
        reserves  INTEGER NOT NULL DEFAULT 0,
        timeouts  INTEGER NOT NULL DEFAULT 0,
        releases  INTEGER NOT NULL DEFAULT 0,
        buries    INTEGER NOT NULL DEFAULT 0,
        kicks     INTEGER NOT NULL DEFAULT 0,
        metadata  TEXT    NOT NULL DEFAULT '',
        reason    TEXT    NOT NULL DEFAULT '',
        retries   INTEGER NOT NULL DEFAULT 0,
        failed    INTEGER NOT NULL DEFAULT 0,
        raw_size  INTEGER NOT NULL DEFAULT -1,        -- before compression; -1: not compressed, -2: given up
        body      BLOB    NOT NULL
    );
    CREATE TABLE pause (
        tube    TEXT PRIMARY KEY,
        seconds REAL NOT NULL,
        until   REAL NOT NULL
    );
    """,
    # What the log beside it holds is not in the database, so an older version must not open it.
    """
    CREATE TABLE log (
        journal BLOB    NOT NULL,  -- the journal's name for itself: the log's files bear it
        folded  INTEGER NOT NULL   -- the number of the log's last frame that is in the other tables
    );
    INSERT INTO log VALUES (randomblob(8), 0);
    """,
]


# A journal's files hold its jobs, so only their owner may read them.
PRIVATE: Final = 0o600

# Directories that this process has locked, by device and inode.
_locked: set[tuple[int, int]] = set()
# Directories that this process's parent had locked before the fork, with the parent's number.
_inherited: dict[tuple[int, int], int] = {}


class Lock:
    """A directory's lock, held as beanstalkd does (walinit, waldirlock).

    Such a lock does not exclude its own process, which loses it when it closes any descriptor of the file. So the process also
    remembers the directories that it has locked. The child of a fork does not inherit the locks, but SQLite remembers its own in the
    child as well, so the child cannot use a database there.

    Raises:
        StoreUnusable: The directory does not exist or is in use.
    """

    def __init__(self, directory: Path) -> None:
        try:
            status = directory.stat()
        except OSError as error:
            raise StoreUnusable(f"{directory}: {error.strerror}") from error
        if not stat.S_ISDIR(status.st_mode):
            raise StoreUnusable(f"{directory}: not a directory")
        self._place = (status.st_dev, status.st_ino)
        if self._place in _locked:
            raise StoreUnusable(f"{directory}: in use by this process already")
        if self._place in _inherited:
            raise StoreUnusable(
                f"{directory}: in use by process {_inherited[self._place]} when this one was forked from it;"
                " only a process that is started anew can open it"
            )
        self._fd = _lock(directory)
        _locked.add(self._place)
        forks.watch(self)

    def release(self) -> None:
        """Unlock the directory."""
        _locked.discard(self._place)
        os.close(self._fd)

    def forked(self, owner: int) -> None:
        """See forks.Watched."""
        if self._place in _locked:
            _locked.discard(self._place)
            _inherited[self._place] = owner


def _lock(directory: Path) -> int:
    try:
        fd = os.open(directory / "lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnusable(f"{directory}: {error.strerror}") from error
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise StoreUnusable(f"{directory}: in use by another server") from error
    return fd


def log_paths(directory: Path) -> list[Path]:
    """Return the paths of the log's files."""
    return [directory / "log.0", directory / "log.1"]


class Watch:
    """Tells when a file of an open journal is removed or replaced. The journal goes on with the one that it has, which nobody else sees.

    Args:
        paths: The files, which exist.
    """

    def __init__(self, paths: list[Path]) -> None:
        self._known: dict[Path, tuple[int, int] | None] = {path: _identity(path) for path in paths}

    def look(self) -> None:
        """Log each file that is not there any more, once."""
        for path in list(self._known):
            try:
                gone = _identity(path) != self._known[path]
            except OSError as error:
                logger.debug("%s: cannot be looked at: %s", path, error)
                continue
            if gone:
                del self._known[path]
                logger.critical(
                    "%s was removed or replaced while it is in use: jobs may be lost when the server ends", path
                )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return (status.st_dev, status.st_ino)


def prepare(path: Path) -> None:
    """Make a journal if there is none, or upgrade an older one.

    Raises:
        StoreUnusable: It cannot be used; it is left unchanged.
    """
    version = 0
    if path.exists() and not path.is_file():
        raise StoreUnusable(f"{path}: not a file")
    if path.exists() and path.stat().st_size > 0:
        version = _version(path)
        _keep_private(path)
        if version == SCHEMA_VERSION:
            return
    elif any(path.parent.glob("binlog.[0-9]*")):
        logger.warning("%s: the jobs in beanstalkd's binlog files are not read; let beanstalkd drain them", path.parent)
    _make_private(path)
    steps = "".join(MIGRATIONS[version:SCHEMA_VERSION])
    try:
        with contextlib.closing(_connect(path)) as database:
            if version == 0:
                database.execute("PRAGMA auto_vacuum = INCREMENTAL")
                database.execute("PRAGMA journal_mode = WAL")
            database.executescript(
                f"BEGIN IMMEDIATE; {steps}; PRAGMA application_id = {APPLICATION_ID};"
                f" PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )
    except sqlite3.Error as error:
        raise StoreUnusable(f"{path}: {error}") from error


def _make_private(path: Path) -> None:
    """Make a database's file with its mode; SQLite gives the files beside it the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE))
    except OSError as error:
        raise StoreUnusable(f"{path}: {error.strerror}") from error
    _keep_private(path)


def _keep_private(path: Path) -> None:
    """Keep other users from reading the jobs, also in files that exist already."""
    base = path.resolve()
    beside = [Path(f"{base}{suffix}") for suffix in ("-wal", "-shm", "-journal")]
    for name in (base, *beside, *log_paths(path.parent)):
        try:
            if name.stat().st_mode & 0o077:
                name.chmod(PRIVATE)
        except FileNotFoundError:
            continue
        except PermissionError as error:
            logger.warning(
                "%s: other users may be able to read the jobs: its mode cannot be changed: %s", name, error.strerror
            )
        except OSError as error:
            raise StoreUnusable(f"{name}: {error.strerror}") from error


def _version(path: Path) -> int:
    """Return the version of a journal of ours that this version can read; 0 for an empty database."""
    try:
        if Path(f"{path.resolve()}-journal").exists():
            # A first start was ended while it made the file, which had no write-ahead log yet: SQLite takes back what was done.
            with contextlib.closing(_connect(path)) as database:
                database.execute("SELECT count(*) FROM sqlite_master")
        with contextlib.closing(open_read_only(path)) as database:
            tables: int = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            # A first start may have been ended before it had made the tables.
            return check_version(path, database) if tables else 0
    except sqlite3.Error as error:
        raise StoreUnusable(f"{path}: {error}") from error


def check_version(path: Path, database: sqlite3.Connection) -> int:
    """Return the version of a journal. Raises StoreUnusable if it is none of ours, or of a version that this one does not know."""
    application = database.execute("PRAGMA application_id").fetchone()[0]
    version: int = database.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        raise StoreUnusable(f"{path}: not a journal of beanspiked; it is left unchanged")
    if version > SCHEMA_VERSION:
        raise StoreUnusable(
            f"{path}: a journal of version {version}, but this beanspiked reads versions up to {SCHEMA_VERSION}; start a newer beanspiked"
        )
    return version


class _Connection(sqlite3.Connection):
    """A connection that the child of a fork never closes: closing acts as if the child held the locks, and removes the log."""

    def forked(self, owner: int) -> None:  # noqa: ARG002 - whoever it is
        """See forks.Watched."""
        forks.keep_for_ever(self)


def _connect(name: Path | str, uri: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(
        name, isolation_level=None, check_same_thread=False, timeout=5, uri=uri, factory=_Connection
    )
    forks.watch(connection)
    return connection


def open_read_only(path: Path) -> sqlite3.Connection:
    """Open a journal so that closing it changes nothing: not even a checkpoint is made."""
    return _connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Open a journal for the writer thread.

    Raises:
        StoreUnusable: It cannot be written.
    """
    database: sqlite3.Connection | None = None
    try:
        database = _connect(path)
        # Debian's SQLite would write zeros over all that is deleted, by way of the write-ahead log: more than the reserve of a full disk.
        database.execute("PRAGMA secure_delete = OFF")
        # Other programs that write or checkpoint, such as backup tools, hold their locks for moments only.
        database.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        database.execute("PRAGMA journal_size_limit = 16777216")
        # A fold has to be on disk before its part of the log is written over.
        database.execute("PRAGMA synchronous = FULL")
        database.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        # A database at the limit of a file's size could not take over what its log holds, and deletes would fail too.
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        if limit != resource.RLIM_INFINITY:
            page_size: int = database.execute("PRAGMA page_size").fetchone()[0]
            database.execute(f"PRAGMA max_page_count = {max(1, limit // page_size)}")
        # This needs write access although it writes nothing, so a lack of it shows now and not at the first fold. Without a statement
        # that writes, SQLite begins to read only where it may not write.
        database.execute("BEGIN IMMEDIATE")
        database.execute("UPDATE log SET folded = folded")
        database.execute("ROLLBACK")
    except sqlite3.Error as error:
        if database is not None:
            database.close()
        raise StoreUnusable(f"{path}: {error}") from error
    return database


def name_and_folded(database: sqlite3.Connection) -> tuple[bytes, int]:
    """Return the journal's name for itself, and the number of the log's last frame that is in the database."""
    name, number = database.execute("SELECT journal, folded FROM log").fetchone()
    return bytes(name), int(number)


def failed_by(error: BaseException, kind: int) -> bool:
    """Tell whether SQLite failed in this way; the lowest byte of an extended code is the kind."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == kind


@contextlib.contextmanager
def no_waiting(database: sqlite3.Connection) -> Iterator[None]:
    """Fail at once while another program locks the database."""
    database.execute("PRAGMA busy_timeout = 0")
    try:
        yield
    finally:
        database.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
