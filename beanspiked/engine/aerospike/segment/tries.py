"""How a front-end learns what became of an operation that was to make its lease."""

import contextlib

from beanspiked.engine.aerospike.segment.surroundings import LeaseSource, Surroundings
from beanspiked.engine.aerospike.store.seam import Fenced, Settlement, Unknown

__all__ = ["Tries"]


class Tries:
    """Moves a lease on that was to be made, however often that takes.

    A try that comes late makes the lease that it names, again if that was moved on. So each try names another lease, and what a try in
    doubt has made is moved once more. What was taken is where the first try that came has put it, whichever that was; the others have
    made empty leases.

    Args:
        around: What has the store.

    Attributes:
        renewed: The lease after the last settle.
    """

    def __init__(self, around: Surroundings) -> None:
        self.renewed: int = 0
        self._around: Surroundings = around
        # The leases that tries in doubt have named, and those that they are moved on to.
        self._tries: list[tuple[int, int]] = []

    def forget(self) -> None:
        """Forget all tries: the lease was moved on."""
        self._tries = []

    async def settle(self, session: LeaseSource, number: int, lease: int) -> Settlement:
        """Move on the lease of a segment. Raises StoreError."""
        settlement = await self._move_on(number)
        if settlement is None:
            self.renewed = session.next_lease()
            alone = not self._tries
            try:
                settlement = await self._around.store.settle_attach(number, lease, self.renewed)
            except Unknown:
                self._tries.append((self.renewed, session.next_lease()))
                raise
            if alone:
                return settlement
            self._tries.append((self.renewed, session.next_lease()))
        if not settlement.held:
            # By now one has come for certain. Another one may have come before it, since that was looked for.
            settlement = await self._move_on(number) or settlement
        return settlement

    async def _move_on(self, number: int) -> Settlement | None:
        """Move on what the tries in doubt have made; return what the first has that came, or None if none has come."""
        found: Settlement | None = None
        for tried, further in self._tries:
            with contextlib.suppress(Fenced):
                settlement = await self._around.store.settle(number, tried, further)
                if found is None or settlement.held:
                    found, self.renewed = settlement, further
        return found
