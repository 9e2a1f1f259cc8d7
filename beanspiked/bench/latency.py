"""A histogram of latencies. Its size is fixed however long the run is, and its values are within 1.6 % of the true ones."""

from __future__ import annotations

_BITS = 6
_HALF = 1 << (_BITS - 1)
_SIZE = (64 - _BITS) * _HALF + 2 * _HALF


class Histogram:
    """Counts of nanoseconds in buckets that keep the six leading bits of each value."""

    __slots__ = ("_counts", "count", "max_ns")

    def __init__(self) -> None:
        self._counts = [0] * _SIZE
        self.count = 0
        self.max_ns = 0

    def record(self, ns: int) -> None:
        """Count one latency."""
        shift = ns.bit_length() - _BITS
        # Bucket 32*shift + leading bits (32..63 when shift > 0): each power of two begins where the last one ended.
        self._counts[shift * _HALF + (ns >> shift) if shift > 0 else ns] += 1
        self.count += 1
        self.max_ns = max(self.max_ns, ns)

    def add(self, other: Histogram) -> None:
        """Add everything that `other` has counted."""
        self._counts = [mine + theirs for mine, theirs in zip(self._counts, other._counts, strict=True)]
        self.count += other.count
        self.max_ns = max(self.max_ns, other.max_ns)

    def percentile_ns(self, percent: float) -> int:
        """Return the middle of the bucket that reaches `percent` of the values; 0 when nothing was counted."""
        wanted = self.count * percent / 100
        seen = 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                shift = max(bucket // _HALF - 1, 0)
                middle = ((bucket - shift * _HALF) << shift) + ((1 << shift) >> 1)
                return min(middle, self.max_ns)
        return 0
