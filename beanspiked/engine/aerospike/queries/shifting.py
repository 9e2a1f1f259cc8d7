"""Changes of jobs that nobody here holds, by where they were seen: whether one was made is known in the end, or told as unknown."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from beanspiked.engine.aerospike.store.seam import Fenced, Refused, TooBig, Unknown
from beanspiked.engine.errors import OutcomeUnknown, StoreFailed

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore
    from beanspiked.engine.aerospike.store.seam import Entries
    from beanspiked.engine.aerospike.store.tasks import Tasks

__all__ = ["shift"]


async def shift(
    store: "SegmentStore",
    tasks: "Tasks",
    number: int,
    queue: str,
    keys: Sequence[bytes],
    target: str | None,
    entries: "Entries | None",
) -> bool | None:
    """Make the change of SegmentStore.shift, for as long as the store has to answer.

    Returns whether it was made; None if it cannot be made any more and perhaps was, since the answer to an earlier try was lost.
    Raises OutcomeUnknown or StoreFailed if it cannot be made in time, TooBig if the segment has no room.
    """
    doubt = False

    async def once() -> None:
        nonlocal doubt
        try:
            await store.shift(number, queue, keys, target, entries)
        except Unknown:
            doubt = True
            raise

    try:
        await tasks.try_for_a_while(once)
    except (Refused, Fenced):
        return None if doubt else False
    except (StoreFailed, TooBig) as error:
        if doubt:
            raise OutcomeUnknown("whether jobs were changed is not known") from error
        raise
    return True
