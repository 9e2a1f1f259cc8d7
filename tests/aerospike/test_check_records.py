"""What `beanspiked check` says of records on a real server that cannot be read, or are of a newer format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from aerospike.exception import AerospikeError
from segments import LEASE, run
from versions import NEXT, NEXT_FORM

from beanspiked.engine.aerospike.segment.codec import Packed, pack
from beanspiked.engine.aerospike.store.aerospike.calls import meaning
from beanspiked.engine.aerospike.store.keys import SLOT_BITS, ready_key
from beanspiked.engine.aerospike.store.seam import READY, Change
from beanspiked.ops.records import NAMED_MAX, set_aside

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.aerospike.adapter import AerospikeStore

JOB = Packed(5, 0, 60_000, 1, b"body")


@pytest.fixture
def filled(real: AerospikeStore) -> AerospikeStore:
    """A store with a record of each kind."""

    async def fill() -> None:
        session = await real.reserve_numbers("session", 7)
        await real.join(session)
        await real.heartbeat(session, b"{}")
        await real.publish(session, b"[1,[]]")
        await real.create(3, "t", LEASE)
        await real.enlist("t", 3)
        await real.apply(3, LEASE, Change(1, {READY: {ready_key(5, 1, 1): pack(JOB)}}))
        await real.write_body(3, 1, b"body")

    run(fill())
    return real


def said(store: AerospikeStore, client: Any, **options: Any) -> list[str]:
    return [f"{level}: {text}" for level, text in set_aside(client, "test", store._prefix, **options)]


def test_where_all_can_be_read_there_is_nothing_to_say(filled: AerospikeStore, client: Any) -> None:
    (line,) = said(filled, client)
    assert line.startswith("ok: ")
    assert " records can be read; " in line


@pytest.mark.parametrize(
    ("name", "key", "named"),
    [
        ("seg", 3, "segment 3 of tube t"),
        ("ses", "slot-1", "session 1"),
        ("news", "slot-1", "the news of session 1"),
        ("ctl", "counter-session", "the record counter-session"),
        ("ctl", "sessions", "the record sessions"),
        ("body", "3-1", "the body with digest "),
    ],
)
def test_a_record_of_a_newer_format_is_named(
    filled: AerospikeStore, client: Any, name: str, key: int | str, named: str
) -> None:
    client.put(filled.key(name, key), {"f": NEXT_FORM})
    told = [line for line in said(filled, client) if named in line]
    assert len(told) == 1
    assert f"is of format {NEXT_FORM}" in told[0]
    assert "cannot be read" not in told[0]


@pytest.mark.parametrize(
    ("name", "key", "bins", "named"),
    [
        ("seg", 3, {"hwm": None}, "segment 3 of tube t cannot be read and is left alone: hwm is missing"),
        ("seg", 3, {"no": None, "tube": None}, "a segment without a number cannot be read"),
        ("ses", "slot-1", {"dead": "no"}, "session 1 cannot be read and is left alone: dead is of type str"),
        ("news", "slot-1", {"news": 7}, "the news of session 1 cannot be read"),
        ("body", "3-1", {"f": "x"}, "f is of type str"),
    ],
)
def test_a_record_that_cannot_be_read_is_named(
    filled: AerospikeStore, client: Any, name: str, key: int | str, bins: dict[str, Any], named: str
) -> None:
    client.put(filled.key(name, key), bins)
    assert [line for line in said(filled, client) if named in line]


@pytest.mark.parametrize(
    ("packed", "named"),
    [
        (NEXT.pack(Packed(5, 0, 60_000, 1, b"body", form=NEXT_FORM)), "is left alone: it is of format"),
        (b"?", "cannot be read"),
    ],
)
def test_a_job_in_a_segment_is_named(filled: AerospikeStore, client: Any, packed: bytes, named: str) -> None:
    client.put(filled.key("seg", 3), {READY: {ready_key(5, 1, 1): packed}})
    (line,) = said(filled, client)
    assert line.startswith(f"warning: job {3 << SLOT_BITS | 1} of tube t {named}")


def test_many_are_counted(filled: AerospikeStore, client: Any) -> None:
    client.put(filled.key("seg", 3), {READY: {ready_key(5, slot, slot): b"?" for slot in range(1, NAMED_MAX + 4)}})
    lines = said(filled, client)
    assert len(lines) == NAMED_MAX + 1
    assert lines[-1].startswith("warning: 3 more of ")


def test_what_there_was_no_time_for_is_said(filled: AerospikeStore, client: Any) -> None:
    times = iter([0.0, *[1.0] * 5, *[9.0] * 100])
    lines = said(filled, client, seconds=5.0, now=lambda: next(times))
    prefix = filled._prefix
    assert len(lines) == 6
    assert lines[0] == f"warning: only 7 % of {prefix}ctl was searched for records that cannot be read"
    assert lines[-1] == f"warning: only 0 % of {prefix}body was searched for records that cannot be read"


class Failing:
    """A client and its queries, while a node has not yet the partitions that it is asked for."""

    def get(self, _: object) -> None:
        raise self.error()

    def query(self, *_: object) -> Failing:
        return self

    def select(self, *_: object) -> None:
        pass

    def results(self, _: object) -> None:
        raise self.error()

    def error(self) -> AerospikeError:
        parts = "\n".join(f"11,1,127.0.0.1:3000,Partition {number} unavailable" for number in (7, 8))
        error = AerospikeError()
        error.code, error.msg = 11, f"AEROSPIKE_ERR_CLUSTER\nsub-errors:\n{parts}\n"
        return error


def test_an_error_with_a_line_for_each_partition_is_told_on_one_line() -> None:
    what = "11: AEROSPIKE_ERR_CLUSTER: 11,1,127.0.0.1:3000,Partition 7 unavailable"
    told = [text for _, text in set_aside(Failing(), "test", "bsd_")]
    assert f"bsd_seg cannot be searched: {what}" in told
    assert not any("\n" in text for text in told)
    assert str(meaning(Failing().error())) == what
