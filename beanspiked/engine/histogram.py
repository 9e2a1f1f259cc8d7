"""How often something lasted how long."""

from bisect import bisect_left

__all__ = ["Histogram"]


class Histogram:
    """Counts lengths of time by their size.

    Args:
        bounds: The upper bounds of its buckets, in seconds, the lowest first.

    Attributes:
        counts: How many lengths are in each bucket, and at last how many are longer than all bounds; not added up.
        total: What they last in all, in seconds.
    """

    def __init__(self, bounds: list[float]) -> None:
        self.bounds: list[float] = bounds
        self.counts: list[int] = [0] * (len(bounds) + 1)
        self.total: float = 0.0

    def add(self, seconds: float) -> None:
        """Count a length of time, in seconds."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds
