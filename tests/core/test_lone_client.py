"""While one client is alone, the event loop itself writes the journal, unless the disk is slow or makes trouble."""

from __future__ import annotations

import errno
import os
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from journals import Store, Stores, crash

from beanspiked.engine.errors import StoreFull

if TYPE_CHECKING:
    from pathlib import Path

    from beanspiked.engine.embedded.write import Write
    from beanspiked.engine.later import Later


@pytest.fixture
def alone(stores: Stores) -> Store:
    stores.fsync_ms, stores.alone = 0, True
    return stores.open()


def put(store: Store, body: bytes = b"x") -> Later:
    """Put a job and end the turn."""
    later = store.engine.put(store.engine.tube("default"), store.engine.new_id(), 1, 0, 60, body)
    assert later is not None
    store.engine.flush()
    return later


def test_its_change_is_on_disk_at_the_end_of_the_turn(alone: Store, stores: Stores, tmp_path: Path) -> None:
    assert put(alone).done
    assert alone.journal.stats.syncs == 1
    copy = crash(tmp_path, tmp_path / "copy")
    assert Stores(copy, stores.wire).open().job(1).body == b"x"


def test_changes_follow_each_other_whoever_writes_them(alone: Store, stores: Stores) -> None:
    turns = [False, True, True, False, True, False, False, True]
    for here in turns:
        alone.journal.alone = lambda here=here: here  # type: ignore[misc]
        put(alone, b"%d" % here)
    reopened = stores.open()
    assert [reopened.job(number).body for number, _ in enumerate(turns, 1)] == [b"%d" % here for here in turns]


def test_while_the_writer_has_an_earlier_change_it_writes_a_later_one_too(
    alone: Store, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A disk that is never slow.
    monkeypatch.setattr(os, "fdatasync", lambda _: None)
    tube = alone.engine.tube("default")
    put(alone)
    given: list[list[Write] | None] = []
    with monkeypatch.context() as patch:
        # The writer has not come to it yet.
        patch.setattr(alone.journal, "_inbox", SimpleNamespace(put=given.append))
        alone.journal.alone = lambda: False
        alone.engine.pause(tube, 60)
        alone.engine.flush()
        alone.journal.alone = lambda: True
        last = alone.engine.pause(tube, 0)
        alone.engine.flush()
    for batch in given:
        alone.journal._inbox.put(batch)
    alone.wait(last)
    reopened = stores.open()
    assert reopened.engine.tube("default").pause == 0


def test_while_the_disk_is_full_its_puts_are_refused_although_the_log_has_room(
    alone: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # A disk that is never slow.
    monkeypatch.setattr(os, "fdatasync", lambda _: None)
    first = put(alone)
    alone.journal._room.release()
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", no_room)
        alone.journal.stats.full = True
        later = put(alone)
        alone.wait(later)
        assert isinstance(later.error, StoreFull)
        alone.wait(alone.engine.delete(alone.job(first.value)))
    alone.wait(put(alone))


def test_it_waits_for_no_disk_that_was_slow(alone: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fdatasync

    def slow(fd: int) -> None:
        time.sleep(0.003)
        sync(fd)

    def after_a_slow_one() -> bool:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", slow)
            alone.wait(put(alone))
        later = put(alone)
        here = later.done
        alone.wait(later)
        return here

    # Where a busy machine stops the test for a tenth of a second, the disk counts as quick again.
    assert not all(after_a_slow_one() for _ in range(5))


def test_where_it_cannot_write_the_writer_tries_and_says_why(
    alone: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(fd: int) -> None:  # noqa: ARG001 - as os.fdatasync
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        later = put(alone)
        assert not later.done
        alone.wait(later)
    assert str(later.error) == "the journal cannot be written: Input/output error"
    assert "changes are refused until a write succeeds" in caplog.text
    alone.wait(put(alone))


def test_whatever_fails_in_the_event_loop_each_change_gets_an_outcome(
    alone: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int) -> None:  # noqa: ARG001 - as os.fdatasync
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        later = put(alone)
        alone.wait(later)
    assert later.error is not None


def test_a_frame_without_room_in_the_file_is_left_to_the_writer(alone: Store) -> None:
    room = alone.journal._log.current.size
    later = put(alone, b"x" * room)
    assert not later.done
    alone.wait(later)
    assert later.error is None
