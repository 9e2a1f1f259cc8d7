"""A log that is full while it cannot be folded, or is folded on a full disk."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING, Any

from journals import Store, Stores, failing_fold

from beanspiked.engine.embedded import folder as folder_module
from beanspiked.engine.embedded.log import SIZES
from beanspiked.engine.embedded.statements import fold_steps
from beanspiked.engine.errors import StoreFailed, StoreFull

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest


def filled(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Open a journal whose small log is so full that it has no room for the smallest job."""
    monkeypatch.setattr(SIZES, "first", 1 << 13)
    monkeypatch.setattr(SIZES, "most", 1 << 13)
    store = stores.open()
    for size in (1000, 0):
        error = None
        while error is None:
            later = store.engine.put(store.engine.tube("default"), store.engine.new_id(), 1, 0, 60, b"x" * size)
            store.wait(later)
            assert later is not None
            error = later.error
    return store


def filled_and_held_up(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> tuple[Store, threading.Event]:
    """Open a journal with a full log that is folded only once the event is set; puts have waited for that in vain."""
    go_on = threading.Event()

    def held_up(*given: Any) -> Iterator[None]:
        go_on.wait()
        return fold_steps(*given)

    monkeypatch.setattr(folder_module, "fold_steps", held_up)
    monkeypatch.setattr(folder_module, "WAIT_SECONDS", 0.001)
    store = filled(stores, monkeypatch)
    return store, go_on


def test_a_full_log_that_cannot_be_folded_takes_deletes_and_no_puts(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "fold_steps", failing_fold)
        store = filled(stores, monkeypatch)
        for job in store.engine._jobs.all():
            store.wait(store.engine.delete(job))
        later = store.another()
        assert later is not None
        assert isinstance(later.error, StoreFailed)
    assert stores.open().engine.counts.ready == 0


def test_a_put_waits_for_a_full_log_also_after_another_has_waited_in_vain(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, go_on = filled_and_held_up(stores, monkeypatch)
    monkeypatch.setattr(folder_module, "WAIT_SECONDS", 60.0)
    folder = store.journal._folder
    wait = folder.wait

    def wait_and_see(seconds: float) -> None:
        go_on.set()
        wait(seconds)

    monkeypatch.setattr(folder, "wait", wait_and_see)
    later = store.another()
    # Where nobody has waited, the journal could not be closed either.
    go_on.set()
    assert later is not None
    assert later.error is None


def test_a_log_that_stays_full_is_waited_for_once_and_not_for_each_change(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, go_on = filled_and_held_up(stores, monkeypatch)
    waits: list[float] = []
    monkeypatch.setattr(store.journal._folder, "wait", waits.append)
    engine = store.engine
    puts = [engine.put(engine.tube("default"), engine.new_id(), 1, 0, 60, b"x" * 1000) for _ in range(5)]
    for later in puts:
        store.wait(later)
    go_on.set()
    assert all(later is not None and isinstance(later.error, StoreFailed) for later in puts)
    assert len(waits) == 1


# --- on a full disk


def on_full_disk(stores: Stores, monkeypatch: pytest.MonkeyPatch, *tubes: str) -> tuple[Store, list[int]]:
    """Open a journal with jobs in the log's full file, and let only the test fold it."""
    monkeypatch.setattr(folder_module, "HOUSEKEEPING_SECONDS", 3600.0)
    store = stores.open()
    ids = [store.put(tube) for tube in tubes]
    log = store.journal._log
    with log.lock:
        assert log.switch()
    return store, ids


def folds(store: Store) -> bool:
    store.journal.stats.full = True
    return store.journal._folder.fold(0.0)


def statements_about_jobs(store: Store) -> list[str]:
    """Return a list to which each later change of a job in the database is added."""
    words: list[str] = []

    def note(statement: str) -> None:
        if " job " in statement and not statement.startswith("SELECT"):
            words.append(statement.split(maxsplit=1)[0])

    store.journal._database.set_trace_callback(note)
    return words


def test_a_file_without_frames_is_not_left_for_the_other_one(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = on_full_disk(stores, monkeypatch, "a")
    store.put()
    log, folder = store.journal._log, store.journal._folder
    begun = []

    def folded_meanwhile(_: float) -> None:
        assert folder.fold(0.0)
        assert folder.fold(0.0)
        begun.append(log.current)

    monkeypatch.setattr(folder, "wait", folded_meanwhile)
    assert folder.make_way(SIZES.first) is None
    assert [log.current] == begun
    assert log.spare is not None


def test_on_a_full_disk_a_job_that_was_deleted_later_never_comes_to_the_database(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, ids = on_full_disk(stores, monkeypatch, "a")
    store.wait(store.engine.delete(store.job(ids[0])))
    made = statements_about_jobs(store)
    assert folds(store)
    assert made == []
    store.journal._database.set_trace_callback(None)
    assert stores.open().put() == ids[0] + 1


def test_on_a_full_disk_deletes_are_folded_and_puts_wait_until_the_reserve_has_room(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = stores.open().put()
    # A stop brings it to the database.
    store, ids = on_full_disk(stores, monkeypatch, "a")
    store.wait(store.engine.delete(store.job(first)))
    made = statements_about_jobs(store)

    def no_room(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", no_room)
        assert not folds(store)
        assert isinstance(store.journal._folder.error, StoreFull)
    assert made == ["DELETE"]
    assert folds(store)
    assert not store.journal.stats.full
    assert made[-1] == "INSERT"
    store.journal._database.set_trace_callback(None)
    assert [job.id for job in stores.open().engine._jobs.all()] == ids
