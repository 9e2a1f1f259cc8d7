"""Operations that reach a segment when their sender has long gone on: they change nothing, in whatever order they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from beanspiked.engine.aerospike.store.keys import SLOT_BITS
from beanspiked.engine.aerospike.store.seam import Fenced, Unknown

if TYPE_CHECKING:
    from world import World

    from beanspiked.engine.aerospike.store.seam import Change


def test_a_late_try_to_settle_an_attach_lets_no_other_late_operation_pass(here: World) -> None:
    putting, taking = here.front_end().connect(), here.front_end().connect()
    here.run(3.0)
    number = (job_id := putting.put()) >> SLOT_BITS
    apply, settle_attach = here.cluster.apply, here.cluster.settle_attach
    doubts = ["attach", "release"]
    late: list[tuple[Any, ...]] = []

    def unanswered(of: int, lease: int, change: Change) -> Any:
        if doubts[:1] == ["attach"] and change.attach and change.take:
            doubts.pop(0)
            apply(of, lease, change)
            raise Unknown("9: applied, and not answered")
        if doubts == ["release"] and change.moves:
            doubts.pop(0)
            late.append((of, lease, change))
            raise Unknown("9: on its way")
        return apply(of, lease, change)

    def on_its_way(of: int, lease: int, renewed: int) -> Any:
        if not late:
            late.append((of, lease, renewed))
            raise Unknown("9: on its way")
        return settle_attach(of, lease, renewed)

    here.cluster.apply = unanswered  # type: ignore[method-assign]
    here.cluster.settle_attach = on_its_way  # type: ignore[method-assign]
    assert taking.ask(b"reserve\r\n").startswith(b"RESERVED %d " % job_id)
    assert taking.ask(b"release %d 9 0\r\n" % job_id) == b"RELEASED\r\n"
    assert putting.ask(b"reserve\r\n").startswith(b"RESERVED %d " % job_id)
    assert len(late) == 2
    settle_attach(*late[0])
    with pytest.raises(Fenced):
        apply(*late[1])
    assert not here.cluster.segment(number).queues["ready"]
    # What the late try has made is nobody's, and goes with the second audit.
    here.run(190.0)
    assert len(here.cluster.segment(number).leases) == 1


def test_a_try_to_settle_an_attach_that_was_applied_and_not_answered_loses_no_job(here: World) -> None:
    putting, taking = here.front_end().connect(), here.front_end().connect()
    here.run(3.0)
    job_id = putting.put()
    apply, settle_attach, settle = here.cluster.apply, here.cluster.settle_attach, here.cluster.settle
    unanswered = {"apply", "settle_attach", "settle"}

    def once(name: str, operation: Any) -> Any:
        def maybe(*arguments: Any) -> Any:
            outcome = operation(*arguments)
            if name in unanswered and (name != "apply" or arguments[2].attach):
                unanswered.discard(name)
                raise Unknown("9: applied, and not answered")
            return outcome

        return maybe

    here.cluster.apply = once("apply", apply)  # type: ignore[method-assign]
    here.cluster.settle_attach = once("settle_attach", settle_attach)  # type: ignore[method-assign]
    here.cluster.settle = once("settle", settle)  # type: ignore[method-assign]
    assert taking.ask(b"reserve\r\n").startswith(b"RESERVED %d " % job_id)
    assert not unanswered
    assert taking.ask(b"delete %d\r\n" % job_id) == b"DELETED\r\n"


@pytest.mark.parametrize("answered", [True, False])
def test_a_try_to_settle_an_attach_that_overtakes_the_next_one_or_comes_after_it_hides_no_job(
    here: World, answered: bool
) -> None:
    putting, taking = here.front_end().connect(), here.front_end().connect()
    here.run(3.0)
    job_id = putting.put()
    apply, settle_attach = here.cluster.apply, here.cluster.settle_attach
    late: list[tuple[Any, ...]] = []

    def unanswered(of: int, lease: int, change: Change) -> Any:
        outcome = apply(of, lease, change)
        if change.attach and change.take:
            here.cluster.apply = apply  # type: ignore[method-assign]
            raise Unknown("9: applied, and not answered")
        return outcome

    def settle(of: int, lease: int, renewed: int) -> Any:
        late.append((of, lease, renewed))
        if len(late) == 1:
            raise Unknown("9: on its way")
        here.cluster.settle_attach = settle_attach  # type: ignore[method-assign]
        if answered:
            settle_attach(*late[0])
            return settle_attach(*late[1])
        settle_attach(*late[1])
        settle_attach(*late[0])
        raise Unknown("9: applied, and not answered")

    here.cluster.apply = unanswered  # type: ignore[method-assign]
    here.cluster.settle_attach = settle  # type: ignore[method-assign]
    assert taking.ask(b"reserve\r\n", 5.0).startswith(b"RESERVED %d " % job_id)
    assert len(late) == 2
    assert taking.ask(b"delete %d\r\n" % job_id) == b"DELETED\r\n"
