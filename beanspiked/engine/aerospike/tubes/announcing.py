"""What the others are told of a segment."""

from beanspiked.engine.aerospike.cluster.links import DELAYED, READY
from beanspiked.engine.aerospike.cluster.news import News
from beanspiked.engine.aerospike.segment.view import View

__all__ = ["announce"]


def announce(news: News, segment: View, delayed: bool = False) -> None:
    """Tell the others of ready jobs of a segment that nobody here has requested, or of one that will be ready."""
    name, head = segment.tube.name, segment.head
    if head is None or segment.suspended:
        return
    if delayed and head.due_key is not None:
        news.tell(name, segment.number, DELAYED, 0, head.due_key)
    key = segment.forecast.best()
    if key is not None and head.ready:
        news.tell(name, segment.number, READY, segment.forecast.expected, key)
