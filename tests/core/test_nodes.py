"""When a front-end waits because a node, or it itself, was frozen, and when it goes on."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from aerospike import exception as client_errors

from beanspiked.engine.aerospike.store.aerospike import nodes
from beanspiked.engine.aerospike.store.aerospike.calls import Caller
from beanspiked.engine.aerospike.store.aerospike.deadline import STEP_MS, Deadline
from beanspiked.engine.aerospike.store.aerospike.nodes import (
    AGREED_FOR,
    AT_LONGEST,
    SILENT,
    UNSTABLE,
    Agreement,
    NodeWatch,
)
from beanspiked.engine.aerospike.store.aerospike.probe import check_node, unanswered
from beanspiked.engine.aerospike.store.seam import Busy

if TYPE_CHECKING:
    from collections.abc import Callable


class Cluster:
    """Three nodes that answer whenever time goes on."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.agreement = Agreement(lambda: self.time)
        self.answers = {"A": "one", "B": "one", "C": "one"}
        self.go_on(1.0)

    def go_on(self, seconds: float) -> None:
        """Let everybody answer every 0.1 s, and this process run."""
        until = self.time + seconds
        while self.time < until:
            self.agreement.tick()
            for node, answer in self.answers.items():
                self.agreement.answered(node, answer)
            self.time += 0.1

    def freeze(self, node: str, seconds: float) -> None:
        """Let a node be silent."""
        answer = self.answers.pop(node)
        self.agreement.silent(node, self.time)
        self.go_on(seconds)
        self.answers[node] = answer

    def wake(self, node: str) -> None:
        self.agreement.answered(node, self.answers[node])


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_nodes_are_relied_on_from_the_beginning_when_all_have_agreed_for_a_while(cluster: Cluster) -> None:
    cluster.agreement.begin()
    cluster.go_on(AGREED_FOR - 0.2)
    assert cluster.agreement.doubtful()
    # One has woken up that the others have taken leave of.
    cluster.answers["A"] = "of before"
    cluster.go_on(0.1)
    cluster.answers["A"] = "one"
    cluster.go_on(AGREED_FOR - 0.2)
    assert cluster.agreement.doubtful()
    cluster.go_on(0.4)
    assert not cluster.agreement.doubtful()


@pytest.mark.parametrize(("nodes", "doubtful"), [(["A"], False), (["A", "B"], True)])
def test_a_cluster_of_several_nodes_is_not_relied_on_from_the_first_moment(nodes: list[str], doubtful: bool) -> None:
    class Client:
        def get_node_names(self) -> list[dict[str, str]]:
            return [{"node_name": name} for name in nodes]

        def info_single_node(self, *_: object) -> str:
            return "one"

    caller = Caller(None)
    caller.connected(Client())
    assert caller.agreement.doubtful() == doubtful
    caller.close()


def test_nodes_that_answer_are_relied_on(cluster: Cluster) -> None:
    cluster.go_on(60)
    assert not cluster.agreement.doubtful()


def test_while_a_node_is_silent_the_others_are_relied_on(cluster: Cluster) -> None:
    cluster.freeze("A", 5.0)
    assert not cluster.agreement.doubtful()


def test_a_silent_node_is_asleep_while_the_client_counts_it_among_the_clusters(cluster: Cluster) -> None:
    agreement = cluster.agreement
    assert not agreement.asleep()
    for wakes in (agreement.left_out, agreement.gone, lambda node: agreement.answered(node, "one")):
        agreement.silent("A", cluster.time)
        assert agreement.asleep()
        wakes("A")
        assert not agreement.asleep()


def test_a_node_that_wakes_is_relied_on_when_all_have_agreed_for_a_while(cluster: Cluster) -> None:
    cluster.freeze("A", 2.0)
    cluster.wake("A")
    assert cluster.agreement.doubtful()
    cluster.go_on(AGREED_FOR - 0.2)
    assert cluster.agreement.doubtful()
    cluster.go_on(0.4)
    assert not cluster.agreement.doubtful()


def test_a_short_silence_is_nothing(cluster: Cluster) -> None:
    cluster.freeze("A", SILENT - 0.2)
    cluster.wake("A")
    assert not cluster.agreement.doubtful()


@pytest.mark.parametrize("others", ["two", UNSTABLE])
def test_while_nodes_speak_of_different_clusters_none_is_relied_on(cluster: Cluster, others: str) -> None:
    cluster.freeze("A", 2.0)
    cluster.answers.update(B=others, C=others)
    cluster.wake("A")
    cluster.go_on(4.0)
    assert cluster.agreement.doubtful()
    cluster.answers = dict.fromkeys("ABC", "three")
    cluster.go_on(AGREED_FOR + 0.3)
    assert not cluster.agreement.doubtful()


def test_nodes_that_never_agree_do_not_keep_everything_for_ever(cluster: Cluster) -> None:
    cluster.freeze("A", 2.0)
    cluster.answers.update(B="two")
    cluster.wake("A")
    cluster.go_on(AT_LONGEST + 0.3)
    assert not cluster.agreement.doubtful()


def test_a_frozen_node_that_the_client_forgets_meanwhile_is_not_forgotten(cluster: Cluster) -> None:
    cluster.freeze("A", 2.0)
    answer = cluster.answers.pop("A")
    cluster.agreement.left_out("A")
    cluster.go_on(3.0)
    cluster.answers["A"] = answer
    cluster.wake("A")
    assert cluster.agreement.doubtful()


def test_a_node_that_was_started_anew_is_relied_on_at_once(cluster: Cluster) -> None:
    cluster.freeze("A", 2.0)
    cluster.agreement.gone("A")
    cluster.wake("A")
    assert not cluster.agreement.doubtful()


def test_a_process_that_was_frozen_itself_relies_on_nobody_at_first(cluster: Cluster) -> None:
    cluster.time += 2.0
    # Before anything else of it has run.
    assert cluster.agreement.doubtful()
    cluster.go_on(AGREED_FOR - 0.2)
    assert cluster.agreement.doubtful()
    cluster.go_on(0.4)
    assert not cluster.agreement.doubtful()


def test_a_node_that_is_new_is_relied_on_when_all_have_agreed_for_a_while(cluster: Cluster) -> None:
    # Perhaps it was frozen since before anybody here knew it.
    cluster.agreement.newcomer("D")
    cluster.answers["D"] = "one"
    assert cluster.agreement.doubtful()
    cluster.go_on(AGREED_FOR + 0.3)
    assert not cluster.agreement.doubtful()


class Counted:
    """A client that counts some nodes among the cluster's; all others it does not know."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)

    def get_node_names(self) -> list[dict[str, str]]:
        return [{"node_name": name} for name in self.names]

    def info_single_node(self, _: str, name: str, __: object) -> str:
        if name not in self.names:
            raise client_errors.ParamError("no such node")
        return "one"


def asked() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("node ")}


def waited_for(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + 5
    while not condition() and time.monotonic() < until:
        time.sleep(0.001)
    return condition()


def test_of_a_node_that_is_gone_for_long_nothing_stays(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "ASK_EVERY", 0.001)
    agreement, client = cluster.agreement, Counted("A", "B")
    watch = NodeWatch(client, agreement)
    watch._look()
    assert asked() == {"node A", "node B"}
    client.names.remove("B")
    agreement.silent("B", cluster.time)
    cluster.go_on(nodes.FORGOTTEN_AFTER - 1)
    watch._look()
    assert "node B" in asked()
    cluster.answers.pop("B")
    cluster.go_on(2.0)
    watch._look()
    assert waited_for(lambda: asked() == {"node A"})
    assert not watch._counted_at.keys() ^ {"A"}
    assert "B" not in agreement._silent_since.keys() | agreement._answers.keys() | agreement._asleep
    # It comes back after all.
    client.names.add("B")
    assert not agreement.doubtful()
    watch._look()
    assert agreement.doubtful()
    assert asked() == {"node A", "node B"}
    watch.stop()
    assert waited_for(lambda: asked() == set())


def test_without_a_watch_there_is_no_doubt() -> None:
    assert not Agreement(lambda: 1e9).doubtful()


def test_writes_of_a_step_share_their_deadline_and_it_lies_after_the_time_that_they_may_take() -> None:
    deadline = Deadline(300)
    assert deadline.filter() == (0, None)
    deadline.seen(10**12)
    until, shared = deadline.filter()
    again, same = deadline.filter()
    assert 10**12 + 300 <= until <= 10**12 + 300 + STEP_MS + 50
    assert same is shared or again > until


def test_the_deadline_is_by_the_node_that_is_ahead() -> None:
    deadline = Deadline(300)
    assert deadline.seen(10**12) is False
    assert deadline.seen(10**12 - 5000) is False
    assert deadline.filter()[0] >= 10**12 + 300
    assert deadline.seen(10**12 + 5000) is True
    assert deadline.filter()[0] >= 10**12 + 5300


class Probed:
    """A client whose nodes answer, or not, when they are asked for a record, and of the cluster."""

    def __init__(self, *, wakes: bool) -> None:
        self.wakes = wakes

    def exists(self, *_: object) -> None:
        return

    def batch_read(self, keys: list[object], *_: object) -> SimpleNamespace:
        return SimpleNamespace(batch_records=[SimpleNamespace(result=0) for _ in keys])

    def info_single_node(self, *_: object) -> str:
        if self.wakes:
            return "one"
        raise client_errors.TimeoutError("no answer", 9)


KEY = ("test", "seg", 1)


def test_while_a_node_sleeps_records_of_others_are_written(cluster: Cluster) -> None:
    cluster.agreement.silent("A", cluster.time)
    check_node(Probed(wakes=False), cluster.agreement, KEY)
    assert unanswered(Probed(wakes=False), cluster.agreement, [KEY]) == set()


def test_nothing_is_written_when_a_sleeping_node_answers_before_the_watch_has_heard_of_it(cluster: Cluster) -> None:
    cluster.agreement.silent("A", cluster.time)
    with pytest.raises(Busy):
        check_node(Probed(wakes=True), cluster.agreement, KEY)
    assert unanswered(Probed(wakes=True), cluster.agreement, [KEY]) == {KEY}


def test_nothing_is_written_when_the_watch_hears_of_a_woken_node_meanwhile(cluster: Cluster) -> None:
    cluster.freeze("A", 2.0)
    cluster.wake("A")
    with pytest.raises(Busy):
        check_node(Probed(wakes=False), cluster.agreement, KEY)
    assert unanswered(Probed(wakes=False), cluster.agreement, [KEY]) == {KEY}
