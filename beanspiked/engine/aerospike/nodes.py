"""Watches for nodes that wake up from a freeze, of which the cluster may have taken leave meanwhile.

For a second or two such a node goes on with what it has, and what is written to it wins over what the others have written while it was
away, because it is younger. So nothing is asked of the cluster from the moment on at which a node answers that was silent for long,
until all nodes agree again on who belongs to it. A question waits in the node's socket when it wakes, so that its answer comes first.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from aerospike import exception as client_errors

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Agreement", "NodeWatch"]

logger = logging.getLogger(__name__)

# In seconds. Shorter than a cluster's patience with a node (heartbeat interval times timeout), which is rarely below 1.5 s.
SILENT: Final = 1.0
# A cluster that has decided to go on without a node does so at the end of its quantum interval, whatever happens meanwhile.
AGREED_FOR: Final = 1.5
# Nodes that never agree must not keep everything from going on: then the cluster has worse trouble than this is for.
AT_LONGEST: Final = 10.0
ASK_EVERY: Final = 0.2
ANSWER_WITHIN_MS: Final = 1000
QUESTION: Final = "cluster-stable:ignore-migrations=true"


class Agreement:
    """What nodes said last of the cluster they belong to.

    Attributes:
        doubtful: Whether one of them woke up, and not all have agreed for long enough since.
    """

    def __init__(self) -> None:
        self.doubtful: bool = False
        self._silent_since: dict[str, float] = {}
        self._answers: dict[str, str] = {}
        self._woken_at: float = 0.0
        self._agreed_at: float = 0.0
        self._lock = threading.Lock()

    def silent(self, node: str, asked_at: float) -> None:
        """A node has not answered what it was asked."""
        with self._lock:
            self._silent_since.setdefault(node, asked_at)
            self._answers.pop(node, None)

    def gone(self, node: str) -> None:
        """A node does not run, or is not of the cluster."""
        with self._lock:
            self._silent_since.pop(node, None)
            self._answers.pop(node, None)

    def answered(self, node: str, answer: str, now: float) -> None:
        """A node has told the key of its cluster, or that it has none."""
        with self._lock:
            silent_since = self._silent_since.pop(node, now)
            self._answers[node] = answer
            if now - silent_since > SILENT:
                logger.warning("node %s answers again after %.1f s; waiting for the cluster", node, now - silent_since)
                self.doubtful = True
                self._woken_at = self._agreed_at = now
            if not self.doubtful:
                return
            if len(set(self._answers.values())) != 1 or "ERROR" in answer:
                self._agreed_at = now
            if now - self._agreed_at >= AGREED_FOR or now - self._woken_at >= AT_LONGEST:
                logger.warning("going on")
                self.doubtful = False


class NodeWatch:
    """Asks every node of a cluster again and again, on threads of its own.

    Args:
        client: A connected client.
        agreement: What learns from the answers.
    """

    def __init__(self, client: Any, agreement: Agreement, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._agreement = agreement
        self._clock = clock
        self._stopped = threading.Event()
        self._known: set[str] = set()

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._look_for_nodes, name="nodes", daemon=True).start()

    def stop(self) -> None:
        """End, soon."""
        self._stopped.set()

    def _look_for_nodes(self) -> None:
        while not self._stopped.wait(ASK_EVERY):
            for node in self._client.get_node_names():
                name = node["node_name"]
                if name not in self._known:
                    self._known.add(name)
                    threading.Thread(target=self._ask, args=(name,), name=f"node {name}", daemon=True).start()

    def _ask(self, name: str) -> None:
        while not self._stopped.wait(ASK_EVERY):
            asked_at = self._clock()
            try:
                answer = self._client.info_single_node(QUESTION, name, {"timeout": ANSWER_WITHIN_MS})
            except client_errors.TimeoutError:
                self._agreement.silent(name, asked_at)
            except client_errors.AerospikeError:
                # Nobody listens there, or the client does not count it as a node any more.
                self._agreement.gone(name)
            else:
                self._agreement.answered(name, answer.strip(), self._clock())
