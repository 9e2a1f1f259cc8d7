"""Changes of segments that are sent together, and what became of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from beanspiked.engine.aerospike.store.request import Request

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from beanspiked.engine.aerospike.store.request import Told
    from beanspiked.engine.aerospike.store.seam import Change, Outcome

    class Sender(Protocol):
        def send(self, requests: Sequence[Request], told: Told) -> None: ...


async def sent(sender: Sender, changes: Sequence[tuple[int, int, Change]]) -> list[Outcome | Exception | None]:
    """Send changes, each of a segment and under a lease, together; return their outcomes once all are known."""
    requests = []
    for number, lease, change in changes:
        request = Request(change)
        request.number = number
        request.lease = lease
        requests.append(request)
    known: asyncio.Queue[Request] = asyncio.Queue()

    def told(some: list[Request]) -> None:
        for request in some:
            known.put_nowait(request)

    sender.send(requests, told)
    told_of = {await known.get() for _ in requests}
    assert told_of == set(requests)
    return [request.outcome for request in requests]
