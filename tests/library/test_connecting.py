"""Connecting to a store: what go-beanspike's users have, on every store; tests have the names of its list of abilities.

go-beanspike (https://github.com/redsift/go-beanspike) is the library whose users should find everything here.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from asd import NAMESPACE
from launcher import free_port

import beanspiked
from beanspiked.library.conn import DEFAULT_HOST, Conn

if TYPE_CHECKING:
    from stores import Stores


@pytest.mark.parametrize(
    ("environ", "hosts"),
    [
        ({}, [(DEFAULT_HOST, 3000)]),
        ({"AEROSPIKE_HOST": "db1"}, [("db1", 3000)]),
        ({"AEROSPIKE_HOST": "db1", "AEROSPIKE_PORT": "4000"}, [("db1", 4000)]),
        ({"AEROSPIKE_PORT": "tcp://172.17.0.5:3100"}, [("172.17.0.5", 3100)]),
    ],
)
def test_connect_with_defaults(environ: dict[str, str], hosts: list[tuple[str, int]]) -> None:
    conn = beanspiked.dial_default(environ)
    assert [(host, port) for host, port, _ in conn._store.hosts] == hosts  # type: ignore[union-attr]
    assert conn._store.namespace == "beanspike"  # type: ignore[union-attr]


def test_connect_with_defaults_to_a_cluster(address: tuple[str, int]) -> None:
    host, port = address

    async def check() -> None:
        environ = {"AEROSPIKE_HOST": host, "AEROSPIKE_PORT": f"tcp://{host}:{port}", "AEROSPIKE_NAMESPACE": NAMESPACE}
        for dialled in (beanspiked.dial_default(environ), beanspiked.dial(host, port, NAMESPACE)):
            async with dialled as conn:
                tube = conn.use("test-connect-with-defaults")
                assert await tube.delete(await tube.put(b"x"))

    asyncio.run(check())


def test_connect_and_keep_trying_a_cluster_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    async def check() -> None:
        url = f"aerospike://127.0.0.1:{free_port()}/{NAMESPACE}"
        with pytest.raises(beanspiked.StoreUnusable):
            await beanspiked.connect(url, retry=beanspiked.Retry(attempts=2, first=0.01))
        trying = asyncio.create_task(beanspiked.connect(url, retry=beanspiked.Retry(first=0.01)).open())
        await asyncio.sleep(0.1)
        trying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trying

    asyncio.run(check())
    assert "not connected after 1 tries" in caplog.text


@pytest.mark.parametrize("variable", ["AEROSPIKE_HOST", "AEROSPIKE_PORT"])
def test_connect_with_defaults_names_a_malformed_variable(variable: str) -> None:
    with pytest.raises(ValueError, match=variable):
        beanspiked.dial_default({variable: "no such: thing"})


def test_what_kubernetes_sets_for_a_service_is_not_dialled_and_that_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    conn = beanspiked.dial_default({"AEROSPIKE_PORT": "tcp://10.0.0.1:4000", "AEROSPIKE_SERVICE_HOST": "10.0.0.1"})
    assert conn._store.hosts == ((DEFAULT_HOST, 3000, None),)  # type: ignore[union-attr]
    assert "Kubernetes" in caplog.text


def test_connect_explicitly(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        assert conn.client_id == "me"
        assert await conn.use(stores.tube).put(b"x") > 0
        await conn.delete_tube(stores.tube)

    stores.run(check, client_id="me")
    assert len({beanspiked.dial("db1", 3000).client_id for _ in range(3)}) == 3


@pytest.mark.parametrize("url", ["", "memory", "sqlite:", "aerospike://", "aerospike://host", "http://x/y"])
def test_connect_explicitly_refuses_what_is_no_store(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        beanspiked.connect(url)


def test_connect_and_keep_trying(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def check() -> None:
        async with beanspiked.connect(f"sqlite:{tmp_path}/jobs"):
            with pytest.raises(beanspiked.StoreUnusable):
                await beanspiked.connect(f"sqlite:{tmp_path}/jobs")
            with pytest.raises(beanspiked.StoreUnusable):
                await beanspiked.connect(f"sqlite:{tmp_path}/jobs", retry=beanspiked.Retry(attempts=3, first=0.001))
            trying = asyncio.create_task(
                beanspiked.connect(f"sqlite:{tmp_path}/jobs", retry=beanspiked.Retry(first=0.001, longest=0.001)).open()
            )
            while "after 41 tries" not in caplog.text:  # noqa: ASYNC110 - that is what is to be seen
                await asyncio.sleep(0.001)
            cancelled = asyncio.create_task(
                beanspiked.connect(f"sqlite:{tmp_path}/jobs", retry=beanspiked.Retry()).open()
            )
            await asyncio.sleep(0)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
        await (await trying).close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(check())
    # Once in twenty tries.
    assert caplog.text.count("not connected after") <= 4 + 1000 // 20
