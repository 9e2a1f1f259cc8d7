"""What no run may show, and what is only worth counting."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

from drain import outstanding
from record import DELETED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from record import Delivery, Job, Record

# A front-end gives its jobs up after six seconds without the cluster.
HEALTHY_OUTAGE = 5.0


class Verdict:
    """What was found.

    Attributes:
        violations: Broken promises by kind.
        notable: What may happen in the circumstances, by kind.
    """

    def __init__(self) -> None:
        self.violations: defaultdict[str, list[str]] = defaultdict(list)
        self.notable: defaultdict[str, list[str]] = defaultdict(list)


def judge(record: Record, left: dict[str, int]) -> Verdict:
    """Judge a run after it was drained."""
    verdict = Verdict()
    if record.strange:
        verdict.violations["a reply that must not be"] = list(record.strange)
    for job in outstanding(record):
        verdict.violations["an acknowledged job is lost"].append(
            f"{job.tag} = {job.job_id}, put at {job.acknowledged:.4f}"
        )
    if any(left.values()):
        verdict.violations["jobs are stuck"].append(str(left))
    _judge_ids(record, verdict)
    for job in record.jobs.values():
        _judge_life(job, verdict)
        _judge_holders(record, job, verdict)
    return verdict


def _judge_ids(record: Record, verdict: Verdict) -> None:
    owners: dict[int, str] = {}
    for job in record.jobs.values():
        ids = {delivery.job_id for delivery in job.deliveries}
        if job.acknowledged:
            ids.add(job.job_id)
        if len(ids) > 1:
            verdict.violations["one put is there under two ids"].append(f"{job.tag}: {sorted(ids)}")
        for job_id in ids:
            if owners.setdefault(job_id, job.tag) != job.tag:
                verdict.violations["an id was given twice"].append(f"{job_id}: {owners[job_id]} and {job.tag}")


def _judge_life(job: Job, verdict: Verdict) -> None:
    """Nothing happens to a job after its end was told."""
    ends = sorted((delete for delete in job.deletes if delete.outcome == DELETED), key=lambda delete: delete.answered)
    if not ends:
        return
    end = ends[0]
    told = f"{job.tag}: deleted by {end.who} at {end.sent:.4f}-{end.answered:.4f}"
    for delivery in job.deliveries:
        text = f"{told}, delivered to {delivery.who} at {delivery.sent:.4f}-{delivery.read:.4f}"
        if delivery.sent > end.answered:
            verdict.violations["a job runs again after it was deleted"].append(text)
        elif delivery.read > end.answered:
            verdict.notable["a delivery that overlaps with the end of a delete"].append(text)
    for other in ends[1:]:
        text = f"{told}, and by {other.who} at {other.sent:.4f}-{other.answered:.4f}"
        if other.sent > end.answered:
            verdict.violations["a job was deleted twice"].append(text)
        else:
            # Who asks for the id of a job that somebody else deletes at the same time may be told that it is gone.
            verdict.notable["two deletes at the same time were acknowledged"].append(text)


def _judge_holders(record: Record, job: Job, verdict: Verdict) -> None:
    """A job has one holder while the front-end of that one is well."""
    for first, second in _overlapping(job):
        until = min(second.read, first.left or second.read)
        text = (
            f"{job.tag} = {first.job_id}: {first.who} has it since {first.read:.4f} (ttr {first.ttr:g}), "
            f"{second.who} got it at {second.sent:.4f}-{second.read:.4f}, the first one's end: {first.how} at {first.left:.4f}"
        )
        both = [holder.delete is not None and holder.delete.outcome == DELETED for holder in (first, second)]
        if all(both):
            verdict.violations["two holders, and both could delete the job"].append(text)
        elif any(
            outage.front == first.front
            and outage.began < until
            and (outage.ended or until) > first.sent
            and (outage.kind == "killed" or (outage.ended or until) - outage.began > HEALTHY_OUTAGE)
            for outage in record.outages
        ):
            verdict.notable["given to another after its holder's front-end was out"].append(text)
        else:
            verdict.notable[
                "given to another though its holder's front-end was well, perhaps without the cluster"
            ].append(text)


def _overlapping(job: Job) -> Iterator[tuple[Delivery, Delivery]]:
    """Find pairs of deliveries of which the second came while the first one's time had not ended."""
    for first, second in pairwise(sorted(job.deliveries, key=lambda delivery: delivery.read)):
        if first.left and first.left <= second.read:
            continue
        if max(first.sent, first.touched) + first.ttr <= second.read:
            continue
        yield first, second
