"""After a day, or a week, of ordinary life nothing has become more than it was after the first hour.

`BEANSPIKED_ENDURANCE_DAYS=7` is the week; it takes some minutes.
"""

from __future__ import annotations

import os

import pytest
from depth import AT_FULL_DEPTH, FULL
from endurance import RECORDS, Life
from killed import KILLS

pytestmark = KILLS

ASKED = os.environ.get("BEANSPIKED_ENDURANCE_DAYS")
DAYS = float(ASKED or 1)
# Those of dead segments are used again once there are so many.
AT_MOST = {"dead segments": RECORDS}
# Of each type a front-end may hold so many objects more: what a front-end has just seen of another one's last look or heartbeat differs.
OBJECTS_MORE = 8
# Its news keep the names of the last 256 tubes, and a number for each, however few were told of in the first hour.
NEWS_MORE = 256
# Whether a look of the last second of ten minutes falls into these or not.
OPERATIONS_MORE = 0.05


@pytest.mark.skipif(not (FULL or ASKED), reason=AT_FULL_DEPTH)
@pytest.mark.slow
@pytest.mark.timeout(300 + 300 * DAYS)
def test_nothing_becomes_more_with_time() -> None:
    life = Life(1)
    life.live(1)
    first = life.measure()
    life.live(24 * DAYS - 1)
    last = life.measure()
    assert life.used > 1000 * DAYS
    for kind in first.records | last.records:
        assert last.records[kind] <= max(first.records[kind], AT_MOST.get(kind, 0)), kind
    for before, after in zip(first.objects, last.objects, strict=True):
        for kind in after:
            more = OBJECTS_MORE + (NEWS_MORE if kind in ("str", "int") else 0)
            assert after[kind] <= before[kind] + more, kind
    for name, often in last.operations.items():
        assert often <= first.operations.get(name, 0.0) + OPERATIONS_MORE, name


@pytest.mark.slow
def test_what_becomes_more_is_noticed() -> None:
    life = Life(2)
    life.live(0.05)
    first = life.measure()
    life.front_ends[0].clients += [Waiting() for _ in range(50)]  # type: ignore[misc]
    life.put("kept", size=3000)
    life.jobs.clear()
    last = life.measure()
    assert last.records["tubes"] == first.records["tubes"] + 1
    assert last.objects[0]["Waiting"] == 50
    assert last.records["bodies"] == first.records["bodies"] + 1
    assert last.operations["head"] > first.operations.get("head", 0.0)


class Waiting:
    """Something that nobody takes out."""
