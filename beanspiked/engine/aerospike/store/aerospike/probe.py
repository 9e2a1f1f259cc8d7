"""While a node is silent, asks the nodes of records whether they answer, before writes to these records.

The question may itself wait in the socket of a frozen node, which answers when it wakes. So an answer counts only while each node that
was silent is still silent: the others may have left out a node that has just woken, and then writes to it would be lost.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import aerospike
from aerospike import exception as client_errors

from beanspiked.engine.aerospike.store.aerospike.nodes import QUESTION
from beanspiked.engine.aerospike.store.seam import Busy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from beanspiked.engine.aerospike.store.aerospike.nodes import Agreement

__all__ = ["Key", "check_node", "unanswered"]

logger = logging.getLogger(__name__)

# Namespace, set, and the record's own key.
Key = tuple[str, str, "int | str"]
# The question is whether the node itself answers. A copy elsewhere does not count.
PROBE_POLICY: Final = {
    "max_retries": 0,
    "total_timeout": 1000,
    "socket_timeout": 300,
    "replica": aerospike.POLICY_REPLICA_MASTER,
}
# How long to wait for a node that is probably silent.
STILL_SILENT_MS: Final = 100
# These codes are answers of a record's node. 2 says that the record is not there.
ANSWERED: Final = (0, 2)


def check_node(client: Any, agreement: Agreement, key: Key) -> None:
    """Check that a record's node answers, and that none has just woken. Raises Busy."""
    try:
        client.exists(key, PROBE_POLICY)
    except client_errors.RecordNotFound:
        pass
    except client_errors.AerospikeError as error:
        raise Busy(f"{error.code}: the node does not answer that has it") from error
    if _wakes(client, agreement):
        raise Busy("a node that was silent answers again")


def unanswered(client: Any, agreement: Agreement, keys: Sequence[Key]) -> set[Key]:
    """Return the records whose nodes do not answer, or all if a node has just woken."""
    try:
        probed = client.batch_read(list(keys), [], PROBE_POLICY).batch_records
    except client_errors.AerospikeError as error:
        logger.info("the nodes cannot be probed: %s", error)
        return set(keys)
    if len(probed) != len(keys) or _wakes(client, agreement):
        return set(keys)
    return {key for key, record in zip(keys, probed, strict=True) if record.result not in ANSWERED}


def _wakes(client: Any, agreement: Agreement) -> bool:
    """Tell whether a node that was silent answers again."""
    for node in agreement.sleepers():
        try:
            client.info_single_node(QUESTION, node, {"timeout": STILL_SILENT_MS})
        except client_errors.TimeoutError:
            continue
        except client_errors.AerospikeError as error:
            logger.debug("node %s cannot answer the question: %s", node, error)
        return True
    return agreement.doubtful()
