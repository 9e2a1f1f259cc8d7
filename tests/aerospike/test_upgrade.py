"""A cluster that front-ends of the version before have written to: a record for each tube, and their names in lists."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import pytest
from aerospike import exception as client_errors
from segments import run

from beanspiked.engine.aerospike.store.aerospike import upgrade
from beanspiked.engine.aerospike.store.directory import Directory
from beanspiked.engine.aerospike.store.keys import lease_key
from beanspiked.engine.aerospike.store.lister import Lister
from beanspiked.engine.aerospike.store.seam import Busy
from beanspiked.engine.errors import StoreUnusable

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.aerospike.adapter import AerospikeStore

# The records of segments were used again from here on.
FORMER_RING = 1 << 20


def leave(store: AerospikeStore, client: Any, tubes: dict[str, dict[str, Any]], last: int = 5) -> None:
    """Write what the version before does."""
    lists: dict[int, dict[str, int]] = {}
    for name, bins in tubes.items():
        client.put(store.key("dir", name), bins)
        lists.setdefault(zlib.crc32(name.encode()) % 64, {})[name] = 1
    for part, names in lists.items():
        client.put(store.key("ctl", f"tubes-{part}"), {"names": names})
    client.put(store.key("ctl", "counter-segment"), {"last": last})


TUBES: dict[str, dict[str, Any]] = {
    "a": {"segments": {1: 0, FORMER_RING + 2: 0}, "total_jobs": 7, "deletes": 0, "pauses": 1},
    "b": {"segments": dict.fromkeys(range(10, 1000), 0)},
    "c": {"pause": 5000, "until": 1 << 41},
}


async def check_moved(store: AerospikeStore) -> None:
    tubes = await store.tubes()
    assert tubes["a"] == Directory([1, FORMER_RING + 2], counters={"total_jobs": 7, "pauses": 1})
    assert tubes["c"] == Directory([], 5000, 1 << 41)
    assert sorted((await Lister(store).everywhere({"b": tubes["b"]}))["b"]) == list(range(10, 1000))


def test_its_directories_are_moved_and_its_segments_found(real: AerospikeStore, client: Any) -> None:
    async def check() -> None:
        leave(real, client, TUBES)
        client.put(real.key("seg", 2), {"no": FORMER_RING + 2})
        await upgrade.take_over(real)
        await check_moved(real)
        assert real._segment_key(FORMER_RING + 2)[2] == 2
        await real.add_counters("a", {"total_jobs": 1})
        # Once is enough.
        await upgrade.take_over(real)
        assert (await real.tubes())["a"].counters["total_jobs"] == 8

    run(check())


@pytest.mark.parametrize("calls", [5, 9, 40, 400])
def test_a_move_that_was_interrupted_is_gone_on_with(
    real: AerospikeStore, client: Any, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, left = real.caller.ready, calls

    async def failing() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Busy("11: the node is gone")
        await ready()

    async def check() -> None:
        leave(real, client, TUBES)
        monkeypatch.setattr(real.caller, "ready", failing)
        with pytest.raises(Busy):
            await upgrade.take_over(real)
        monkeypatch.setattr(real.caller, "ready", ready)
        await upgrade.take_over(real)
        await check_moved(real)

    run(check())


def test_one_of_its_front_ends_that_has_no_tubes_is_refused_too(real: AerospikeStore) -> None:
    async def check() -> None:
        # It may have got more numbers for segments than it has used.
        await real.reserve_numbers("segment", 32)
        await real.join(3)
        with pytest.raises(StoreUnusable, match="session 3 is a front-end of an older version"):
            await upgrade.take_over(real)

    run(check())


def test_a_cluster_that_lost_its_memory_beside_a_front_end_of_this_version_is_not_refused(
    real: AerospikeStore, client: Any
) -> None:
    async def check() -> None:
        await upgrade.take_over(real)
        client.remove(real.key("ctl", "shards"))
        await real.secret()
        await real.join(3)
        await upgrade.take_over(real)

    run(check())


def test_while_one_of_its_front_ends_lives_it_is_refused_and_left_alone(real: AerospikeStore, client: Any) -> None:
    async def check() -> None:
        leave(real, client, TUBES)
        await real.join(3)
        with pytest.raises(StoreUnusable, match="session 3 is a front-end of an older version"):
            await upgrade.take_over(real)
        assert (await real.tubes(), await real.reserve_numbers("segment", 1)) == ({}, 6)
        await real.resign(3)
        await upgrade.take_over(real)
        await check_moved(real)

    run(check())


def test_its_front_ends_can_make_no_segments_afterwards(real: AerospikeStore) -> None:
    async def check() -> None:
        await upgrade.take_over(real)
        await real.join(4)
        await upgrade.take_over(real)
        # As they do it.
        with pytest.raises((client_errors.AerospikeError, Busy)):
            await real.reserve_numbers("segment", 32)
        await real.create((await real.reserve_places("segment", 1)).first, "t", lease_key(4, 1))

    run(check())


def test_numbers_that_are_too_high_are_refused(real: AerospikeStore, client: Any) -> None:
    async def check() -> None:
        leave(real, client, TUBES, last=1 << 24)
        with pytest.raises(StoreUnusable, match="use another prefix"):
            await upgrade.take_over(real)

    run(check())


def test_a_directory_that_cannot_be_read_keeps_no_other(
    real: AerospikeStore, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        leave(real, client, {**TUBES, "odd": {"segments": "none"}})
        await upgrade.take_over(real)
        await check_moved(real)

    run(check())
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "the directory of tube odd cannot be read, so its jobs are not found: segments is of type str"
    ]
