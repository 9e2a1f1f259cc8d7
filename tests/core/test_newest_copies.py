"""While a cluster moves data, the first copy of a record may be old or missing, and each read asks the others as well."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import aerospike
from aerospike import exception as client_errors
from aerospike_helpers.operations import operations
from memory import MemoryStore
from world import World

from beanspiked.engine.aerospike.store.aerospike import bodies
from beanspiked.engine.aerospike.store.aerospike.adapter import AerospikeStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

BINS = {"f": 1, "no": 1, "nr": 1, "body": b"body"}


class MovingClient:
    """Reads of a cluster to which a node has come back: it is asked first, and has none of the records that were made meanwhile."""

    def get(self, key: Any, policy: dict[str, Any]) -> Any:
        if not _asks_all(policy):
            raise client_errors.RecordNotFound("the node that is asked first does not have it", 2)
        return key, {}, BINS

    def batch_operate(self, keys: list[Any], _ops: Any, policy: dict[str, Any]) -> Any:
        records = [SimpleNamespace(key=key) for key in keys]
        self._answer(records, policy)
        return SimpleNamespace(batch_records=records, result=0)

    def batch_write(self, batch: Any, policy: dict[str, Any]) -> Any:
        self._answer(batch.batch_records, policy)
        return batch

    def _answer(self, records: Any, policy: dict[str, Any]) -> None:
        for record in records:
            record.result = 0 if _asks_all(policy) else 2
            record.record = (record.key, {}, BINS)


def _asks_all(policy: dict[str, Any]) -> bool:
    return policy.get("read_mode_ap") == aerospike.POLICY_READ_MODE_AP_ALL


def test_records_are_found_that_a_node_lacks_which_has_just_come_back() -> None:
    async def check() -> None:
        store = AerospikeStore(MovingClient(), "test")
        try:
            assert await store.read_bodies([(1, 1), (1, 2)]) == [b"body", b"body"]
            assert await store.get(store.key("ctl", "sessions")) == BINS
            key = store.key("ctl", "tubes.1")
            assert store.caller.read_differently([(key, [operations.read("f")])]) == [BINS]
        finally:
            store.caller.close()

    asyncio.run(check())


class WokenClient:
    """A cluster of which the node is asked that has just woken; it is up to date the second time."""

    def __init__(self) -> None:
        self.asked = 0

    def batch_operate(self, keys: list[Any], *_: Any) -> Any:
        self.asked += 1
        code = 2 if self.asked == 1 else 0
        records = [SimpleNamespace(key=key, result=code, record=(key, {}, BINS)) for key in keys]
        return SimpleNamespace(batch_records=records, result=0)


def test_a_body_is_lost_for_certain_only_if_it_is_missing_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "LOST_AFTER", 0.0)

    async def check() -> None:
        store = AerospikeStore(WokenClient(), "test")
        try:
            assert await store.read_bodies([(1, 1)], sure=True) == [b"body"]
        finally:
            store.caller.close()

    asyncio.run(check())


class BehindStore(MemoryStore):
    """No body is there at first."""

    async def read_bodies(self, names: Sequence[tuple[int, int]], *, sure: bool = False) -> list[bytes | None]:
        return await super().read_bodies(names) if sure else [None for _ in names]


def test_a_job_is_buried_only_if_its_body_is_lost_for_certain() -> None:
    here = World(1, store_class=BehindStore)
    client = here.front_end().connect()
    job_id = client.put(here.chance.randbytes(5000))
    assert client.ask(b"reserve-with-timeout 1\r\n").startswith(b"RESERVED %d " % job_id)
