"""What sessions and news know of the tubes of this front-end, and whom they tell what happened."""

from collections.abc import Callable, Sequence

from beanspiked.engine.aerospike.cluster.links import Item

__all__ = ["LocalTubes", "NewsListener", "SegmentEnder", "SessionListener"]


class LocalTubes:
    """The tubes of this front-end, as the others are told of them."""

    def count(self) -> int:
        """Count all tubes that are known here."""
        raise NotImplementedError

    def usage(self) -> dict[str, list[int]]:
        """Return how this front-end uses its tubes."""
        raise NotImplementedError

    def usage_slices(self, size: int) -> Callable[[int], dict[str, list[int]] | None]:
        """Return what tells the usage of `size` tubes at once, by the number of the slice; None after the last one."""
        raise NotImplementedError

    def uncount(self, usage: dict[str, list[int]]) -> None:
        """Take off the counters what somebody else has added to the tubes' records."""
        raise NotImplementedError

    def used_here(self, name: str) -> bool:
        """Tell whether a client of this front-end uses or watches a tube."""
        raise NotImplementedError

    def known_leases(self) -> set[int]:
        """List the leases that are in use here."""
        raise NotImplementedError

    def knows_segment(self, number: int) -> bool:
        """Tell whether a segment is known here."""
        raise NotImplementedError


class SessionListener:
    """Is told what happens to the session, and of the burial of others."""

    def session_began(self) -> None:
        """There is a session."""
        raise NotImplementedError

    def session_over(self) -> None:
        """The session is over, and with it all leases."""
        raise NotImplementedError

    def tick(self) -> None:
        """A second has passed, or a try to join."""
        raise NotImplementedError

    def others_changed(self) -> None:
        """A session of others has begun or ended."""
        raise NotImplementedError

    def became_ready(self, tube: str, segment: int) -> None:
        """Jobs of a segment became ready without an operation under a lease."""
        raise NotImplementedError

    async def finish_moves(self, number: int, leases: Sequence[int]) -> None:
        """Finish the moves of jobs between a segment, by its leases, and others, if their makers are dead. Raises StoreError."""
        raise NotImplementedError

    async def sweep(self) -> None:
        """Let go of what this front-end does not use any more."""
        raise NotImplementedError

    async def look_through(self) -> None:
        """Finish a part of what others have left behind. Raises StoreError."""
        raise NotImplementedError


class SegmentEnder:
    """What sees segments to their end."""

    async def end(self, name: str, number: int) -> None:
        """See a dead segment, or a closed and empty one, to its end, now or later."""
        raise NotImplementedError

    async def end_now(self, name: str, number: int) -> bool:
        """See a segment to its end, if it is closed and empty; tell whether it is dead. Raises StoreError if it may live."""
        raise NotImplementedError


class NewsListener:
    """Whom the news tell what others did."""

    def heard_of(self, name: str) -> None:
        """Something has changed in a tube."""
        raise NotImplementedError

    def heard_item(self, name: str, item: Item) -> None:
        """Something has changed in a segment of a tube."""
        raise NotImplementedError

    def heard_all(self) -> None:
        """All that has arrived together was told."""
        raise NotImplementedError

    def look_everywhere(self) -> None:
        """News were missed."""
        raise NotImplementedError

    def stop_following(self) -> None:
        """What was known of tubes grows old."""
        raise NotImplementedError

    def followed(self, name: str) -> None:
        """All others tell from now on what they do in a tube."""
        raise NotImplementedError

    def met(self) -> None:
        """There is a front-end that may not be known."""
        raise NotImplementedError

    def waited_for(self, name: str) -> bool:
        """Tell whether somebody waits for jobs of a tube."""
        raise NotImplementedError

    def wants_jobs(self) -> bool:
        """Tell whether a job that becomes ready elsewhere is wanted here, or was lately."""
        raise NotImplementedError
