"""A log that is full while it cannot be folded."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from journals import Store, Stores, failing_fold

from beanspiked.engine.embedded import folder as folder_module
from beanspiked.engine.embedded.log import SIZES
from beanspiked.engine.embedded.statements import fold_steps
from beanspiked.engine.errors import StoreFailed

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
    go_on = threading.Event()

    def held_up(*given: Any) -> Iterator[None]:
        go_on.wait()
        return fold_steps(*given)

    monkeypatch.setattr(folder_module, "fold_steps", held_up)
    monkeypatch.setattr(folder_module, "WAIT_SECONDS", 0.001)
    store = filled(stores, monkeypatch)
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
