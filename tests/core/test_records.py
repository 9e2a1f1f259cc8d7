"""The records of the log: what many changes come to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from beanspiked.engine.contract import Job
from beanspiked.engine.embedded.log import Log, read_log
from beanspiked.engine.embedded.records import HEAD, HEAD_SIZE, Net, encode
from beanspiked.engine.embedded.write import DELETE, PUT, Write
from beanspiked.engine.errors import StoreUnusable

if TYPE_CHECKING:
    from pathlib import Path

    from simulated import Wire


def test_the_highest_id_counts_though_its_job_came_before_others_and_is_gone(wire: Wire) -> None:
    # An id is given out when the line of a put is read, and bodies come when they come.
    tube = wire.engine.tube("default")
    jobs = [Job(job_id, tube, 0, 0.0, 60.0, wire.clock.time, b"x", None) for job_id in (2, 1)]
    net = Net()
    for batch in [Write(PUT, job) for job in jobs], [Write(DELETE, jobs[0])]:
        net.take(b"".join(encode(batch, 0.0)))
    assert (net.put_ids(), net.last_id) == ([1], 2)


def test_a_log_with_records_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    log = Log(tmp_path, b"the same", 0, [])
    log.append([HEAD.pack(99, HEAD_SIZE)], sync=True)
    log.close(remove=False)
    with pytest.raises(StoreUnusable, match="unknown kind 99; start a newer beanspiked"):
        read_log(tmp_path, b"the same", 0, Net().take)
