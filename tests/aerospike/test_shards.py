"""Which shard a tube is in: all front-ends of a cluster agree on it, and nobody outside can tell."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from beanspiked.engine.aerospike.store.aerospike.adapter import AerospikeStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest


def others(real: AerospikeStore, client: Any) -> Iterator[AerospikeStore]:
    """Start further front-ends of the same cluster."""
    while True:
        store = AerospikeStore(client, real._namespace, real._prefix)
        yield store
        store.caller.close()


def test_all_front_ends_of_a_cluster_agree(real: AerospikeStore, client: Any) -> None:
    names = [f"tube-{number}" for number in range(50)]
    mine = [real._shard_key(name) for name in names]
    made = others(real, client)
    for _, other in zip(range(2), made, strict=False):
        assert [other._shard_key(name) for name in names] == mine
    made.close()  # type: ignore[attr-defined]


def test_names_that_fill_a_shard_of_one_cluster_are_spread_over_another(
    real: AerospikeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = [name for name in map(str, range(40_000)) if real._shard_key(name) == real._shard_key("default")]
    assert len(chosen) > 15
    monkeypatch.setattr(real, "_salt", b"of another cluster")
    assert max(Counter(real._shard_key(name) for name in chosen).values()) <= 3
