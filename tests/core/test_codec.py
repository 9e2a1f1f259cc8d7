"""Packed jobs: what goes in comes out, and what is damaged is told."""

import random
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beanspiked.engine.aerospike.segment.codec import (
    COUNTED,
    DETAILED,
    OUTSIDE,
    RESIZED,
    Packed,
    pack,
    pack_plain,
    unpack,
)
from beanspiked.engine.compression import SQUEEZE_ABOVE, expand, squeeze
from beanspiked.engine.errors import DamagedEntry

FIELDS = (
    "pri",
    "delay_ms",
    "ttr_ms",
    "put_us",
    "body",
    "reserves",
    "timeouts",
    "releases",
    "buries",
    "kicks",
    "raw_size",
    "body_number",
    "stored_size",
    "skipped",
    "failed",
    "born_ms",
    "retries",
    "metadata",
    "reason",
)

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
# Zero often, so that each part is often missing.
count = st.just(0) | u32
texts = st.just("") | st.text(max_size=40)


@st.composite
def jobs(draw: st.DrawFn) -> Packed:
    outside = draw(st.booleans())
    return Packed(
        pri=draw(u32),
        delay_ms=draw(u64),
        ttr_ms=draw(u64),
        put_us=draw(u64),
        body=b"" if outside else draw(st.binary(max_size=60)),
        reserves=draw(count),
        timeouts=draw(count),
        releases=draw(count),
        buries=draw(count),
        kicks=draw(count),
        raw_size=draw(st.just(-1) | u32),
        body_number=draw(st.integers(1, 2**32 - 1)) if outside else 0,
        stored_size=draw(u32),
        skipped=draw(st.booleans()),
        failed=draw(st.booleans()),
        born_ms=draw(st.just(0) | u64),
        retries=draw(count),
        metadata=draw(texts),
        reason=draw(texts),
    )


def fields(job: Packed) -> dict[str, Any]:
    return {name: getattr(job, name) for name in FIELDS}


# --- there and back


@given(jobs())
def test_what_is_packed_is_unpacked(job: Packed) -> None:
    assert fields(unpack(pack(job))) == fields(job)


@given(u32, u64, u64, u64, st.binary(max_size=100))
def test_a_plain_job_is_its_head_and_its_body(pri: int, delay: int, ttr: int, put: int, body: bytes) -> None:
    packed = pack_plain(pri, delay, ttr, put, body)
    assert packed == struct.pack(">BIQQQ", 0, pri, delay, ttr, put) + body
    job = Packed(pri, delay, ttr, put, body)
    assert pack(job) == packed
    assert fields(unpack(packed)) == fields(job)


def test_the_layout_is_the_one_that_is_stored() -> None:
    job = Packed(
        1,
        2,
        3,
        4,
        b"body",
        reserves=5,
        timeouts=6,
        releases=7,
        buries=8,
        kicks=9,
        raw_size=10,
        skipped=True,
        failed=True,
        born_ms=11,
        retries=12,
        metadata="mé",
        reason="why",
    )
    parts = [
        struct.pack(">BIQQQ", 0x3B, 1, 2, 3, 4),
        struct.pack(">IIIII", 5, 6, 7, 8, 9),
        struct.pack(">I", 10),
        struct.pack(">QIHH", 11, 12, 3, 3),
        "méwhy".encode(),
        b"body",
    ]
    assert pack(job) == b"".join(parts)
    assert pack(Packed(1, 2, 3, 4, b"", body_number=5, stored_size=6)) == struct.pack(
        ">BIQQQII", 0x04, 1, 2, 3, 4, 5, 6
    )


def test_the_size_of_an_inline_body_is_its_own() -> None:
    assert Packed(0, 0, 0, 0, b"four", stored_size=99).stored_size == 4
    assert Packed(0, 0, 0, 0, b"", body_number=1, stored_size=99).stored_size == 99


# --- what cannot be packed


@pytest.mark.parametrize(
    "change",
    [
        {"pri": -1},
        {"pri": 2**32},
        {"delay_ms": 2**64},
        {"ttr_ms": -1},
        {"put_us": 2**64},
        {"reserves": 2**32},
        {"kicks": -1},
        {"raw_size": 2**32},
        {"body_number": 2**32, "body": b""},
        {"body_number": 1},
        {"born_ms": 2**64},
        {"retries": 2**32},
        {"metadata": "m" * 65536},
        {"reason": "é" * 32768},
    ],
    ids=" ".join,
)
def test_what_does_not_fit_is_refused(change: dict[str, Any]) -> None:
    plain: dict[str, Any] = {"pri": 0, "delay_ms": 0, "ttr_ms": 0, "put_us": 0, "body": b"body"}
    with pytest.raises(ValueError, match=r"."):
        pack(Packed(**{**plain, **change}))


def test_texts_of_the_greatest_length_fit() -> None:
    job = Packed(0, 0, 0, 0, b"body", metadata="m" * 65535, reason="r" * 65535)
    assert fields(unpack(pack(job))) == fields(job)


# --- damage


@given(jobs())
def test_a_truncated_job_is_damaged_or_has_a_shorter_body(job: Packed) -> None:
    packed = pack(job)
    shortest = len(packed) - len(job.body)
    for size in range(shortest):
        with pytest.raises(DamagedEntry):
            unpack(packed[:size])
    for size in range(shortest, len(packed)):
        # Where a body ends only its block can tell.
        expected = {**fields(job), "body": job.body[: size - shortest], "stored_size": size - shortest}
        assert fields(unpack(packed[:size])) == expected


@given(st.binary(max_size=200))
def test_random_bytes_are_a_job_or_damaged(noise: bytes) -> None:
    try:
        job = unpack(noise)
    except DamagedEntry:
        return
    assert fields(unpack(pack(job))) == fields(job)


@given(jobs(), st.data())
def test_a_job_with_a_wrong_byte_is_a_job_or_damaged(job: Packed, data: st.DataObject) -> None:
    packed = bytearray(pack(job))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = unpack(bytes(packed))
    except DamagedEntry:
        return
    assert fields(unpack(pack(found))) == fields(found)


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        bytes([0x40]) + bytes(28),
        bytes([0x80]) + bytes(200),
        bytes([COUNTED]) + bytes(28 + 19),
        bytes([RESIZED]) + bytes(28 + 3),
        bytes([OUTSIDE]) + bytes(28 + 8),
        bytes([OUTSIDE]) + bytes(28) + struct.pack(">II", 1, 1) + b"x",
        bytes([DETAILED]) + bytes(28) + struct.pack(">QIHH", 0, 0, 3, 2) + b"four",
        bytes([DETAILED]) + bytes(28) + struct.pack(">QIHH", 0, 0, 1, 0) + b"\xff",
        bytes([DETAILED]) + bytes(28) + struct.pack(">QIHH", 0, 0, 1, 1) + "é".encode(),
    ],
    ids=[
        "nothing",
        "a flag of later",
        "another",
        "counters",
        "raw size",
        "body number 0",
        "outside and inside",
        "texts too short",
        "no text",
        "a letter torn apart",
    ],
)
def test_a_damaged_job_is_told(packed: bytes) -> None:
    with pytest.raises(DamagedEntry):
        unpack(packed)


# --- compression


def letters(size: int) -> bytes:
    return b"abcdefghij" * (size // 10) + b"k" * (size % 10)


@given(st.integers(0, 6000), st.booleans())
def test_what_is_squeezed_is_expanded(size: int, regular: bool) -> None:
    body = letters(size) if regular else random.Random(size).randbytes(size)
    stored, raw_size, skipped = squeeze(body)
    assert expand(stored, raw_size) == body
    if size <= SQUEEZE_ABOVE:
        assert (stored, raw_size, skipped) == (body, -1, False)
    elif regular:
        assert (len(stored) < size, raw_size, skipped) == (True, size, False)
    else:
        assert (stored, raw_size, skipped) == (body, -1, True)


def test_a_megabyte_of_one_byte_is_squeezed_and_expanded() -> None:
    body = bytes(1 << 20)
    stored, raw_size, skipped = squeeze(body)
    assert (len(stored) < 5000, raw_size, skipped) == (True, 1 << 20, False)
    assert expand(stored, raw_size) == body


def test_every_truncated_block_is_damaged() -> None:
    stored, raw_size, _ = squeeze(letters(2500) + random.Random(1).randbytes(500))
    for size in range(len(stored)):
        with pytest.raises(DamagedEntry):
            expand(stored[:size], raw_size)


@pytest.mark.parametrize("raw_size", [0, 1, 2999, 3001, 100_000, 2**32 - 1])
def test_a_block_of_another_size_is_damaged(raw_size: int) -> None:
    stored, _, _ = squeeze(letters(2900) + random.Random(1).randbytes(100))
    with pytest.raises(DamagedEntry):
        expand(stored, raw_size)


@given(st.binary(max_size=300), st.integers(0, 2**32 - 1) | st.integers(0, 600))
def test_random_bytes_are_expanded_to_the_size_or_damaged(noise: bytes, raw_size: int) -> None:
    try:
        assert len(expand(noise, raw_size)) == raw_size
    except DamagedEntry:
        return


@given(st.data())
def test_a_block_with_a_wrong_byte_gives_the_size_or_is_damaged(data: st.DataObject) -> None:
    stored, raw_size, _ = squeeze(letters(2500))
    wrong = bytearray(stored)
    wrong[data.draw(st.integers(0, len(wrong) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        assert len(expand(bytes(wrong), raw_size)) == raw_size
    except DamagedEntry:
        return
