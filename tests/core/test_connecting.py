"""How a front-end comes to a cluster that cannot be reached yet, or is not fit."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from beanspiked.engine.aerospike import start as starting
from beanspiked.engine.aerospike.store.aerospike import client as connecting
from beanspiked.engine.aerospike.store.aerospike import udf
from beanspiked.engine.aerospike.store.aerospike.adapter import AerospikeStore
from beanspiked.engine.aerospike.store.seam import Busy
from beanspiked.engine.errors import StoreUnusable
from beanspiked.ops.health import Finding
from beanspiked.ops.url import parse_address

ADDRESS = parse_address("aerospike://127.0.0.1:1/test")


class Client:
    """A client that only knows whether it is closed."""

    closed = False

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client that a cluster takes at once; its nodes have the Lua module."""
    client = Client()
    monkeypatch.setattr(connecting, "connect", lambda _: client)
    monkeypatch.setattr(udf, "register", lambda _: None)
    return client


def unusable(inspect: Any) -> str:
    """Connect a store in vain; return why."""
    store = AerospikeStore(None, "test")
    with pytest.raises(StoreUnusable) as raised:
        asyncio.run(store.connect({}, inspect))
    store.caller.close()
    assert store.caller.client is None
    return str(raised.value)


def test_a_cluster_that_takes_no_modules_yet_is_unusable_for_now(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Any) -> None:
        raise udf.ModuleMissing("a node refused udf-put: error=timeout")

    monkeypatch.setattr(udf, "register", refuse)
    assert "timeout" in unusable(lambda _: None)
    assert client.closed


def test_nothing_is_asked_of_a_cluster_that_is_not_fit(client: Client) -> None:
    def inspect(inspected: Any) -> None:
        assert inspected is client
        raise StoreUnusable("not fit")

    assert unusable(inspect) == "not fit"
    assert client.closed


def test_warnings_are_logged_once_and_errors_make_a_cluster_unfit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    findings = [Finding("ok", "fine"), Finding("warning", "slow disk")]
    monkeypatch.setattr(starting, "inspect", lambda *_: findings)
    inspection = starting._inspection(ADDRESS, 65535)
    inspection(None)
    findings += [Finding("error", "one"), Finding("error", "two")]
    with pytest.raises(StoreUnusable, match="one; two"):
        inspection(None)
    assert [(record.levelno, record.message) for record in caplog.records] == [(logging.WARNING, "slow disk")]


def test_what_fails_is_tried_on_and_each_reason_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "CONNECT_EVERY", 0.0)
    outcomes = [StoreUnusable("a"), StoreUnusable("a"), Busy("b"), StoreUnusable("a"), None]
    told: list[str] = []

    async def attempt() -> None:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome

    asyncio.run(starting._try_on(attempt, lambda error: told.append(str(error))))
    assert (outcomes, told) == ([], ["a", "b"])


@pytest.mark.parametrize("first", ["a..b", "255.255.255.255"])
def test_a_front_end_listens_for_others_if_any_host_of_the_cluster_has_an_address(first: str) -> None:
    async def listen(hosts: str) -> str:
        network = starting._network(parse_address(f"aerospike://{hosts}/test"))
        address = await network.listen(asyncio.Protocol)  # type: ignore[arg-type]
        network.close()
        return address

    assert asyncio.run(listen(f"{first}:3000,127.0.0.1:3000")).startswith("127.0.0.1:")
    assert asyncio.run(listen(first)) == ""


@pytest.mark.parametrize("odd", ["", "a..b:3000", "127.0.0.1:99999", "127.0.0.1:\u00b2", "127.0.0.1:port"])
def test_what_is_no_address_cannot_be_reached(odd: str) -> None:
    with pytest.raises(OSError, match="no address"):
        asyncio.run(starting._network(ADDRESS).dial(odd, asyncio.Protocol))  # type: ignore[arg-type]


def test_each_client_gets_the_lua_directory_which_the_first_one_decides_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(connecting.aerospike, "client", given.append)
    connecting.connect({"hosts": [("127.0.0.1", 1)]})
    assert given == [{"hosts": [("127.0.0.1", 1)], "lua": {"user_path": udf.module_directory()}}]
