"""Watches for nodes that wake up from a freeze. The cluster may have left such a node out meanwhile.

For a second or two such a node goes on with its old records. A write to one of them would win over everything written elsewhere, because
it is younger. So once a node answers after a long silence, calls wait until all nodes agree which of them belong to the cluster. A question
waits in the frozen node's socket, so the node answers it first when it wakes. Calls also wait after a freeze of this process, since its
knowledge is old, and at its start, since it does not know which nodes were silent. While a node is silent, this process reads a record
before it writes to it: a read that waits in the socket of a frozen node does no harm.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Final

from aerospike import exception as client_errors

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["QUESTION", "Agreement", "NodeWatch"]

logger = logging.getLogger(__name__)

# The shortest silence that counts, in seconds. A cluster leaves a node out later: heartbeat interval times timeout is rarely below 1.5 s.
SILENT: Final = 1.0
# How long all nodes must have agreed, in seconds: a decision to go on without a node takes effect at the end of the quantum interval.
AGREED_FOR: Final = 1.5
# The longest wait for an agreement, in seconds. After it calls go on without one: the cluster then has worse trouble.
AT_LONGEST: Final = 10.0
ASK_EVERY: Final = 0.2
# How long to ask a node that is gone whether it is back, in seconds. After that it counts as new.
FORGOTTEN_AFTER: Final = 600.0
ANSWER_WITHIN_MS: Final = 700
# Stands for the key of a cluster whose nodes do not agree yet which of them belong to it.
UNSTABLE: Final = "unstable"
QUESTION: Final = "cluster-stable:ignore-migrations=true"


class Agreement:
    """The nodes' last answers about which of them belong to the cluster.

    Args:
        clock: A clock in seconds that goes on while the machine sleeps.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._doubtful = False
        # When this process last ran for certain; 0 while nothing watches.
        self._ticked_at: float = 0.0
        self._silent_since: dict[str, float] = {}
        self._asleep: set[str] = set()
        self._answers: dict[str, str] = {}
        self._woken_at: float = 0.0
        self._agreed_at: float = 0.0
        self._lock = threading.Lock()

    def now(self) -> float:
        """Return the time, in seconds."""
        return self._clock()

    def begin(self) -> None:
        """Begin with a cluster of several nodes. One of them may just have woken up."""
        with self._lock:
            self._doubtful = True
            self._woken_at = self._agreed_at = self._clock()

    def doubtful(self) -> bool:
        """Tell whether a node or this process woke up or started, and the nodes have not agreed for long enough since."""
        return self._doubtful or (self._ticked_at > 0 and self._clock() - self._ticked_at > SILENT)

    def tick(self) -> None:
        """Note that this process runs."""
        now = self._clock()
        with self._lock:
            if self._ticked_at and now - self._ticked_at > SILENT:
                self._doubt(now, f"this process was frozen for {now - self._ticked_at:.1f} s")
            self._ticked_at = now

    def _doubt(self, now: float, why: str) -> None:
        logger.warning("%s; commands wait until all nodes of the cluster agree on its members", why)
        self._doubtful = True
        self._woken_at = self._agreed_at = now

    def asleep(self) -> bool:
        """Tell whether a node that the client lists does not answer."""
        return bool(self._asleep)

    def sleepers(self) -> list[str]:
        """List the nodes that the client lists and that do not answer."""
        with self._lock:
            return list(self._asleep)

    def silent(self, node: str, asked_at: float) -> None:
        """Note that a node has not answered its question."""
        with self._lock:
            self._asleep.add(node)
            self._silent_since.setdefault(node, asked_at)
            self._answers.pop(node, None)

    def left_out(self, node: str) -> None:
        """Note that the client no longer lists a node. The node may be frozen."""
        with self._lock:
            self._asleep.discard(node)
            self._answers.pop(node, None)

    def gone(self, node: str) -> None:
        """Note that a node does not run. When it starts, it has no old claims."""
        with self._lock:
            self._asleep.discard(node)
            self._silent_since.pop(node, None)
            self._answers.pop(node, None)

    def newcomer(self, node: str) -> None:
        """Note that an unknown node is there. It may have been frozen for longer than this process has run."""
        with self._lock:
            self._doubt(self._clock(), f"node {node} is new here")

    def forget(self, node: str) -> None:
        """Forget a node that has been gone for too long."""
        with self._lock:
            for states in (self._silent_since, self._answers):
                states.pop(node, None)
            self._asleep.discard(node)

    def answered(self, node: str, answer: str) -> None:
        """Note a node's answer: the key of its cluster, or UNSTABLE."""
        now = self._clock()
        with self._lock:
            self._asleep.discard(node)
            silent_since = self._silent_since.pop(node, now)
            self._answers[node] = answer
            if now - silent_since > SILENT:
                self._doubt(now, f"node {node} answers again after {now - silent_since:.1f} s")
            if not self._doubtful:
                return
            if answer == UNSTABLE or len(set(self._answers.values())) != 1:
                self._agreed_at = now
            if now - self._agreed_at >= AGREED_FOR or now - self._woken_at >= AT_LONGEST:
                logger.warning("all nodes of the cluster agree on its members again")
                self._doubtful = False


class NodeWatch:
    """Asks every node of a cluster periodically, on threads of its own.

    Args:
        client: A connected client.
        agreement: Gets the answers.
    """

    def __init__(self, client: Any, agreement: Agreement) -> None:
        self._client = client
        self._agreement = agreement
        self._stopped = threading.Event()
        # The nodes that are asked, and when the client last listed each.
        self._counted_at: dict[str, float] = {}
        self._lock = threading.Lock()
        self._looked = False

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._look_for_nodes, name="nodes", daemon=True).start()

    def stop(self) -> None:
        """End, soon."""
        self._stopped.set()

    def _look_for_nodes(self) -> None:
        while not self._stopped.wait(ASK_EVERY):
            # This comes first, whatever fails below: without it the process would seem frozen.
            self._agreement.tick()
            try:
                self._look()
            except Exception:
                if not self._stopped.is_set():
                    logger.exception("the nodes of the cluster cannot be listed; trying again")

    def _look(self) -> None:
        """Begin to ask new nodes."""
        now = self._agreement.now()
        for node in self._client.get_node_names():
            name = node["node_name"]
            with self._lock:
                known = name in self._counted_at
                self._counted_at[name] = now
            if known:
                continue
            if self._looked:
                self._agreement.newcomer(name)
            threading.Thread(target=self._ask, args=(name,), name=f"node {name}", daemon=True).start()
        self._looked = True

    def _forgotten(self, name: str) -> bool:
        """Forget a node if the client has not listed it for long; tell whether this call did."""
        with self._lock:
            if self._agreement.now() - self._counted_at[name] < FORGOTTEN_AFTER:
                return False
            del self._counted_at[name]
        self._agreement.forget(name)
        return True

    def _ask(self, name: str) -> None:
        while not self._stopped.is_set() and not self._forgotten(name):
            try:
                pause = self._ask_once(name)
            except Exception:
                if not self._stopped.is_set():
                    logger.exception("node %s cannot be asked; trying again", name)
                pause = ASK_EVERY
            if pause:
                self._stopped.wait(pause)

    def _ask_once(self, name: str) -> float:
        """Ask a node; return how long to wait before asking again, in seconds."""
        agreement = self._agreement
        asked_at = agreement.now()
        try:
            answer = self._client.info_single_node(QUESTION, name, {"timeout": ANSWER_WITHIN_MS})
        except client_errors.TimeoutError:
            agreement.silent(name, asked_at)
            # Ask again at once, so that a question waits there when the node wakes.
            return 0.0
        except client_errors.ClusterChangeError:
            agreement.answered(name, UNSTABLE)
        except client_errors.ParamError:
            agreement.left_out(name)
        except client_errors.AerospikeError:
            agreement.gone(name)
        else:
            agreement.answered(name, answer.strip())
        return ASK_EVERY
