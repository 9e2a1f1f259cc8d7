"""The bodies of one segment that lie outside it: written before what refers to them, and ending with the segment at the latest."""

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from beanspiked.engine.aerospike.segment.jobs import Put, SharedJob
from beanspiked.engine.aerospike.store.seam import Busy, Fenced, StoreError
from beanspiked.engine.errors import DamagedEntry

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.segment.view import View
    from beanspiked.engine.aerospike.store.contract import SegmentStore

__all__ = ["Bodies", "fetch_bodies"]

logger = logging.getLogger(__name__)

# Their numbers are taken in blocks, so that a large put rarely costs a further operation.
BLOCK: Final = 64


async def fetch_bodies(
    store: "SegmentStore", jobs: list[SharedJob], *, sure: bool = False
) -> tuple[list[SharedJob], list[tuple[SharedJob, str]]]:
    """Fetch the bodies that lie outside; return the jobs that are whole, and the others with what is wrong with them.

    For `sure` see SegmentStore.read_bodies.
    """
    names = [(job.number, job.body_number) for job in jobs if job.body_number]
    bodies = iter(await store.read_bodies(names, sure=sure) if names else [])
    whole: list[SharedJob] = []
    broken: list[tuple[SharedJob, str]] = []
    for job in jobs:
        body = next(bodies) if job.body_number else None
        if job.body_number and body is None:
            logger.error("job %d: its body is lost", job.id)
            broken.append((job, "its body is lost"))
            continue
        try:
            if body is not None or job.raw_size >= 0:
                job.unfold(body)
        except DamagedEntry as error:
            logger.error("job %d: its body is damaged: %s", job.id, error)
            broken.append((job, "its body is damaged"))
            continue
        whole.append(job)
    return whole, broken


class Bodies:
    """Writes bodies under numbers of their own.

    Args:
        view: Whose segment it is.
        store: The store.
    """

    def __init__(self, view: "View", store: "SegmentStore") -> None:
        self._view: View = view
        self._store: SegmentStore = store
        self._numbers: list[int] = []
        # Taking more of them: done when that has ended, with what kept it from succeeding.
        self._numbering: asyncio.Future[StoreError | None] | None = None

    async def write_for(self, put: Put) -> None:
        """Write a put's body, unless the segment is over: then it accepts no puts."""
        assert put.outside is not None
        assert put.job is not None
        try:
            number = await self.write(put.outside, put.job.form)
        except Fenced:
            return
        put.job.body_number = number
        put.job.stored_size = len(put.outside)
        put.packed = self._view.around.formats.pack(put.job)
        put.form = put.job.form

    async def write(self, stored: bytes, form: int) -> int:
        """Write a body in a format, before what refers to it; return its number. One that nothing refers to goes with the segment."""
        while not self._numbers:
            if self._numbering is None or self._numbering.done():
                await self._take_numbers()
            else:
                # Somebody else takes some.
                failure = await asyncio.shield(self._numbering)
                if failure is not None:
                    raise failure
        number = self._numbers.pop(0)
        await self._store.write_body(self._view.number, number, stored, form)
        return number

    async def _take_numbers(self) -> None:
        """Take a block of numbers, unless a settle moves the lease on meanwhile. Raises Fenced if the segment is over."""
        view = self._view
        lease = view.lease
        numbering: asyncio.Future[StoreError | None] = asyncio.get_running_loop().create_future()
        self._numbering = numbering
        failure: StoreError | None = None
        try:
            first = await self._store.number_bodies(view.number, lease, BLOCK)
            self._numbers += range(first, first + BLOCK)
        except Fenced:
            if view.gone:
                raise
            if lease == view.lease:
                # An operation moves it on, or learns that it is gone, perhaps with its tube.
                if not view.under_way():
                    view.close()
                failure = Busy("the lease is gone, or is being moved on")
        except StoreError as error:
            failure = error
        finally:
            numbering.set_result(failure)
        if failure is not None:
            raise failure
