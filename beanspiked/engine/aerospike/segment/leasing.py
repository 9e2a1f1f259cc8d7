"""This front-end's lease on one segment: how it is got, moved on, and found to be gone."""

import logging

from beanspiked.engine.aerospike.segment.view import PUTS_WAIT, View
from beanspiked.engine.aerospike.store.seam import DEAD, Fenced, Full, Segment, Settlement, StoreError
from beanspiked.engine.errors import JobGone, StoreFailed, StoreFull

__all__ = ["Leasing"]

logger = logging.getLogger(__name__)


class Leasing:
    """The lease on a segment.

    Args:
        view: The segment.
    """

    def __init__(self, view: View) -> None:
        self._view: View = view

    async def attach(self) -> bool:
        """Get a lease, once."""
        view = self._view
        while True:
            if view.session.over:
                view.abandon(JobGone("the session is over"))
                return False
            lease = view.session.next_lease()
            try:
                await view.around.store.attach(view.number, lease)
            except Fenced:
                view.abandon(JobGone("the segment is gone"))
                return False
            except StoreError as error:
                failure = error
            else:
                view.lease = lease
                view.has_succeeded()
                return True
            # In doubt, too, the next attempt has a lease of its own; the audit finds one that was left behind.
            if not await self._patience(failure):
                return False

    async def _patience(self, error: StoreError) -> bool:
        """Fail what has waited for too long, then wait a little; tell whether there is still something to do."""
        view = self._view
        now = view.around.now()
        view.has_failed(now)
        reason = StoreFull(str(error)) if isinstance(error, Full) else StoreFailed(str(error))
        view.fail_late(now, reason)
        if view.session.over or view.gone:
            view.abandon(JobGone("the session is over"))
            return False
        await view.around.pause_between_tries(view.failing_since)
        return view.inbox.pending() and not view.gone

    async def renew(self) -> Settlement | None:
        """Move the lease on, however long it takes, and learn what is under it; None if the session ends before. Raises Fenced."""
        view = self._view
        renewed = view.session.next_lease()
        view.has_failed(view.around.now())
        while True:
            try:
                settlement = await view.around.store.settle(view.number, view.lease, renewed)
            except Fenced:
                raise
            except StoreError:
                if view.session.over:
                    return None
                if view.around.now() - view.failing_since >= PUTS_WAIT and not view.closed:
                    view.put_elsewhere(None)
            else:
                view.lease = renewed
                view.has_succeeded()
                return settlement
            await view.around.pause_between_tries(view.failing_since)

    async def what_is_left(self) -> Segment | None:
        """Read the segment; None where it is gone or cannot be read, and so nothing is known of it."""
        view = self._view
        try:
            return await view.around.reading_segment(view.number, view.session)
        except StoreError as error:
            logger.info("segment %d: its state cannot be read: %s", view.number, error)
            return None

    async def found_gone(self) -> None:
        """The lease is gone: the session was declared dead, or the segment is. Find out which."""
        view = self._view
        await view.around.decide()
        if not view.session.over:
            segment = await self.what_is_left()
            if segment is not None and segment.state != DEAD:
                logger.warning(
                    "segment %d: this living session's lease is gone, perhaps because the tube was deleted; its held jobs are lost here",
                    view.number,
                )
