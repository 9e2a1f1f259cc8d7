"""Whether a cluster has room for more jobs, by its nodes' figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from beanspiked.engine.aerospike.store.seam import Busy
from beanspiked.places import host_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Node", "ask", "count", "figure", "has_room", "parse_node", "room", "storage_figure"]

# Puts stop at this part of stop-writes. The rest is for deletes, which the server refuses at stop-writes as well.
RESERVE: Final = 0.8
# A namespace in memory may have most of the machine's memory, so 0.8 of 90 % would be too early.
MEMORY_RESERVE: Final = 0.9
# Puts stop at this many times the limit of free blocks, since blocks go faster than data grows until the server has defragmented.
AVAIL_RESERVE: Final = 4

# How long to wait for a node, in ms.
INFO_POLICY: Final = {"timeout": 1000}


@dataclass(frozen=True, slots=True)
class Node:
    """One node's figures and settings.

    Attributes:
        name: Its address and port.
        build: Its version.
        namespaces: The namespaces it has.
        namespace: Figures and settings of the jobs' namespace; empty if the node does not have it.
        statistics: Figures of the node.
        service: Settings of the node.
    """

    name: str
    build: str = ""
    namespaces: Sequence[str] = ()
    namespace: Mapping[str, str] = field(default_factory=dict)
    statistics: Mapping[str, str] = field(default_factory=dict)
    service: Mapping[str, str] = field(default_factory=dict)


# --- asking


def ask(client: Any, commands: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Send each node some info commands in one request; return the answers, and the reasons of nodes without one, by address."""
    from aerospike.exception import AerospikeError  # noqa: PLC0415 - a judgement alone does not need it

    answers: dict[str, str] = {}
    silent: dict[str, str] = {}
    # This asks one by one, since one dead node spoils all answers of `info_all`.
    for node in client.get_node_names():
        name = host_port(node["address"], node["port"])
        try:
            answers[name] = client.info_single_node("\n".join(commands), node["node_name"], INFO_POLICY)
        except AerospikeError as error:
            silent[name] = f"{error.code}: {error.msg}"
    return answers, silent


def parse_node(name: str, answer: str) -> Node:
    """Decode a node's answer, which has a line with the command, a tab and the result for each info command."""
    answers: dict[str, str] = {}
    for line in answer.splitlines():
        command, _, value = line.partition("\t")
        answers[command.partition("/")[0]] = value
    namespace = _pairs(answers.get("namespace", ""))
    if namespace.get("type") == "unknown":
        namespace = {}
    names = answers.get("namespaces", "")
    return Node(
        name,
        answers.get("build", ""),
        tuple(names.split(";")) if names else (),
        namespace,
        _pairs(answers.get("statistics", "")),
        _pairs(answers.get("get-config:context=service", "")),
    )


def _pairs(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(";"))
    return {key: value for key, equals, value in pairs if equals}


def figure(info: Mapping[str, str], key: str) -> int | None:
    """Return a figure; None if the server does not report it."""
    value = info.get(key, "")
    return int(value) if value.isascii() and value.isdigit() else None


# --- room


def room(nodes: Sequence[Node]) -> tuple[bool, str]:
    """Tell whether there is room for more jobs, and why not: some node is near the point where it refuses every write.

    Nodes without the namespace do not count. Limits that a node's version does not have do not count either.
    """
    having = [node for node in nodes if node.namespace]
    if not having:
        return False, "no node has the namespace"
    short = [f"{node.name}: {reason}" for node in having for reason in _shortages(node)]
    if short:
        return False, "; ".join(short)
    used = [number for node in having if (number := figure(node.namespace, "data_used_pct")) is not None]
    free = [number for node in having if (number := figure(node.namespace, "data_avail_pct")) is not None]
    if not used or not free:
        return True, "the server does not tell how full it is"
    return True, f"data up to {max(used)} % used, at least {min(free)} % free to write"


def _shortages(node: Node) -> Iterator[str]:
    """Name the limits that a node is near."""
    info = node.namespace
    if info.get("stop_writes") == "true":
        yield "stop-writes: it refuses every write, also deletes"
    if info.get("clock_skew_stop_writes") == "true":
        yield "it refuses every write because the nodes' clocks differ"
    for what, used, stop, reserve in (
        ("data", figure(info, "data_used_pct"), storage_figure(info, "stop-writes-used-pct"), RESERVE),
        ("memory for indexes", figure(info, "indexes_memory_used_pct"), 100, RESERVE),
        ("the machine's memory", _memory_used(node), figure(info, "stop-writes-sys-memory-pct"), MEMORY_RESERVE),
    ):
        # 0 means no limit.
        if used is not None and stop and used >= stop * reserve:
            yield f"{what} is {used} % used; puts stop at {stop * reserve:g} %, all writes at {stop} %"
    available = figure(info, "data_avail_pct")
    stop = storage_figure(info, "stop-writes-avail-pct")
    if available is not None and stop:
        # At most half of the rest: an empty namespace may have less than four times a high limit.
        reserve = min(AVAIL_RESERVE * stop, (100 + stop) / 2)
        if available < reserve:
            yield f"{available} % of the storage is free to write; puts stop below {reserve:g} %, all writes below {stop} %"


def storage_figure(info: Mapping[str, str], key: str) -> int | None:
    """Return a figure of the namespace's storage."""
    return figure(info, f"storage-engine.{key}")


def _memory_used(node: Node) -> int | None:
    free = figure(node.statistics, "system_free_mem_pct")
    return None if free is None else 100 - free


def has_room(client: Any, namespace: str) -> tuple[bool, str]:
    """Tell whether every node has room for more jobs, and why not. Blocks, up to a second for each silent node.

    Silent nodes do not count, since the cluster goes on without them. Raises Busy if all nodes are silent.
    """
    answers, silent = ask(client, [f"namespace/{namespace}", "statistics"])
    if not answers:
        raise Busy("; ".join(f"{name} does not answer: {why}" for name, why in silent.items()) or "no node answers")
    return room([parse_node(name, answer) for name, answer in answers.items()])


def count(client: Any, namespace: str, sets: Mapping[str, str]) -> dict[str, int]:
    """Count the records in sets, by the given names of the sets. Blocks, up to a second for each silent node."""
    answers, _ = ask(client, [f"sets/{namespace}", f"namespace/{namespace}"])
    counted = dict.fromkeys(sets.values(), 0)
    copies = 1
    for answer in answers.values():
        told = dict(line.split("\t", 1) for line in answer.splitlines() if "\t" in line)
        copies = max(
            copies, figure(_pairs(told.get(f"namespace/{namespace}", "")), "effective_replication_factor") or 1
        )
        for one in told.get(f"sets/{namespace}", "").split(";"):
            fields = _pairs(one.replace(":", ";"))
            if fields.get("set", "") in sets:
                counted[sets[fields["set"]]] += figure(fields, "objects") or 0
    # Each node counts its own copies.
    return {kind: number // copies for kind, number in counted.items()}
