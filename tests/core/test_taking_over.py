"""Before a front-end uses a cluster, it takes over what the version before has left there."""

from __future__ import annotations

import asyncio

import pytest

from beanspiked.engine.aerospike.store.aerospike import adapter as adapter_module
from beanspiked.engine.aerospike.store.aerospike.adapter import AerospikeStore
from beanspiked.engine.aerospike.store.seam import StoreError, Unknown
from beanspiked.engine.errors import StoreUnusable

FAILURE = Unknown("one of many answers was late")


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> list[StoreError | None]:
    """What comes of each try."""
    made: list[StoreError | None] = []

    async def take_over(_: object) -> None:
        outcome = made.pop(0)
        if outcome is not None:
            raise outcome

    monkeypatch.setattr(adapter_module.upgrade, "take_over", take_over)
    monkeypatch.setattr(adapter_module, "TRY_EVERY", 0.0)
    return made


def take_over() -> None:
    store = AerospikeStore(None, "test", "t_")
    try:
        asyncio.run(store._take_over(None))
    finally:
        store.caller.close()


def test_an_answer_that_is_late_is_asked_for_again(outcomes: list[StoreError | None]) -> None:
    outcomes += [FAILURE, FAILURE, None]
    take_over()
    assert outcomes == []


def test_a_cluster_that_does_not_answer_is_given_up_after_a_while(
    outcomes: list[StoreError | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes += [FAILURE, FAILURE]
    monkeypatch.setattr(adapter_module, "TAKEN_OVER_WITHIN", 0.0)
    with pytest.raises(StoreUnusable, match="not moved yet: one of many answers was late"):
        take_over()
    assert outcomes == [FAILURE]
