"""The interfaces between sessions and news on one side and this front-end's tubes on the other."""

from collections.abc import Callable, Sequence

from beanspiked.engine.aerospike.cluster.links import Item

__all__ = ["LocalTubes", "NewsListener", "SegmentEnder", "SessionListener"]


class LocalTubes:
    """This front-end's tubes, as it tells the others of them."""

    def count(self) -> int:
        """Return how many tubes are known here."""
        raise NotImplementedError

    def usage(self) -> dict[str, list[int]]:
        """Return how this front-end uses its tubes."""
        raise NotImplementedError

    def usage_slices(self, size: int) -> Callable[[int], dict[str, list[int]] | None]:
        """Return a function that gives the usage of `size` tubes, by the number of the slice; None after the last one."""
        raise NotImplementedError

    def uncount(self, usage: dict[str, list[int]]) -> None:
        """Subtract from the counters here what another front-end has added to the tubes' records."""
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
    """Hears what happens to this session, and of the burial of others."""

    def session_began(self) -> None:
        """Begin with a session."""
        raise NotImplementedError

    def session_over(self) -> None:
        """Give up all leases: the session is over."""
        raise NotImplementedError

    def tick(self) -> None:
        """Do what is due each second, or after each try to join."""
        raise NotImplementedError

    def others_changed(self) -> None:
        """Note that a session of others has begun or ended."""
        raise NotImplementedError

    def became_ready(self, tube: str, segment: int) -> None:
        """Note that jobs of a segment became ready without an operation under a lease."""
        raise NotImplementedError

    async def finish_moves(self, number: int, leases: Sequence[int]) -> None:
        """Finish the moves between a segment and others that dead sessions began, by the segment's leases. Raises StoreError."""
        raise NotImplementedError

    async def sweep(self) -> None:
        """Forget what this front-end does not use any more."""
        raise NotImplementedError

    async def look_through(self) -> None:
        """Finish a part of what other front-ends have left behind. Raises StoreError."""
        raise NotImplementedError


class SegmentEnder:
    """Ends segments."""

    async def end(self, name: str, number: int) -> None:
        """End a segment that is dead, or closed and empty, now or later."""
        raise NotImplementedError

    async def end_now(self, name: str, number: int) -> bool:
        """End a segment if it is closed and empty; tell whether it is dead. Raises StoreError if it may live."""
        raise NotImplementedError


class NewsListener:
    """Hears what others did."""

    def heard_of(self, name: str) -> None:
        """Note that something has changed in a tube."""
        raise NotImplementedError

    def heard_item(self, name: str, item: Item) -> None:
        """Note what has changed in a segment of a tube."""
        raise NotImplementedError

    def heard_all(self) -> None:
        """Act on the news: all that arrived together have been handed over."""
        raise NotImplementedError

    def look_everywhere(self) -> None:
        """Look at all tubes: news may have been missed."""
        raise NotImplementedError

    def stop_following(self) -> None:
        """Stop relying on what is known of tubes: it is no longer kept up to date."""
        raise NotImplementedError

    def unfollowed(self, name: str) -> None:
        """Stop relying on what is known of a tube: its news are not heard any more."""
        raise NotImplementedError

    def followed(self, names: list[str]) -> None:
        """Note that all others send news of tubes from now on."""
        raise NotImplementedError

    def met(self) -> None:
        """Note that there is a front-end that may be new."""
        raise NotImplementedError

    def waited_for(self, name: str) -> bool:
        """Tell whether somebody waits for jobs of a tube."""
        raise NotImplementedError

    def wants_jobs(self) -> bool:
        """Tell whether a job that becomes ready elsewhere is wanted here, or was lately."""
        raise NotImplementedError
