"""What becomes of a batch: every outcome in every state, without a store. Outcomes are walked through in all orders, five deep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from batches import BATCHES, DEEP, UNTIL, Walk

from beanspiked.engine.aerospike.segment import commit as commits
from beanspiked.engine.aerospike.segment.commit import Commit
from beanspiked.engine.aerospike.segment.step import END, SEND, SETTLE, WAIT, Step
from beanspiked.engine.aerospike.store.seam import (
    READY,
    Newer,
    Refused,
)
from beanspiked.engine.errors import EngineError, JobGone, OutcomeUnknown, StoreFailed, StoreFull

if TYPE_CHECKING:
    from collections.abc import Iterator


def walks(kind: str, path: tuple[str, ...] = ()) -> Iterator[Walk]:
    """Walk through everything that may happen to a batch; what has not ended so deep ends with a crash."""
    walk = Walk(kind)
    for outcome in path:
        walk.go(outcome)
    if walk.action == END:
        yield walk
    elif len(path) == DEEP:
        walk.go("crashed")
        yield walk
    else:
        for outcome in walk.outcomes():
            yield from walks(kind, (*path, outcome))


@pytest.mark.parametrize("kind", BATCHES)
def test_each_command_is_told_once_and_nothing_before_it_is_known(kind: str) -> None:
    assert sum(1 for _ in walks(kind)) > 20


def test_the_walks_use_every_rule_of_the_table() -> None:
    seen: set[tuple[str, str]] = set()
    for kind in BATCHES:
        for walk in walks(kind):
            seen |= walk.seen
    assert seen | {(commits.ENDED, commits.CRASHED)} == {(s, o) for s, row in commits.TABLE.items() for o in row}


def errors(step: Step) -> list[type[EngineError]]:
    return [type(error) for _, error in step.failed]


def test_after_a_failure_late_commands_fail_and_the_rest_is_sent_again_after_a_pause() -> None:
    walk = Walk("puts")
    walk.now = UNTIL / 2
    step = walk.go("busy")
    assert step.action == WAIT
    assert errors(step) == [StoreFailed]
    assert walk.go("rested").action == SEND
    assert len(walk.batch.change.puts[READY]) == 1


def test_puts_that_are_not_taken_for_a_while_go_elsewhere() -> None:
    walk = Walk("puts")
    assert not walk.go("busy").leave
    walk.go("rested")
    step = walk.go("busy")
    assert step.leave
    assert step.elsewhere == walk.puts
    assert step.action == END


def test_what_was_lost_twice_is_sent_again_after_a_pause_unless_it_is_late() -> None:
    walk = Walk("puts")
    walk.go("unknown")
    assert walk.go("not applied").action == SEND
    walk.go("unknown")
    assert walk.go("not applied").action == WAIT
    walk.go("rested late")
    walk.go("unknown")
    assert errors(walk.go("not applied"))[0] is StoreFailed


def test_a_full_store_fails_puts_and_gets_the_rest_at_once() -> None:
    walk = Walk("all")
    step = walk.go("full")
    assert step.action == SEND
    assert [(command, type(error)) for command, error in step.failed] == [(walk.puts[0], StoreFull)]
    assert not walk.batch.change.puts
    assert walk.go("full").action == WAIT


def test_a_full_store_gets_nothing_where_there_were_only_puts() -> None:
    assert Walk("puts").go("full").action == END


def test_a_late_command_on_a_full_store_is_told_that_it_is_full() -> None:
    walk = Walk("delete")
    walk.now = UNTIL
    assert errors(walk.go("full")) == [StoreFull]


def test_puts_that_make_a_record_too_big_go_elsewhere_and_the_rest_waits() -> None:
    walk = Walk("all")
    step = walk.go("too big")
    assert step.elsewhere == walk.puts
    assert step.leave
    assert step.action == WAIT


def test_a_change_that_makes_a_record_too_big_fails_unless_it_insists() -> None:
    step = Walk("delete").go("too big")
    assert errors(step) == [StoreFull]
    assert step.action == END
    assert Walk("expiry").go("too big").action == WAIT


def test_jobs_that_nobody_waits_for_any_more_are_not_asked_for_again() -> None:
    walk = Walk("asks")
    walk.go("busy")
    step = walk.go("rested, not wanted")
    assert step.action == END
    assert step.asks == walk.asks
    assert isinstance(step.asks_error, StoreFailed)


def test_a_change_that_insists_goes_along_with_the_next_batch_after_a_time() -> None:
    walk = Walk("expiry")
    walk.batch.until = UNTIL
    walk.go("busy")
    assert walk.go("rested").action == SEND
    walk.go("busy")
    assert walk.go("rested late").later == walk.commands


def test_a_job_that_somebody_else_took_is_not_reserved() -> None:
    assert errors(Walk("steal").commit.failed(Refused("it is not there"), 0.0, 0.0)) == [JobGone]


def test_a_job_that_its_record_has_no_room_to_hold_is_not_told_as_gone() -> None:
    assert errors(Walk("steal").go("too big")) == [StoreFull]


def test_a_reservation_that_takes_too_long_fails() -> None:
    walk = Walk("steal")
    assert walk.go("busy").action == WAIT
    walk.go("rested late")
    assert errors(walk.go("busy")) == [StoreFailed]


@pytest.mark.parametrize("kind", ["delete", "release"])
def test_a_change_in_doubt_is_told_as_in_doubt_unless_the_job_is_still_there(kind: str) -> None:
    for seen, error in (("put and deleted", OutcomeUnknown), ("not known", OutcomeUnknown), ("not put", JobGone)):
        walk = Walk(kind)
        walk.go("unknown")
        walk.go("fenced")
        assert errors(walk.go(seen)) == [error]


def test_a_new_value_in_doubt_is_told_as_gone_with_its_lease() -> None:
    walk = Walk("update")
    walk.go("unknown")
    walk.go("fenced")
    assert errors(walk.go("put and deleted")) == [JobGone]


def test_puts_in_doubt_are_read_off_the_segment() -> None:
    for seen, put, elsewhere, failed in (("put", 2, 0, 0), ("not put", 0, 2, 0), ("not known", 0, 0, 2)):
        walk = Walk("puts")
        walk.go("unknown")
        walk.go("fenced")
        step = walk.go(seen)
        assert (len(step.put), len(step.elsewhere), len(step.failed)) == (put, elsewhere, failed)


def test_puts_behind_an_operation_that_is_not_settled_go_elsewhere_after_a_while() -> None:
    walk = Walk("puts")
    walk.go("unknown")
    assert not walk.go("busy").leave
    walk.go("rested")
    step = walk.go("busy")
    assert step.leave
    assert step.elsewhere == []
    assert step.action == WAIT


def test_a_settle_is_tried_until_the_session_is_over() -> None:
    walk = Walk("puts")
    walk.go("unknown")
    for _ in range(100):
        walk.go("unknown")
        assert walk.go("rested late").action == SETTLE
    assert errors(walk.go("over")) == [OutcomeUnknown, OutcomeUnknown]


def test_a_record_of_a_newer_format_is_left_alone_and_what_was_sent_is_in_doubt() -> None:
    commit = Commit()
    commit.begin(BATCHES["puts"]())
    step = commit.failed(Newer("format 9"), 0.0, 0.0)
    assert errors(step) == [OutcomeUnknown, OutcomeUnknown]
    assert step.abandon is not None


def test_a_segment_that_gives_no_lease_is_given_up_only_if_it_is_gone() -> None:
    assert Walk("attach").go("fenced").abandon is not None
    for outcome in ("busy", "full", "too big"):
        step = Walk("attach").go(outcome)
        assert step.action == WAIT
        assert step.reason is not None


def test_what_was_taken_under_a_lease_that_may_have_been_made_is_looked_for() -> None:
    walk = Walk("attach and take")
    assert walk.go("unknown").action == SETTLE
    assert walk.go("applied").done


def test_an_outcome_that_cannot_be_is_a_bug() -> None:
    commit = Commit()
    commit.begin(BATCHES["puts"]())
    with pytest.raises(KeyError):
        commit.seen(None)


def test_after_a_bug_only_those_are_told_who_were_not_told_before() -> None:
    walk = Walk("puts")
    walk.commit.applied()
    walk.puts[0].settle(None)
    assert [command for command, _ in walk.commit.crashed().failed] == walk.puts[1:]
