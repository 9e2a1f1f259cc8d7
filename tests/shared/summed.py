"""A set of segments on a real server, which the Lua module sums."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from beanspiked.engine.aerospike.segment.codec import Packed, pack
from beanspiked.engine.aerospike.store.aerospike import udf
from beanspiked.engine.aerospike.store.keys import due_key, lease_key, ready_key
from beanspiked.engine.aerospike.store.seam import BURIED, DELAYED, OPEN, READY

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.aerospike.udf import Sizes


# Its lower half is above 2**31, as that of the clock's time is now and then.
NOW_MS = (400 << 32) + (3 << 30)

RESERVED = "reserved"


class Segments:
    """A set of its own on a real server."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.set_name = f"t{uuid.uuid4().hex[:6]}_seg"

    def sizes(self, tube: str | None = None, now_ms: int = NOW_MS) -> Sizes:
        return udf.sizes(self.client, "test", self.set_name, tube, now_ms)

    def fill(
        self,
        number: int,
        tube: str,
        jobs: dict[str, list[bytes]],
        due_ms: int = NOW_MS,
        state: int = OPEN,
        form: Any = None,
    ) -> None:
        """Make a segment with these packed jobs by state. Delayed jobs are due one ms after the other. Reserved jobs have two holders."""
        keyed = {name: {ready_key(5, 1, slot): job for slot, job in enumerate(packed)} for name, packed in jobs.items()}
        held = keyed.pop(RESERVED, {})
        keyed[DELAYED] = {due_key(due_ms + slot, slot): job for slot, job in enumerate(jobs.get(DELAYED, []))}
        leases: dict[int, dict[bytes, bytes]] = {lease_key(7, 1): {}, lease_key(8, 1): {}, lease_key(9, 1): {}}
        for index, (key, job) in enumerate(held.items()):
            leases[lease_key(7 + index % 2, 1)][key] = job
        bins = {"f": form, "no": number, "tube": tube, "st": state, READY: {}, BURIED: {}, "held": leases, **keyed}
        self.client.put(("test", self.set_name, number), bins)


def plain(size: int) -> bytes:
    return pack(Packed(1, 0, 60_000, NOW_MS, b"x" * size))
