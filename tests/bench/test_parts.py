"""How `beanspiked bench` reads replies and sums up latencies."""

from __future__ import annotations

from typing import Any

import pytest

from beanspiked.bench.latency import Histogram
from beanspiked.bench.replies import read_any, reader_of_own


class TestReplies:
    STREAM = (
        b"INSERTED 1\r\nRESERVED 7 3\r\nxxx\r\nDELETED\r\n"
        b"DELETED\r\nRESERVED 18446744073709551615 3\r\nxxx\r\nINSERTED 22\r\n"
    )

    @pytest.mark.parametrize("read", [read_any, reader_of_own(b"xxx")])
    @pytest.mark.parametrize("size", range(1, len(STREAM) + 1))
    def test_any_chunks_give_the_same_counts(self, read: Any, size: int) -> None:
        rest, counts, ids = b"", [0, 0, 0], []
        for at in range(0, len(self.STREAM), size):
            rest += self.STREAM[at : at + size]
            used, inserted, some, deleted, empty, fault = read(rest)
            rest = rest[used:]
            ids += some
            counts = [counts[0] + inserted, counts[1] + deleted, counts[2] + empty]
            assert fault is None
        assert (counts, ids, rest) == ([2, 2, 0], [b"7", b"18446744073709551615"], b"")

    @pytest.mark.parametrize("read", [read_any, reader_of_own(b"xxx")])
    def test_replies_before_a_wrong_one_count(self, read: Any) -> None:
        assert read(b"INSERTED 1\r\nNOT_FOUND\r\nDELETED\r\n") == (12, 1, [], 0, 0, b"NOT_FOUND")

    def test_a_body_of_another_size_is_read_all_the_same(self) -> None:
        assert reader_of_own(b"xxx")(b"RESERVED 1 2\r\nxx\r\n") == (18, 0, [b"1"], 0, 0, None)


class TestHistogram:
    def test_percentiles_are_within_two_percent(self) -> None:
        histogram = Histogram()
        for ns in range(1, 100_001):
            histogram.record(ns)
        for percent in (1, 50, 90, 99):
            assert histogram.percentile_ns(percent) == pytest.approx(percent * 1000, rel=0.02)
        assert histogram.percentile_ns(100) == pytest.approx(100_000, rel=0.02)
        assert histogram.max_ns == 100_000

    @pytest.mark.parametrize("ns", [0, 1, 31, 32, 63, 64, 65, 127, 128, 10**9, 2**62])
    def test_one_value_is_every_percentile(self, ns: int) -> None:
        histogram = Histogram()
        histogram.record(ns)
        assert histogram.percentile_ns(0) == histogram.percentile_ns(100) == pytest.approx(ns, rel=0.016)

    def test_is_zero_when_empty(self) -> None:
        assert Histogram().percentile_ns(50) == 0

    def test_adds_another(self) -> None:
        one, other = Histogram(), Histogram()
        one.record(10)
        other.record(1000)
        one.add(other)
        assert (one.count, one.max_ns, one.percentile_ns(50)) == (2, 1000, 10)
