"""Copies a journal, also that of a running server."""

import contextlib
import errno
import os
import sqlite3
import time
from pathlib import Path
from typing import Final

from beanspiked.engine.embedded.database import (
    FILE_NAME,
    PRIVATE,
    check_version,
    failed_by,
    name_and_folded,
    open_read_only,
)
from beanspiked.engine.embedded.log import read_log
from beanspiked.engine.embedded.records import Net
from beanspiked.engine.embedded.statements import fold
from beanspiked.engine.errors import StoreUnusable

__all__ = ["backup"]

# A running server may write a file of the log again while it is read. Then it has folded that meanwhile, and both are read again.
TRIES: Final = 20
TRY_AGAIN_SECONDS: Final = 0.05


def backup(directory: str | Path, target: str | Path) -> int:
    """Copy a journal, also that of a running server, to a new file; return the number of jobs in the copy.

    Raises:
        StoreUnusable: There is no journal in the directory, or it is damaged, or of a newer version.
        FileExistsError: The target exists.
        OSError: The target cannot be written.
    """
    source = Path(directory) / FILE_NAME
    try:
        there = source.is_file()
    except OSError as error:
        raise StoreUnusable(f"{source}: {error.strerror}") from error
    if not there:
        raise StoreUnusable(f"{source}: no such file")
    # Made first and exclusively, so that no file is overwritten.
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE))
    done = False
    try:
        with (
            contextlib.closing(open_read_only(source)) as live,
            contextlib.closing(sqlite3.connect(target, isolation_level=None)) as copy,
        ):
            check_version(source, live)
            net, last = _begin(live, Path(directory))
            # Without a second file beside the copy, which a full disk would leave behind.
            copy.execute("PRAGMA journal_mode = MEMORY")
            live.backup(copy)
            copy.execute("BEGIN")
            if last:
                fold(copy, net, last)
                # What the log holds is in the copy, which has no log.
                copy.execute("UPDATE log SET journal = randomblob(8)")
            copy.execute("COMMIT")
            copy.execute("PRAGMA journal_mode = DELETE")
            if copy.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
                raise StoreUnusable(f"{source}: damaged")
            count: int = copy.execute("SELECT count(*) FROM job").fetchone()[0]
        done = True
    except sqlite3.Error as error:
        # Only the copy is written.
        if failed_by(error, sqlite3.SQLITE_FULL):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from error
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_WRITE:
            reason = _why_unwritable(target, source.stat().st_size)
            raise OSError(reason, os.strerror(reason), str(target)) from error
        raise StoreUnusable(f"{source}: {error}") from error
    finally:
        if not done:
            Path(target).unlink()
    return count


def _why_unwritable(target: str | Path, size: int) -> int:
    """Return the number of the error that keeps a file from its size: SQLite tells only a full disk from other faults."""
    try:
        with Path(target).open("ab") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        return error.errno or errno.EIO
    return errno.EIO


def _begin(live: sqlite3.Connection, directory: Path) -> tuple[Net, int]:
    """Begin to read the database, and read what the log holds besides; return that, and the number of its last frame.

    The number is 0 for a journal of a version without a log.
    """
    tries = 0
    while True:
        live.execute("BEGIN")
        if live.execute("PRAGMA user_version").fetchone()[0] < 2:
            return Net(), 0
        name, folded = name_and_folded(live)
        net = Net()
        try:
            found = read_log(directory, name, folded, net.take)
        except StoreUnusable:
            tries += 1
            if tries == TRIES:
                raise
            live.execute("ROLLBACK")
            time.sleep(TRY_AGAIN_SECONDS)
        else:
            if found:
                return net, found[-1].last
            # A server that stops folds all and removes the log. Had it done so since, what it folded would be missing.
            live.execute("ROLLBACK")
            live.execute("BEGIN")
            if name_and_folded(live)[1] == folded:
                return net, folded
            live.execute("ROLLBACK")
