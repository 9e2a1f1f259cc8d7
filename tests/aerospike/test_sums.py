"""The Lua module sums the jobs of segments."""

from __future__ import annotations

import asyncio
import random
import uuid
from typing import Any

import pytest
from summed import NOW_MS, RESERVED, Segments, plain

from beanspiked.engine.aerospike.segment.codec import Packed, pack
from beanspiked.engine.aerospike.store.aerospike import udf
from beanspiked.engine.aerospike.store.aerospike.udf import Sizes
from beanspiked.engine.aerospike.store.formats import NEWEST
from beanspiked.engine.aerospike.store.keys import due_key, lease_key, ready_key
from beanspiked.engine.aerospike.store.seam import BURIED, CLOSED, DEAD, DELAYED, READY, Change

# Other tests take the module away.
pytestmark = pytest.mark.xdist_group("aerospike-modules")


def test_no_segments_have_no_jobs(segments: Segments) -> None:
    assert segments.sizes() == Sizes()
    assert segments.sizes("tube") == Sizes()


def test_jobs_are_counted_by_state_and_their_bodies_summed(segments: Segments) -> None:
    outside = pack(Packed(1, 0, 0, 0, b"", body_number=3, stored_size=3_000_000_000, skipped=True))
    squeezed = pack(Packed(1, 0, 0, 0, b"z" * 30, raw_size=4_000_000_000, reserves=2, metadata="é" * 300, reason="r"))
    jobs = {
        READY: [plain(10), plain(0)],
        DELAYED: [plain(1), plain(2), plain(3)],
        BURIED: [outside],
        RESERVED: [squeezed, plain(5), plain(6), plain(7)],
    }
    segments.fill(1, "tube", jobs, due_ms=NOW_MS - 1)
    raw = 10 + 1 + 2 + 3 + 5 + 6 + 7
    expected = Sizes(
        ready=4,
        delayed=1,
        reserved=4,
        buried=1,
        job_size=raw + 7_000_000_000,
        used_size=raw + 30 + 3_000_000_000,
        skipped_size=3_000_000_000,
    )
    assert segments.sizes() == segments.sizes("tube") == expected
    assert segments.sizes("tub") == segments.sizes("tube2") == Sizes()


@pytest.mark.parametrize("due_ms", [1, 2**31, 2**32 - 1, 2**32, NOW_MS, 2**48 - 1])
def test_a_delayed_job_is_ready_from_the_millisecond_in_which_it_is_due(segments: Segments, due_ms: int) -> None:
    segments.fill(1, "tube", {DELAYED: [plain(1)]}, due_ms)
    found = [segments.sizes(now_ms=due_ms + later) for later in (-1, 0, 1)]
    assert [(sizes.ready, sizes.delayed) for sizes in found] == [(0, 1), (1, 0), (1, 0)]


def test_a_dead_segment_has_no_jobs(segments: Segments) -> None:
    segments.fill(1, "tube", {READY: [plain(10)], RESERVED: [plain(5)]}, state=DEAD)
    segments.fill(2, "tube", {READY: [plain(3)]}, state=CLOSED)
    assert segments.sizes() == Sizes(ready=1, job_size=3, used_size=3)


def test_a_job_that_cannot_be_read_counts_by_its_state_only(segments: Segments) -> None:
    whole = pack(Packed(1, 2, 3, 4, b"", reserves=1, raw_size=9, metadata="metadata", reason="reason"))
    placed = pack(Packed(1, 2, 3, 4, b"", reserves=1, body_number=2, stored_size=7))
    cut = [whole[:size] for size in range(len(whole))]
    segments.fill(1, "tube", {READY: cut, BURIED: [placed[:size] for size in range(len(placed))], RESERVED: [whole]})
    # Without a flag of its own nothing can be missing but the head.
    assert segments.sizes() == Sizes(
        ready=len(cut), buried=len(placed), reserved=1, job_size=9, damaged=len(cut) + len(placed)
    )


@pytest.mark.parametrize("first_byte", [0x40, 0x42, 0x80, 0xFF])
def test_a_job_of_a_later_format_counts_by_its_state_only_and_is_not_damaged(
    segments: Segments, first_byte: int
) -> None:
    segments.fill(1, "tube", {READY: [plain(10), bytes([first_byte]) + plain(20)[1:]]}, form=NEWEST)
    assert segments.sizes() == Sizes(ready=2, job_size=10, used_size=10)


@pytest.mark.parametrize("form", [NEWEST + 1, "text"])
def test_a_segment_of_a_newer_format_is_not_summed(segments: Segments, form: Any) -> None:
    segments.fill(1, "tube", {READY: [plain(10)]}, form=form)
    segments.fill(2, "tube", {READY: [plain(3)]}, form=NEWEST)
    assert segments.sizes() == Sizes(ready=1, job_size=3, used_size=3)


def test_the_store_writes_what_the_module_reads(client: Any) -> None:
    from beanspiked.engine.aerospike.store.aerospike.adapter import AerospikeStore

    prefix = f"t{uuid.uuid4().hex[:6]}_"
    store = AerospikeStore(client, "test", prefix)
    puts = {
        READY: {ready_key(5, 1, 1): plain(1), ready_key(6, 1, 2): plain(2), ready_key(7, 1, 3): plain(4)},
        DELAYED: {due_key(NOW_MS, 4): plain(8), due_key(NOW_MS + 1, 5): plain(16), due_key(NOW_MS + 2, 6): plain(32)},
        BURIED: {due_key(1, 7): plain(64)},
    }

    async def make() -> None:
        await store.create(1, "tube", lease_key(7, 1))
        await store.apply(1, lease_key(7, 1), Change(last_slot=7, puts=puts))
        await store.apply(1, lease_key(7, 1), Change(take=1))

    asyncio.run(make())
    store.caller.close()
    expected = Sizes(ready=3, delayed=2, reserved=1, buried=1, job_size=127, used_size=127)
    assert udf.sizes(client, "test", f"{prefix}seg", "tube", NOW_MS) == expected


class Model:
    """Random segments, and what their sums must be."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.jobs: list[tuple[str, str, Packed, int]] = []

    def job(self) -> Packed:
        chance = self.random.random
        outside = chance() < 0.2
        body = b"" if outside else self.random.randbytes(self.random.randrange(200))
        return Packed(
            self.random.randrange(2**32),
            0,
            60_000,
            NOW_MS,
            body,
            reserves=self.random.randrange(3) if chance() < 0.5 else 0,
            raw_size=self.random.randrange(2**32) if chance() < 0.3 else -1,
            body_number=self.random.randrange(1, 2**32) if outside else 0,
            stored_size=self.random.randrange(2**32),
            skipped=chance() < 0.3,
            failed=chance() < 0.2,
            retries=self.random.randrange(3) if chance() < 0.2 else 0,
            metadata="m" * self.random.randrange(300) if chance() < 0.2 else "",
            reason="é" * self.random.randrange(300) if chance() < 0.2 else "",
        )

    def segment(self, tube: str) -> tuple[dict[str, list[bytes]], int]:
        """Return the jobs of a new segment by state, and when the first delayed one is due."""
        due_ms = NOW_MS + self.random.randrange(-10, 10)
        jobs: dict[str, list[bytes]] = {}
        for state in (READY, DELAYED, BURIED, RESERVED):
            for index in range(self.random.randrange(8)):
                job = self.job()
                jobs.setdefault(state, []).append(pack(job))
                self.jobs.append((tube, state, job, due_ms + index if state == DELAYED else 0))
        return jobs, due_ms

    def sizes(self, tube: str | None, now_ms: int) -> Sizes:
        counts = dict.fromkeys((READY, DELAYED, BURIED, RESERVED), 0)
        raw = used = skipped = 0
        for name, state, job, due_ms in self.jobs:
            if tube in (None, name):
                counts[READY if state == DELAYED and due_ms <= now_ms else state] += 1
                raw += job.stored_size if job.raw_size < 0 else job.raw_size
                used += job.stored_size
                skipped += job.stored_size if job.skipped else 0
        return Sizes(**counts, job_size=raw, used_size=used, skipped_size=skipped)


@pytest.mark.parametrize("seed", range(3))
def test_random_segments_are_summed_as_a_model_sums_them(segments: Segments, seed: int) -> None:
    model = Model(seed)
    for number in range(1, 60):
        tube = f"tube{number % 4}"
        segments.fill(number, tube, *model.segment(tube))
    for tube in (None, "tube0", "tube1", "tube2", "tube3", "other"):
        for now_ms in (NOW_MS - 20, NOW_MS, NOW_MS + 20):
            assert segments.sizes(tube, now_ms) == model.sizes(tube, now_ms)
