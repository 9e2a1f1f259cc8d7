"""Which format is written: the newest that all living sessions announce to read.

A session begins with the first format. It goes up to a newer one in two steps: a heartbeat announces it, and a look after that finds that
all sessions read it. It goes down as soon as a look finds a session that does not read it.

A session that joins announces what it reads, then looks. It serves once no living session writes what it does not read. If two sessions
join at the same time, one of them sees the other.
"""

import logging
from collections.abc import Iterable

from beanspiked.engine.aerospike.cluster.session import KnownSession
from beanspiked.engine.aerospike.store.seam import FIRST, SessionRecord

__all__ = ["Agreement"]

logger = logging.getLogger(__name__)


class Agreement:
    """Chooses a format that all living sessions read.

    Args:
        newest: The newest format that is known here.

    Attributes:
        writes: The format that is written here.
        tells: The format that the next heartbeat announces as written here.
        told: The newest format of which the others may know that it is written here.
    """

    def __init__(self, newest: int) -> None:
        self._newest = newest
        self.writes: int = FIRST
        self.tells: int = FIRST
        self.told: int = FIRST
        # A session that joins logs once what it waits for.
        self._said_why = False

    def begin(self) -> None:
        """Begin again with the first format: there is a new session."""
        self.writes = self.tells = self.told = FIRST

    def agreed(self, records: Iterable[SessionRecord] | Iterable[KnownSession]) -> int:
        """Return the newest format that this front-end and all living ones of these sessions read."""
        return min([self._newest, *[record.reads for record in records if not record.dead]])

    def others_ahead(self, number: int, records: Iterable[SessionRecord], silent_max_ms: float) -> bool:
        """Tell whether living sessions write a format that is not read here; they stop as soon as they see this session."""
        for record in records:
            silent = record.silent_ms > silent_max_ms
            if record.writes > self._newest and not (record.dead or silent or record.number == number):
                if not self._said_why:
                    logger.warning(
                        "session %d waits until session %d writes no more in format %d: this version reads those up to %d",
                        number,
                        record.number,
                        record.writes,
                        self._newest,
                    )
                self._said_why = True
                return True
        self._said_why = False
        return False

    def agree(self, number: int, records: "list[KnownSession]", told: int) -> None:
        """Choose the format by what the others read; `told` is the format of which they knew before they were looked at."""
        # If this session is not listed, others may be missing too.
        seen = any(record.number == number for record in records)
        self.tells = self.agreed(records) if seen else FIRST
        writes = min(self.tells, told)
        if writes != self.writes:
            logger.info("format %d is written from now on", writes)
            self.writes = writes
