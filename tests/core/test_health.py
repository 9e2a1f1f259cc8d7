"""Whether a cluster is fit to keep jobs, and has room for more: judged from what nodes answered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from beanspiked.engine.aerospike.store.aerospike.room import Node, count, parse_node, room
from beanspiked.ops.health import SEGMENT_BYTES, Finding, judge

if TYPE_CHECKING:
    from collections.abc import Mapping

CONF = Path(__file__).parent.parent.parent / "deploy" / "aerospike" / "aerospike.conf"

# What a node of Aerospike 8.1.2.0 with deploy/aerospike/aerospike.conf answered, shortened: figures, then settings.
NAMESPACE = (
    "ns_cluster_size=3;effective_replication_factor=2;objects=0;clock_skew_stop_writes=false;stop_writes=false;"
    "hwm_breached=false;index_used_bytes=0;data_total_bytes=1073741824;data_used_bytes=0;data_used_pct=0;"
    "data_avail_pct=99;data_compression_ratio=1.000;storage-engine.file[0].used_bytes=0;"
    "storage-engine.file[0].free_wblocks=127;conflict-resolution-policy=last-update-time;default-ttl=0;"
    "disable-write-dup-res=false;indexes-memory-budget=0;max-record-size=1048576;nsup-period=0;replication-factor=2;"
    "stop-writes-sys-memory-pct=90;strong-consistency=false;transaction-pending-limit=0;write-commit-level-override=all;"
    "storage-engine=device;storage-engine.file[0]=/opt/aerospike/data/beanspike.dat;"
    "storage-engine.commit-to-device=false;storage-engine.direct-files=true;storage-engine.disable-odsync=false;"
    "storage-engine.filesize=1073741824;storage-engine.flush-max-ms=1000;storage-engine.stop-writes-avail-pct=5;"
    "storage-engine.stop-writes-used-pct=70"
)
ANSWER = f"""\
build\t8.1.2.0
namespaces\tbeanspike;bar
namespace/beanspike\t{NAMESPACE}
statistics\tfailed_best_practices=true;cluster_size=3;cluster_key=76C92435F5A2;cluster_integrity=true;cluster_is_member=true;\
cluster_duplicate_nodes=null;cluster_clock_skew_ms=0;uptime=4;system_free_mem_pct=92;host_free_mem_pct=92
get-config:context=service\tcgroup-mem-tracking=false;disable-udf-execution=false;min-cluster-size=2;proto-fd-max=15000
"""
# And one that does not have the namespace.
WITHOUT = ANSWER.replace("beanspike;bar", "bar").replace(NAMESPACE, "type=unknown")

FILE = "storage-engine.file[0]"
DIRECT = "storage-engine.direct-files"
USED_LIMIT = "storage-engine.stop-writes-used-pct"
AVAIL_LIMIT = "storage-engine.stop-writes-avail-pct"


def node(changes: Mapping[str, str | None] | None = None, name: str = "a:3000", build: str = "8.1.2.0") -> Node:
    """The recorded node, with some values changed, added or (None) left out."""
    recorded = parse_node(name, ANSWER)
    parts = [dict(recorded.namespace), dict(recorded.statistics), dict(recorded.service)]
    for key, value in (changes or {}).items():
        part = next((part for part in parts if key in part), parts[0])
        part.pop(key, None)
        if value is not None:
            part[key] = value
    return Node(name, build, recorded.namespaces, *parts)


def findings(
    changes: Mapping[str, str | None] | None = None, build: str = "8.1.2.0", max_job_size: int = 65535
) -> list[Finding]:
    """What is said of a cluster of three such nodes."""
    nodes = [node(changes, f"{name}:3000", build) for name in "abc"]
    return judge(nodes, "beanspike", max_job_size)


def only(level: str, found: list[Finding]) -> str:
    """The one finding that is not ok."""
    (other,) = [finding for finding in found if finding.level != "ok"]
    assert other.level == level
    return other.text


# --- reading


def test_an_answer_is_read_by_its_commands() -> None:
    read = parse_node("a:3000", ANSWER)
    assert (read.name, read.build, read.namespaces) == ("a:3000", "8.1.2.0", ("beanspike", "bar"))
    assert read.namespace["data_avail_pct"] == "99"
    assert read.namespace[FILE] == "/opt/aerospike/data/beanspike.dat"
    assert read.statistics["cluster_size"] == "3"
    assert read.service["min-cluster-size"] == "2"


def test_an_unknown_namespace_is_read_as_none() -> None:
    assert parse_node("a:3000", WITHOUT).namespace == {}


def test_a_server_without_namespaces_has_none() -> None:
    assert parse_node("a:3000", "namespaces\t\n").namespaces == ()


# --- fitness


def test_of_a_well_configured_cluster_everything_is_ok() -> None:
    assert findings() == [
        Finding("ok", "server 8.1.2.0"),
        Finding("ok", "namespace beanspike"),
        Finding("ok", "cluster of 3"),
        Finding("ok", "replication-factor 2"),
        Finding("ok", "conflict-resolution-policy last-update-time"),
        Finding("ok", "transaction-pending-limit 0"),
        Finding("ok", "max-record-size 1048576, for jobs of up to 65535 bytes"),
        Finding("ok", "storage-engine device"),
        Finding("ok", "data up to 0 % used, at least 99 % free to write"),
    ]


def test_a_namespace_that_no_node_has_is_an_error_that_names_the_others() -> None:
    nodes = [
        parse_node("a:3000", WITHOUT),
        parse_node("b:3000", WITHOUT.replace("namespaces\tbar", "namespaces\tfoo;bar")),
    ]
    text = only("error", judge(nodes, "beanspike", 65535))
    assert text == "namespace beanspike is missing; the cluster has bar, foo"


def test_a_namespace_that_some_nodes_lack_is_an_error_that_names_these() -> None:
    nodes = [node(), parse_node("b:3000", WITHOUT), node(name="c:3000")]
    text = only("error", judge(nodes, "beanspike", 65535))
    assert text == "namespace beanspike is missing on b:3000: all nodes must have it"


@pytest.mark.parametrize("build", ["6.4.0.2", "5.7.0.31"])
def test_an_old_server_is_an_error(build: str) -> None:
    assert f"server {build} is older than 7.0" in only("error", findings(build=build))


@pytest.mark.parametrize("build", ["7.0.0.0", "8.1.2.0-rc1", "10.0.0.1"])
def test_a_server_from_7_0_on_will_do(build: str) -> None:
    assert Finding("ok", f"server {build}") in findings(build=build)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"conflict-resolution-policy": "generation"}, "set last-update-time"),
        ({"disable-write-dup-res": "true"}, "disable-write-dup-res true"),
        ({"transaction-pending-limit": "1"}, "transaction-pending-limit 1: when more"),
        ({"transaction-pending-limit": "19"}, "transaction-pending-limit 19: when more"),
        ({"replication-factor": "1", "effective_replication_factor": "1"}, "replication-factor 1: the loss of a node"),
        ({"effective_replication_factor": "1"}, "for lack of nodes there is one copy"),
        ({"storage-engine": "memory", FILE: None}, "storage-engine memory without a file"),
        ({DIRECT: "false"}, "direct-files false"),
        ({"storage-engine.disable-odsync": "true"}, "disable-odsync true"),
        ({"write-commit-level-override": "master"}, "write-commit-level-override master"),
        ({"disable-udf-execution": "true"}, "disable-udf-execution true"),
        ({"min-cluster-size": "1"}, "min-cluster-size 1 of 3 nodes"),
        ({"min-cluster-size": None}, "min-cluster-size 1 of 3 nodes"),
        ({"cluster_size": "4"}, "min-cluster-size 2 of 4 nodes"),
        ({"cluster_integrity": "false"}, "do not agree who is in the cluster"),
        ({"cluster_clock_skew_ms": "1001"}, "clocks differ by 1001 ms"),
        ({"stop_writes": "true"}, "puts answer OUT_OF_MEMORY: a:3000: stop-writes"),
        ({"data_used_pct": "56"}, "puts answer OUT_OF_MEMORY: a:3000: data is 56 % used"),
    ],
)  # fmt: skip
def test_what_may_lose_or_refuse_jobs_is_warned_of(changes: dict[str, str | None], said: str) -> None:
    assert said in only("warning", findings(changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"transaction-pending-limit": "20"},
        {"storage-engine": "memory"},
        {"storage-engine": "memory", FILE: None, "storage-engine.device[0]": "/dev/sdb"},
        {FILE: None, "storage-engine.device[0]": "/dev/sdb", DIRECT: "false"},
        {DIRECT: "false", "storage-engine.commit-to-device": "true"},
        {"write-commit-level-override": "off"},
        {"strong-consistency": "true", "conflict-resolution-policy": "undefined", "min-cluster-size": "1"},
        {"cluster_size": "2", "min-cluster-size": "1"},
        {"cluster_clock_skew_ms": "1000"},
        {"default-ttl": "2592000", "nsup-period": "120"},
    ],
)  # fmt: skip
def test_what_is_good_enough_is_not_warned_of(changes: dict[str, str | None]) -> None:
    assert {finding.level for finding in findings(changes)} == {"ok"}


@pytest.mark.parametrize(
    "key",
    ["conflict-resolution-policy", "transaction-pending-limit", "max-record-size", "replication-factor", "storage-engine",
     "cluster_size"],
)  # fmt: skip
def test_a_setting_that_the_server_does_not_tell_is_no_good_setting(key: str) -> None:
    assert only("warning", findings({key: None})) == f"the server does not tell its {key}: not checked"


def test_a_version_that_cannot_be_read_is_not_taken_for_a_good_one() -> None:
    assert only("warning", findings(build="")) == "the server does not tell its version: not checked"


def test_the_nodes_on_which_a_setting_differs_are_named() -> None:
    other = {"conflict-resolution-policy": "generation"}
    found = judge([node(), node(other, "b:3000"), node(other, "c:3000")], "beanspike", 65535)
    assert only("warning", found).startswith("b:3000, c:3000: conflict-resolution-policy generation: ")
    assert Finding("ok", "a:3000: conflict-resolution-policy last-update-time") in found


def test_nodes_that_see_clusters_of_different_sizes_do_not_agree() -> None:
    found = judge([node(), node({"cluster_size": "2"}, "b:3000")], "beanspike", 65535)
    assert "do not agree" in only("warning", found)


# --- the size of jobs


def test_a_record_must_hold_a_whole_segment_however_small_the_jobs() -> None:
    for size in (10, 65535):
        assert Finding("ok", f"max-record-size 196608, for jobs of up to {size} bytes") in findings(
            {"max-record-size": "196608"}, max_job_size=size
        )
        text = only("error", findings({"max-record-size": "196607"}, max_job_size=size))
        assert text == f"max-record-size 196607: jobs of up to {size} bytes need 196608; raise it"


def test_a_record_must_hold_the_largest_job() -> None:
    large = 960 * 1024
    assert Finding("ok", f"max-record-size 1048576, for jobs of up to {large} bytes") in findings(max_job_size=large)
    text = only("error", findings(max_job_size=large + 1))
    what = f"max-record-size 1048576: jobs of up to {large + 1} bytes need 1048577"
    assert text == f"{what}; raise it, or lower max-job-size (-z)"


def test_the_configuration_in_deploy_says_how_small_a_record_may_be() -> None:
    assert f"at least {SEGMENT_BYTES // 1024}K" in CONF.read_text()


def test_before_7_1_the_write_block_bounds_records() -> None:
    old = {"max-record-size": "0", "storage-engine.write-block-size": "262144"}
    assert Finding("ok", "max-record-size 262144, for jobs of up to 65535 bytes") in findings(old, "7.0.0.5")
    assert "need 262145" in only("error", findings(old, "7.0.0.5", 196609))


def test_jobs_for_which_no_record_is_large_enough_are_an_error_that_says_how_large_they_may_be() -> None:
    largest = 8 * 1024 * 1024 - 64 * 1024
    whole = {"max-record-size": "8388608"}
    assert {finding.level for finding in findings(whole, max_job_size=largest)} == {"ok"}
    assert f"(-z) to {largest} at most" in only("error", findings(whole, max_job_size=largest + 1))


# --- room


def reason(changes: Mapping[str, str | None]) -> str:
    """Why there is no room, or nothing."""
    enough, text = room([node(), node(changes, "b:3000")])
    return "" if enough else text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data_used_pct": "56"}, "b:3000: data is 56 % used; puts stop at 56 %, all writes at 70 %"),
        ({"data_avail_pct": "19"}, "b:3000: 19 % of the storage is free to write; puts stop below 20 %, all writes below 5 %"),
        ({"indexes-memory-budget": "1", "indexes_memory_used_pct": "80"}, "b:3000: memory for indexes is 80 % used"),
        ({"system_free_mem_pct": "19"}, "b:3000: the machine's memory is 81 % used; puts stop at 81 %, all writes at 90 %"),
        ({"stop_writes": "true"}, "b:3000: stop-writes"),
        ({"clock_skew_stop_writes": "true"}, "b:3000: it refuses every write because the nodes' clocks differ"),
    ],
)  # fmt: skip
def test_puts_stop_well_before_any_node_refuses_writes(changes: dict[str, str | None], said: str) -> None:
    assert reason(changes).startswith(said)


@pytest.mark.parametrize(
    "changes",
    [{}, {"data_used_pct": "55"}, {"data_avail_pct": "20"}, {"indexes_memory_used_pct": "79"}, {"system_free_mem_pct": "20"}],
)  # fmt: skip
def test_until_then_there_is_room(changes: dict[str, str | None]) -> None:
    assert reason(changes) == ""


@pytest.mark.parametrize(
    "changes",
    [{USED_LIMIT: "0", "data_used_pct": "99"}, {AVAIL_LIMIT: "0", "data_avail_pct": "0"},
     {"stop-writes-sys-memory-pct": "0", "system_free_mem_pct": "0"},
     {USED_LIMIT: None, "data_used_pct": "99"}, {"data_avail_pct": None}, {"system_free_mem_pct": None}],
)  # fmt: skip
def test_a_limit_that_is_off_or_not_told_limits_nothing(changes: dict[str, str | None]) -> None:
    assert reason(changes) == ""


def test_with_a_high_limit_of_free_storage_an_empty_namespace_still_has_room() -> None:
    assert reason({AVAIL_LIMIT: "40", "data_avail_pct": "70"}) == ""
    assert "puts stop below 70 %" in reason({AVAIL_LIMIT: "40", "data_avail_pct": "69"})


def test_all_that_is_short_is_said() -> None:
    text = reason({"data_used_pct": "60", "data_avail_pct": "10"})
    assert "60 % used" in text
    assert "10 % of the storage" in text


def test_the_fullest_node_is_told_while_there_is_room() -> None:
    fuller = node({"data_used_pct": "30", "data_avail_pct": "60"}, "b:3000")
    assert room([node(), fuller]) == (True, "data up to 30 % used, at least 60 % free to write")


def test_figures_that_no_node_tells_are_not_made_up() -> None:
    assert room([node({"data_used_pct": None})]) == (True, "the server does not tell how full it is")


def test_a_node_without_the_namespace_does_not_count() -> None:
    assert room([node(), parse_node("b:3000", WITHOUT)])[0]


def test_without_any_node_that_has_the_namespace_there_is_no_room() -> None:
    assert room([parse_node("b:3000", WITHOUT)]) == (False, "no node has the namespace")


class Nodes:
    """A client of two nodes, each with copies of some records."""

    def get_node_names(self) -> list[dict[str, object]]:
        return [{"address": name, "port": 3000, "node_name": name} for name in ("a", "b")]

    def info_single_node(self, commands: str, name: str, _: object) -> str:
        objects = {"a": 7, "b": 5}[name]
        sets = f"ns=test:set=bsd_seg:objects={objects}:tombstones=9:;ns=test:set=other:objects=99:"
        told = {"sets/test": sets, "namespace/test": "objects=200;effective_replication_factor=2"}
        return "".join(f"{command}\t{told[command]}\n" for command in commands.split("\n"))


def test_copies_of_a_record_count_once() -> None:
    assert count(Nodes(), "test", {"bsd_seg": "segment", "bsd_dir": "directory"}) == {"segment": 6, "directory": 0}
