"""The connections of clients, as the API shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from beanspiked.admin.errors import Missing
from beanspiked.admin.slices import sliced
from beanspiked.server.gate import RESERVING

if TYPE_CHECKING:
    from beanspiked.admin.outcomes import Outcomes
    from beanspiked.engine.contract import Job
    from beanspiked.server.connection import Connection
    from beanspiked.server.server import Server

__all__ = ["Connections"]

# How many held jobs are searched for the next one.
LOOKED_AT = 10_000
# How many watched tubes of one connection are named.
NAMED_TUBES = 20


class Connections:
    """Looks at connections and closes them.

    Args:
        outcomes: Their broker.
        server: The server that accepted them.
    """

    def __init__(self, outcomes: Outcomes, server: Server) -> None:
        self._outcomes = outcomes
        self._server = server

    def page(self, offset: int, limit: int) -> list[dict[str, object]]:
        """Show some connections, the newest first."""
        newest = sorted(self._server.connections, key=lambda connection: connection.since, reverse=True)
        return [self._shown(connection) for connection in newest[offset : offset + limit]]

    def count(self) -> int:
        """Return how many there are."""
        return len(self._server.connections)

    def close(self, key: str) -> str:
        """Close a connection and make its held jobs ready; return its client's address. Raises Missing."""
        for connection in self._server.connections:
            if _key(connection) == key:
                peer = connection.peer()
                connection.abort()
                self._outcomes.turn()
                return peer
        raise Missing(f"there is no connection {key}")

    async def next_held(self, tube: str) -> Job | None:
        """Find the held job of a tube whose time to run ends first, among the first jobs that clients of this process hold."""
        found: Job | None = None
        room = LOOKED_AT
        async for some in sliced(list(self._server.connections)):
            for connection in some:
                for job in connection.flow.session.holds.jobs(room):
                    room -= 1
                    if job.tube.name == tube and (found is None or job.key < found.key):
                        found = job
        # Others may have run meanwhile.
        return found if found is not None and found.holder is not None else None

    def _shown(self, connection: Connection) -> dict[str, object]:
        session = connection.flow.session
        watched = session.tubes.watched
        return {
            "id": _key(connection),
            "peer": connection.peer(),
            "age": round(max(0.0, self._outcomes.broker.now() - connection.since), 3),
            "using": session.tubes.used.name,
            "watching": [tube.name for tube in watched[:NAMED_TUBES]],
            "watching_count": len(watched),
            "holding": len(session.holds),
            "waiting": connection.flow.gate.why == RESERVING,
            "producer": session.produces,
            "worker": session.works,
        }


def _key(connection: Connection) -> str:
    """Name a connection by its descriptor and time, since the kernel uses descriptors again."""
    return f"{connection.fd}-{int(connection.since * 1e6)}"
