"""The counters that the machine cannot compare, because the harness's own questions count in them too."""

import pytest
from twins.pair import Pair
from twins.side import Side

pytestmark = pytest.mark.real

SENT = """
    put 0 0 100 1/a; put 0 0 100 9 x; put -1 0 100 9; put 0 0 100 4/lengthy
    peek 2; peek 0; peek 99; peek; peek x; peek-ready; peek-readyx; peek-delayed; peek-buried
    reserve; reserve ; reserve-with-timeout 0; reserve-with-timeoutx; reserve-job 99; touch 2; touch 99; touch
    release 2 5 0; release 2; release 99 0 0; reserve; bury 2 0; bury 2; reserve-job 2; bury 2 7; bury 99 0; kick 1; kick x
    kick-job 2; use a; use; use a b; watch a; watch -; ignore a; ignore a; ignore default; ignore :
    stats; statsx; stats-job 2; stats-job 99; stats-job; stats-tube a; stats-tube zz; stats-tube  a
    list-tubes; list-tubesx; list-tube-used; list-tube-usedx; list-tubes-watched; list-tubes-watchedx
    pause-tube a 0; pause-tube zz 0; pause-tube -x 1; pause-tube a; delete 2; delete 2; delete x; junk
"""
LINES = [line.replace("/", "\r\n").encode() for row in SENT.strip().split("\n") for line in row.strip().split("; ")]


def _counters(side: Side, before: int) -> dict[bytes, int]:
    """Read the counters of commands, without the questions that the harness asked before."""
    body = side.ask(b"stats\r\n", 1)[0].body or b""
    pairs = [line.split(b": ", 1) for line in body.split(b"\n") if line.startswith(b"cmd-")]
    counted = {key: int(value) for key, value in pairs}
    counted[b"cmd-stats"] -= before
    return counted


def test_every_command_is_counted_alike(pair: Pair) -> None:
    pair.restart()
    pair.open(1)
    for line in LINES:
        pair.send(1, line + b"\r\n")
        pair.settle()
    theirs, ours = (_counters(side, side.questions) for side in pair.sides)
    assert theirs == ours
    assert theirs[b"cmd-stats"] == 2
    assert all(count > 0 for count in theirs.values())
