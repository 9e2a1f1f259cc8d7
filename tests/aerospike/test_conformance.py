"""protocol_conformance against front-ends of a real Aerospike server."""

from __future__ import annotations

import contextlib
import uuid
from typing import Any

import pytest
from asd import NAMESPACE, forget
from suite import address_of, conformance

pytestmark = [pytest.mark.scaled, pytest.mark.real]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("front_ends", "profile"), [(1, "shared"), (3, "cluster")])
def test_front_ends_of_a_cluster_conform(address: tuple[str, int], client: Any, front_ends: int, profile: str) -> None:
    prefix = f"c{uuid.uuid4().hex[:6]}_"
    store = f"aerospike://{address[0]}:{address[1]}/{NAMESPACE}?prefix={prefix}"
    with contextlib.ExitStack() as stack:
        stack.callback(forget, client, prefix)
        servers = [stack.enter_context(address_of("--store", store)) for _ in range(front_ends)]
        named = [word for server in servers for word in ("--server", server)]
        ended = conformance(*named, "--profile", profile)
    assert ended["passed"] > 550
    assert "failed" not in ended
