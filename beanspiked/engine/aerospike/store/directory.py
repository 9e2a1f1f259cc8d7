"""A tube's entry as it is read."""

from typing import Final

__all__ = ["Directory"]

# Most of the many thousand entries that are read at once have neither.
NO_PAGES: Final[list[int]] = []
NO_COUNTERS: Final[dict[str, int]] = {}


class Directory:
    """A tube's entry. It exists while it has an item. A list of all tubes makes and drops many thousand of them.

    Attributes:
        segments: The segments listed in the entry itself, in the order of their numbers.
        pause_ms: The length of the last pause.
        paused_until_ms: When the pause ends, by the server's clock; 0 without one.
        counters: The counts of sessions that are over.
        pages: The pages that list all other segments.
    """

    __slots__ = ("counters", "pages", "pause_ms", "paused_until_ms", "segments")

    def __init__(
        self,
        segments: list[int],
        pause_ms: int = 0,
        paused_until_ms: int = 0,
        counters: dict[str, int] = NO_COUNTERS,
        pages: list[int] = NO_PAGES,
    ) -> None:
        self.segments: list[int] = segments
        self.pause_ms: int = pause_ms
        self.paused_until_ms: int = paused_until_ms
        self.counters: dict[str, int] = counters
        self.pages: list[int] = pages

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Directory):
            return NotImplemented
        return self._all() == other._all()

    def __hash__(self) -> int:
        return hash(self.first())

    def _all(self) -> tuple[list[int], int, int, dict[str, int], list[int]]:
        return self.segments, self.pause_ms, self.paused_until_ms, self.counters, self.pages

    def first(self) -> int:
        """Return the lowest number of a segment or page in the entry; 0 without any."""
        segments, pages = self.segments, self.pages
        if not pages:
            return segments[0] if segments else 0
        return min(segments[0], pages[0]) if segments else pages[0]
