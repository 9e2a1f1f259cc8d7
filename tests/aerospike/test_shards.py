"""Which shard a tube is in: all front-ends of a cluster agree on it, and nobody outside can tell."""

from __future__ import annotations

import asyncio
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


def test_a_salt_that_the_cluster_has_lost_is_put_back(real: AerospikeStore, client: Any) -> None:
    salt = asyncio.run(real.secret())
    client.remove(real.key("ctl", "shards"))
    assert asyncio.run(real.secret()) == salt
    assert asyncio.run(next(others(real, client)).secret()) == salt


def test_a_salt_that_another_front_end_has_made_anew_is_read(real: AerospikeStore, client: Any) -> None:
    salt, before = asyncio.run(real.secret()), real._shard_key("tube")
    client.remove(real.key("ctl", "shards"))
    other = next(others(real, client))
    made = asyncio.run(other.secret())
    assert made != salt
    assert asyncio.run(real.secret()) == made
    assert real._shard_key("tube") == other._shard_key("tube") != before
