"""Whom the news tell what others did."""

from beanspiked.engine.aerospike.cluster.links import Item

__all__ = ["NewsListener"]


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
