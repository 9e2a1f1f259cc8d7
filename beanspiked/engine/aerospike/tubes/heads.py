"""What segments hold, as their records tell: their heads are read, many at once."""

import asyncio
import logging
from typing import TYPE_CHECKING, Final, cast

from beanspiked.engine.aerospike.segment.committer import Committer
from beanspiked.engine.aerospike.store.seam import CLOSED, DEAD, OPEN, Head, StoreError
from beanspiked.engine.aerospike.tubes.notes import note_empty
from beanspiked.engine.aerospike.tubes.retirement import Retirement
from beanspiked.engine.aerospike.tubes.tube import SharedTube
from beanspiked.engine.timers import Clock

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore

__all__ = ["UNREAD_MAX", "Heads", "Look"]

logger = logging.getLogger(__name__)

# How many segments are read at once: to decode them takes two milliseconds.
READ_AT_ONCE: Final = 250
# How many such reads are made side by side.
SIDE_BY_SIDE: Final = 4
# How many segments a look notes before it reads them.
UNREAD_MAX: Final = READ_AT_ONCE * SIDE_BY_SIDE
# What is noted of a segment that does not answer: there may be jobs in it, none of which is asked for.
SILENT: Final = Head((), None, None, 0, 1, 0, 0, OPEN)


class Look:
    """A look that is being made.

    Attributes:
        mark: The step at which it began.
        unread: Segments that are not in use here, with their tubes, whose heads are to be read.
        wanted: Segments in use whose heads are to be read.
        passed: Tubes with segments that do not answer, in the order in which that was seen.
        answered: Whether any segment has answered.
    """

    def __init__(self, mark: int) -> None:
        self.mark: int = mark
        self.unread: list[tuple[SharedTube, int]] = []
        self.wanted: list[Committer] = []
        self.passed: dict[SharedTube, None] = {}
        self.answered: bool = False


class Heads:
    """Reads the heads of segments.

    Args:
        store: The store.
        clock: This process's time.
        retirement: What lets segments die.
    """

    def __init__(self, store: "SegmentStore", clock: Clock, retirement: Retirement) -> None:
        self._store = store
        self._clock = clock
        self._retirement = retirement

    async def read(self, look: Look) -> None:
        """Read what a look is to read; what has to be read once more remains. Raises StoreError if none of it can be read."""
        await self.read_noted(look)
        look.wanted = await self._read_heads(look)

    async def read_noted(self, look: Look) -> None:
        """Read the heads of segments that are not in use here. Raises StoreError if none can be read."""
        while look.unread:
            parts: list[list[tuple[SharedTube, int]]] = []
            while look.unread and len(parts) < SIDE_BY_SIDE:
                part = look.unread[-READ_AT_ONCE:]
                del look.unread[-READ_AT_ONCE:]
                parts.append([(tube, number) for tube, number in part if not _want_if_in_use(look, tube, number)])
            reads = [self._store.heads([number for _, number in part]) for part in parts]
            silent: list[list[tuple[SharedTube, int]]] = []
            for part, heads in zip(parts, await asyncio.gather(*reads, return_exceptions=True), strict=True):
                if isinstance(heads, StoreError):
                    logger.info("segments are read one by one: %s", heads)
                    silent.append(part)
                    continue
                if isinstance(heads, BaseException):
                    raise heads
                look.answered = look.answered or bool(part)
                for (tube, number), head in zip(part, heads, strict=True):
                    if not _want_if_in_use(look, tube, number):
                        self._note(tube, number, head)
                await asyncio.sleep(0)
            for part in silent:
                await self._read_singly(look, part)

    async def _read_singly(self, look: Look, part: list[tuple[SharedTube, int]]) -> None:
        """Read segments one by one; those that do not answer are noted so that no job is asked of them until they are read again.

        They become no objects: a node that does not answer may have a third of a million segments. Raises StoreError if no segment
        has answered in this look.
        """
        answers = await asyncio.gather(*[self._store.heads([number]) for _, number in part], return_exceptions=True)
        failure: BaseException | None = None
        for (tube, number), answer in zip(part, answers, strict=True):
            if not isinstance(answer, BaseException):
                look.answered = True
                if not _want_if_in_use(look, tube, number):
                    self._note(tube, number, answer[0])
            elif not isinstance(answer, StoreError):
                raise answer
            else:
                failure = answer
                look.passed[tube] = None
                if number not in tube.committers:
                    tube.note(number, SILENT)
        for tube in dict.fromkeys(tube for tube, _ in part):
            if tube in look.passed:
                # Also if this look fails: what was known of their jobs is gone.
                tube.doubt()
        if failure is not None and not look.answered:
            if not look.wanted:
                raise failure
            look.wanted = await self._read_heads(look)

    def _note(self, tube: SharedTube, number: int, head: Head | None) -> None:
        """Take note of what was read of a segment that is not in use here."""
        if head is None or head.state == DEAD:
            tube.notes.pop(number, None)
            if head is not None:
                self._retirement.unlist(tube.name, number)
            return
        tube.note(number, head)
        if head.state == CLOSED and note_empty(tube.notes[number]):
            self._retirement.consider(tube.committer_of(number))

    async def _read_heads(self, look: Look) -> list[Committer]:
        """Learn the heads of segments in use as of the look's step or later; return those that have to be read once more.

        Tubes of segments that do not answer are added to those that were passed over.
        """
        mark = look.mark
        wanted: list[Committer] = []
        for committer in look.wanted:
            # An operation that began after this look tells as much as the look.
            while committer.running and not committer.suspended and not committer.knows_since(mark):
                await committer.turn()
            if committer.knows_since(mark):
                look.answered = True
                continue
            if committer.running:
                look.passed[cast(SharedTube, committer.tube)] = None
            else:
                wanted.append(committer)
        again: list[Committer] = []
        for start in range(0, len(wanted), READ_AT_ONCE):
            part = wanted[start : start + READ_AT_ONCE]
            for committer, head in await self._heads(part, look):
                if committer.knows_since(mark):
                    continue
                if committer.running:
                    # Its operation may have changed what was read.
                    again.append(committer)
                elif head is not None and head.state != DEAD:
                    committer.see(head, mark)
                    if head.state == CLOSED and committer.idle_and_empty():
                        self._retirement.consider(committer)
                elif not committer.busy():
                    committer.gone = True
                    committer.tube.drop(committer)
                    if head is not None:
                        self._retirement.unlist(committer.tube.name, committer.number)
        return again

    async def _heads(self, committers: list[Committer], look: Look) -> list[tuple[Committer, Head | None]]:
        """Read the heads of segments in use; what does not answer is set aside. Raises StoreError if nothing has in this look."""
        try:
            heads = await self._store.heads([committer.number for committer in committers])
        except StoreError:
            if len(committers) == 1 and not look.answered:
                raise
        else:
            look.answered = True
            return list(zip(committers, heads, strict=True))
        singly = [self._store.heads([committer.number]) for committer in committers]
        answers = await asyncio.gather(*singly, return_exceptions=True)
        found: list[tuple[Committer, Head | None]] = []
        failures: list[BaseException] = []
        for committer, answer in zip(committers, answers, strict=True):
            if not isinstance(answer, BaseException):
                look.answered = True
                found.append((committer, answer[0]))
                continue
            failures.append(answer)
            if not isinstance(answer, StoreError) or (len(failures) == len(committers) and not look.answered):
                raise answer
            logger.info("segment %d is passed over: %s", committer.number, answer)
            look.passed[cast(SharedTube, committer.tube)] = None
            committer.set_aside(self._clock.now())
        return found


def _want_if_in_use(look: Look, tube: SharedTube, number: int) -> bool:
    """Have a look read a segment as one in use, if it is by now: nothing may be known of it yet. Tell whether it is."""
    committer = tube.committers.get(number)
    if committer is not None:
        look.wanted.append(committer)
    return committer is not None
