"""What must hold of a crowd once nothing fails any more: what the front-ends believe is compared with the store's records."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from beanspiked.engine.aerospike.store.keys import SLOT_BITS, job_slot
from beanspiked.engine.aerospike.store.seam import BURIED, DEAD, DELAYED, READY

if TYPE_CHECKING:
    from crowd import Crowd
    from memory_segments import SegmentRecord
    from world import Client, FrontEnd

# A job on its way to its holder is there by then. Two audits, which find what nobody holds, take longer.
HELD_AFTER = 3.0
# When it is looked whether the same client still waits beside the same job. Not at equal times: short reservations time out at such.
LOOKS_AFTER = (0.7, 1.1, 1.7)
# How often the figures are compared: a job may move while they are read.
READINGS = 4


def check(crowd: Crowd) -> None:
    """Check all. Raises AssertionError."""
    nobody_waits_beside_jobs(crowd)
    each_job_has_one_holder(crowd)
    figures_are_true(crowd)
    nothing_is_left(crowd)


def segments(crowd: Crowd) -> list[SegmentRecord]:
    """Return what the store has of all segments."""
    return list(crowd.world.cluster._segments.values())


def nobody_waits_beside_jobs(crowd: Crowd) -> None:
    """Check that no client waits on and on for a job while one is ready in a tube that it watches."""
    beside = waits(crowd)
    for seconds in LOOKS_AFTER:
        crowd.world.run(seconds)
        beside &= waits(crowd)
    named = sorted({(tube, job_id) for _, tube, job_id in beside})
    assert not named, f"seed {crowd.seed}: clients wait beside {len(named)} ready jobs: {named[:5]}"


def waits(crowd: Crowd) -> set[tuple[Client, str, int]]:
    """Return each client that waits, with the jobs that it could have."""
    ready: dict[str, list[int]] = {}
    for record in segments(crowd):
        ready.setdefault(record.tube, []).extend(ids(record, record.queues[READY]))
    return {
        (client, tube.name, job_id)
        for client in crowd.waiting()
        for tube in client.flow.session.tubes.watched
        if not tube.paused(client.front_end.clock.now())
        for job_id in ready.get(tube.name, ())
    }


def ids(record: SegmentRecord, keys: dict[bytes, bytes]) -> list[int]:
    """Return the ids of jobs of a segment."""
    return [record.number << SLOT_BITS | job_slot(key) for key in keys]


def each_job_has_one_holder(crowd: Crowd) -> None:
    """Check that no job has two holders, and that none is taken that nobody holds."""
    holders = Counter(job_id for front_end in crowd.alive() for job_id in held(front_end))
    twice = sorted(job_id for job_id, number in holders.items() if number > 1)
    assert not twice, f"seed {crowd.seed}: jobs have two holders: {twice[:5]}"
    lost = held_by_nobody(crowd)
    if lost:
        crowd.world.run(HELD_AFTER)
        lost &= held_by_nobody(crowd)
    assert not lost, f"seed {crowd.seed}: {len(lost)} jobs are held by nobody: {sorted(lost)[:5]}"


def held(front_end: FrontEnd) -> list[int]:
    """Return the jobs that a front-end's clients hold."""
    return [job_id for job_id, job in front_end.engine.holdings.jobs.items() if job.committer is not None]


def held_by_nobody(crowd: Crowd) -> set[int]:
    """Return the jobs that the store has in leases, and no front-end."""
    taken = {job_id for record in segments(crowd) for lease in record.leases.values() for job_id in ids(record, lease)}
    return taken.difference(*(front_end.engine.holdings.jobs for front_end in crowd.alive()))


def figures_are_true(crowd: Crowd) -> None:
    """Check that each front-end counts the jobs of each tube as they are in the store."""
    for front_end in crowd.alive():
        client = front_end.connect()
        for tube in crowd.tubes:
            told = counted = (0, 0, 0)
            for _ in range(READINGS):
                told, counted = figures(client, tube), count(crowd, tube.decode())
                if told == counted:
                    break
                crowd.world.run(0.9)
            assert told == counted, f"seed {crowd.seed}: {tube!r} has {counted} jobs due, buried, reserved; told {told}"
        client.hang_up()


def figures(client: Client, tube: bytes) -> tuple[int, int, int]:
    """Return what stats-tube tells of jobs that are ready or delayed, buried, and reserved."""
    reply = client.ask(b"stats-tube %b\r\n" % tube)
    if reply == b"NOT_FOUND\r\n":
        return 0, 0, 0
    ready, delayed, buried, reserved = (
        int(reply.partition(b"\ncurrent-jobs-%b: " % name)[2].split()[0])
        for name in (b"ready", b"delayed", b"buried", b"reserved")
    )
    return ready + delayed, buried, reserved


def count(crowd: Crowd, tube: str) -> tuple[int, int, int]:
    """Count the same jobs in the store."""
    own = [record for record in segments(crowd) if record.tube == tube and record.state != DEAD]
    due = sum(len(record.queues[READY]) + len(record.queues[DELAYED]) for record in own)
    return due, sum(len(record.queues[BURIED]) for record in own), sum(record.held() for record in own)


def nothing_is_left(crowd: Crowd) -> None:
    """Check that no front-end remembers more wishes for jobs than clients wait."""
    for front_end in crowd.alive():
        takes = front_end.engine.takes
        waiting = sum(client.front_end is front_end for client in crowd.waiting())
        remembered = len(takes._claims), len(takes._seeks), len(takes._passed)
        assert max(remembered) <= waiting, f"seed {crowd.seed}: {waiting} clients wait, remembered are {remembered}"
        coming = {tube.name: tube.coming for tube in front_end.engine.registry.known_tubes() if tube.coming}
        assert not coming, f"seed {crowd.seed}: requests for jobs are left that will never get an answer: {coming}"
