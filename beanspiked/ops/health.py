"""Judges whether a cluster is fit to keep jobs: compares the nodes' settings with those on which the engine relies."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from beanspiked.engine.aerospike.segment.view import BYTES_MAX, JOBS_MAX
from beanspiked.engine.aerospike.store.aerospike.room import (
    Node,
    ask,
    figure,
    parse_node,
    room,
    storage_figure,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Finding", "inspect", "judge"]

Level = Literal["error", "warning", "ok"]

# The first version that keeps every map in order and has the limits that this module reads.
OLDEST: Final = (7, 0)
# The measured size of a segment's record, with some room. Besides its packed form, a job needs 20 bytes for its key and place in a
# map, and 20 for counters once somebody has reserved it. The leases and the tube's name need more. Many long reasons of buried jobs may
# exceed the size: the store then refuses such a bury.
JOB_EXTRA: Final = 64
SEGMENT_BYTES: Final = BYTES_MAX + JOBS_MAX * JOB_EXTRA
# The bytes of a body's record besides the body.
BODY_EXTRA: Final = 64 * 1024
# No configuration raises this: the server writes in blocks of this size.
LARGEST_RECORD: Final = 8 * 1024 * 1024
# Each front-end may have one operation that waits for a record. This many front-ends are common.
PENDING_ENOUGH: Final = 20
# A larger difference of clocks shifts delays visibly, and makes old copies of records look newer.
CLOCK_SKEW_MS: Final = 1000


class Finding(NamedTuple):
    """The finding of one look.

    Attributes:
        level: `error` if the cluster cannot keep jobs, `warning` if it may lose or refuse them, `ok`.
        text: The fact, what it means, and what to do.
    """

    level: Level
    text: str


# --- asking


def inspect(client: Any, namespace: str, max_job_size: int) -> list[Finding]:
    """Ask all nodes of a cluster and judge what they say. Blocks, up to a second for each silent node.

    Args:
        client: A connected client of the `aerospike` package.
        namespace: The namespace for the jobs.
        max_job_size: The largest job, in bytes.
    """
    commands = ["build", "namespaces", f"namespace/{namespace}", "statistics", "get-config:context=service"]
    answers, silent = ask(client, commands)
    findings = [Finding("error", f"{name} does not answer: {why}") for name, why in silent.items()]
    nodes = [parse_node(name, answer) for name, answer in answers.items()]
    if not nodes:
        return [*findings, Finding("error", "no node of the cluster answers")]
    return [*findings, *judge(nodes, namespace, max_job_size)]


# --- judging


def judge(nodes: Sequence[Node], namespace: str, max_job_size: int) -> list[Finding]:
    """Judge the answers of a cluster's nodes, of which there is at least one; see inspect."""
    findings = [*_together(nodes, _version), *_presence(nodes, namespace), *_membership(nodes), *_clocks(nodes)]
    having = [node for node in nodes if node.namespace]
    if not having:
        return findings
    for look in (_copies, _conflicts, _pending, partial(_record_size, max_job_size), _storing, _lua):
        findings += _together(having, look)
    enough, why = room(having)
    return [*findings, Finding("ok", why) if enough else Finding("warning", f"puts answer OUT_OF_MEMORY: {why}")]


def _together(nodes: Sequence[Node], look: Callable[[Node], Iterator[Finding]]) -> Iterator[Finding]:
    """Look at each node. Give a finding about all nodes once, and any other with the nodes' names."""
    found: dict[Finding, list[str]] = {}
    for node in nodes:
        for finding in look(node):
            found.setdefault(finding, []).append(node.name)
    for finding, names in found.items():
        everywhere = len(names) == len(nodes)
        yield finding if everywhere else finding._replace(text=f"{', '.join(names)}: {finding.text}")


def _untold(key: str) -> Finding:
    return Finding("warning", f"the server does not tell its {key}: not checked")


def _version(node: Node) -> Iterator[Finding]:
    numbers = re.match(r"(\d+)\.(\d+)", node.build)
    if numbers is None:
        yield _untold("version")
    elif (int(numbers[1]), int(numbers[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        yield Finding("error", f"server {node.build} is older than {oldest}, the first that keeps every map in order")
    else:
        yield Finding("ok", f"server {node.build}")


def _presence(nodes: Sequence[Node], namespace: str) -> Iterator[Finding]:
    lacking = [node.name for node in nodes if not node.namespace]
    if not lacking:
        yield Finding("ok", f"namespace {namespace}")
    elif len(lacking) < len(nodes):
        yield Finding("error", f"namespace {namespace} is missing on {', '.join(lacking)}: all nodes must have it")
    else:
        others = sorted({name for node in nodes for name in node.namespaces})
        yield Finding(
            "error", f"namespace {namespace} is missing; the cluster has {', '.join(others) or 'none at all'}"
        )


def _membership(nodes: Sequence[Node]) -> Iterator[Finding]:
    sizes = {figure(node.statistics, "cluster_size") for node in nodes}
    if len(sizes) > 1 or any(node.statistics.get("cluster_integrity") == "false" for node in nodes):
        yield Finding("warning", "the nodes do not agree who is in the cluster: it is forming, or the network is split")
        return
    size = sizes.pop()
    if size is None:
        yield _untold("cluster_size")
        return
    yield Finding("ok", f"cluster of {size}")
    # A split of two nodes has no larger side: min-cluster-size 2 would stop both.
    least = min(figure(node.service, "min-cluster-size") or 1 for node in nodes)
    consistent = all(node.namespace.get("strong-consistency") == "true" for node in nodes)
    if size > 2 and least * 2 <= size and not consistent:
        what = f"min-cluster-size {least} of {size} nodes: when the network splits, both sides take jobs"
        yield Finding("warning", f"{what}, and those of one side are lost when they meet again; set {size // 2 + 1}")


def _clocks(nodes: Sequence[Node]) -> Iterator[Finding]:
    skew = max(figure(node.statistics, "cluster_clock_skew_ms") or 0 for node in nodes)
    if skew > CLOCK_SKEW_MS:
        what = f"the nodes' clocks differ by {skew} ms: delays are off by as much, and a stale copy of a record can win"
        yield Finding("warning", f"{what} after a split of the network; keep them in step")


def _copies(node: Node) -> Iterator[Finding]:
    wanted = figure(node.namespace, "replication-factor")
    made = figure(node.namespace, "effective_replication_factor")
    if wanted is None:
        yield _untold("replication-factor")
    elif wanted < 2:
        yield Finding("warning", f"replication-factor {wanted}: the loss of a node loses its jobs; set 2")
    elif made is not None and made < 2:
        what = f"replication-factor {wanted}, but for lack of nodes there is one copy of each job"
        yield Finding("warning", f"{what}: the loss of a node loses its jobs; add a node")
    else:
        yield Finding("ok", f"replication-factor {wanted}")


def _conflicts(node: Node) -> Iterator[Finding]:
    if node.namespace.get("strong-consistency") == "true":
        yield Finding("ok", "strong-consistency")
        return
    policy = node.namespace.get("conflict-resolution-policy")
    if policy is None:
        yield _untold("conflict-resolution-policy")
    elif policy != "last-update-time":
        what = f"conflict-resolution-policy {policy}: a stale copy of a record can win, which brings finished jobs back"
        yield Finding("warning", f"{what} and loses new ones; set last-update-time")
    else:
        yield Finding("ok", f"conflict-resolution-policy {policy}")
    if node.namespace.get("disable-write-dup-res") == "true":
        what = "disable-write-dup-res true: while records move between nodes, a write can build on a stale copy"
        yield Finding("warning", f"{what}; set false")


def _pending(node: Node) -> Iterator[Finding]:
    limit = figure(node.namespace, "transaction-pending-limit")
    if limit is None:
        yield _untold("transaction-pending-limit")
    elif 0 < limit < PENDING_ENOUGH:
        what = f"transaction-pending-limit {limit}: when more front-ends than that use one record, such as a tube's"
        yield Finding("warning", f"{what} directory, the server refuses some (KEY_BUSY); set 0, which is no limit")
    else:
        yield Finding("ok", f"transaction-pending-limit {limit}")


def _record_size(max_job_size: int, node: Node) -> Iterator[Finding]:
    # Before 7.1 it is 0 unless set, and the block limits records.
    limit = figure(node.namespace, "max-record-size") or storage_figure(node.namespace, "write-block-size")
    needed = max(max_job_size + BODY_EXTRA, SEGMENT_BYTES)
    if limit is None:
        yield _untold("max-record-size")
    elif needed > LARGEST_RECORD:
        what = f"jobs of up to {max_job_size} bytes do not fit into an Aerospike record"
        yield Finding("error", f"{what}: set max-job-size (-z) to {LARGEST_RECORD - BODY_EXTRA} at most")
    elif limit < needed:
        what = f"max-record-size {limit}: jobs of up to {max_job_size} bytes need {needed}; raise it"
        yield Finding("error", what if limit < SEGMENT_BYTES else f"{what}, or lower max-job-size (-z)")
    else:
        yield Finding("ok", f"max-record-size {limit}, for jobs of up to {max_job_size} bytes")


def _storing(node: Node) -> Iterator[Finding]:
    info = node.namespace
    engine = info.get("storage-engine")
    files = "storage-engine.file[0]" in info
    if engine is None:
        yield _untold("storage-engine")
    elif engine == "memory" and not files and "storage-engine.device[0]" not in info:
        what = "storage-engine memory without a file: jobs are lost when all nodes that have a copy stop"
        yield Finding("warning", f"{what}; use storage-engine device")
    else:
        yield Finding("ok", f"storage-engine {engine}")
    if info.get("storage-engine.disable-odsync") == "true":
        yield Finding("warning", "disable-odsync true: a power failure of all nodes loses jobs; set false")
    elif files and "true" not in (info.get("storage-engine.direct-files"), info.get("storage-engine.commit-to-device")):
        what = "direct-files false: what the server has written waits in the machine's memory for the disk"
        yield Finding("warning", f"{what}, and a power failure of all nodes loses it; set true")
    if info.get("write-commit-level-override") == "master":
        what = "write-commit-level-override master: a job is acknowledged before its second copy is made"
        yield Finding("warning", f"{what}; set off")


def _lua(node: Node) -> Iterator[Finding]:
    if node.service.get("disable-udf-execution") == "true":
        what = "disable-udf-execution true: statistics that the nodes sum up in Lua are not available"
        yield Finding("warning", f"{what}; set false")
