"""The records of the log: each change as bytes, and what many changes come to.

Numbers are little-endian. A record begins with its kind (one byte) and its size (four bytes, all of it). Times are seconds since the
epoch by the wall clock. Every value is absolute, so a record that is applied twice does no harm.
"""

from struct import Struct, pack, unpack_from
from typing import Final

from beanspiked.engine.contract import BURIED, DELAYED, PLAIN, READY, Job
from beanspiked.engine.embedded.write import (
    BURY,
    COLUMNS,
    DELETE,
    DROP,
    KICK,
    MOVE,
    PAUSE,
    PUT,
    RELEASE,
    UPDATE,
    Row,
    Write,
)

__all__ = ["LARGE_BODY", "Net", "encode"]

# Bodies of at least this many bytes are not copied into the other records.
LARGE_BODY: Final = 1 << 16

# Kind and size.
HEAD: Final = Struct("<BI")
HEAD_SIZE: Final = 5
# What a change of a row counts when it is estimated how much has to be written.
CHANGE_BYTES: Final = 64
# Kind, size and id: how a put begins.
PUT_START: Final = Struct("<BIQ")
# ..., id, pri, delay, ttr, born, place, retries, raw_size, failed, length of the tube's name, length of the metadata.
PUT_HEAD: Final = Struct("<BIQIddddqqBBI")
PUT_SIZE: Final = 71
# ..., id, state, pri, delay, place, reserves, timeouts, releases, buries, kicks, retries, failed, whether a reason follows.
STATE_HEAD: Final = Struct("<BIQBIddQQQQQqBB")
STATE_SIZE: Final = 84
# ..., id, raw_size.
UPDATE_HEAD: Final = Struct("<BIQq")
UPDATE_SIZE: Final = 21
# ..., seconds, until.
PAUSE_HEAD: Final = Struct("<BIdd")
PAUSE_SIZE: Final = 21
# ..., length of the tube's name.
MOVE_HEAD: Final = Struct("<BIB")
MOVE_SIZE: Final = 6
ID: Final = Struct("<Q")
# An id, and how often the job was kicked.
KICKED: Final = Struct("<QQ")

PLACES: Final[dict[str, int]] = {name.strip(): place for place, name in enumerate(COLUMNS.split(","))}


def encode(batch: list[Write], ahead: float) -> list[bytes]:
    """Return the records of a batch, in pieces: a large body is a piece of its own.

    Args:
        batch: Its changes; each job is in one of them at most.
        ahead: How many seconds the wall clock is ahead of the changes' clock.
    """
    pieces: list[bytes] = []
    records: list[bytes] = []
    gone: list[int] = []
    for write in batch:
        op = write.op
        body = b""
        if op == PUT:
            job = write.jobs[0]
            body = job.body
            _put(records, job, write.due + ahead, ahead)
        elif op == DELETE:
            gone.append(write.jobs[0].id)
        elif op == DROP:
            gone += [job.id for job in write.jobs]
        elif op in (RELEASE, BURY):
            records.append(_state(write, ahead))
        elif op == KICK:
            kicked = b"".join([KICKED.pack(job.id, job.kicks + 1) for job in write.jobs])
            records.append(HEAD.pack(KICK, HEAD_SIZE + len(kicked)))
            records.append(kicked)
        elif op == MOVE:
            name = write.name.encode()
            ids = b"".join([ID.pack(job.id) for job in write.jobs])
            records.append(MOVE_HEAD.pack(MOVE, MOVE_SIZE + len(name) + len(ids), len(name)))
            records.append(name)
            records.append(ids)
        elif op == PAUSE:
            name = write.name.encode()
            records.append(PAUSE_HEAD.pack(PAUSE, PAUSE_SIZE + len(name), write.delay, write.until + ahead))
            records.append(name)
        else:
            assert op == UPDATE
            body = write.body
            records.append(UPDATE_HEAD.pack(UPDATE, UPDATE_SIZE + len(body), write.jobs[0].id, write.raw_size))
        if not body:
            continue
        if len(body) < LARGE_BODY:
            records.append(body)
        else:
            pieces.append(b"".join(records))
            pieces.append(body)
            records = []
    if gone:
        records.append(HEAD.pack(DELETE, HEAD_SIZE + 8 * len(gone)))
        records.append(pack(f"<{len(gone)}Q", *gone))
    pieces.append(b"".join(records))
    return pieces


def _put(records: list[bytes], job: Job, place: float, ahead: float) -> None:
    """Add the record of a put, without the body."""
    details = job.details
    tube = job.tube.name.encode()
    size = PUT_SIZE + len(tube) + len(job.body)
    if details is None:
        born = job.born + ahead
        records.append(
            PUT_HEAD.pack(PUT, size, job.id, job.pri, job.delay, job.ttr, born, place, 0, PLAIN, False, len(tube), 0)
        )
        records.append(tube)
        return
    metadata = details.metadata.encode()
    # The time that its producer gave is the wall clock's already.
    born = job.born + ahead if details.born == 0.0 else job.born
    head = PUT_HEAD.pack(
        PUT,
        size + len(metadata),
        job.id,
        job.pri,
        job.delay,
        job.ttr,
        born,
        place,
        details.retries,
        details.raw_size,
        details.failed,
        len(tube),
        len(metadata),
    )
    records += [head, tube, metadata]


def _state(write: Write, ahead: float) -> bytes:
    """Return the record of a release or a burial."""
    job = write.jobs[0]
    buried = write.op == BURY
    reason = write.reason.encode() if buried else b""
    state = BURIED if buried else DELAYED if write.delay else READY
    details = job.details
    head = STATE_HEAD.pack(
        write.op,
        STATE_SIZE + len(reason),
        job.id,
        state,
        write.pri,
        job.delay if buried else write.delay,
        float(write.burial) if buried else write.due + ahead,
        job.reserves,
        job.timeouts,
        job.releases + (0 if buried else 1),
        job.buries + (1 if buried else 0),
        job.kicks,
        0 if details is None else details.retries,
        False if details is None else details.failed,
        reason != b"",
    )
    return head + reason


class Net:
    """What many changes come to: nothing, for a job that was put and deleted.

    Attributes:
        changed: New values of jobs, by id and column.
        gone: Jobs that were deleted and had been put before.
        pauses: (seconds, until) of paused tubes; 0 seconds when the pause has ended.
        last_id: The highest id of a job that was put.
    """

    def __init__(self) -> None:
        self.changed: dict[int, dict[str, object]] = {}
        self.gone: set[int] = set()
        self.pauses: dict[str, tuple[float, float]] = {}
        self.last_id: int = 0
        # Where the records of the jobs are that were put and not deleted, and their sizes.
        self._puts: dict[int, tuple[bytes, int, int]] = {}
        # How much these and the new bodies of jobs are.
        self._bytes: int = 0

    def take(self, data: bytes) -> None:
        """Take the records of one batch; call this in the order of the batches.

        Raises:
            ValueError: There is a record of an unknown kind.
        """
        at = 0
        while at < len(data):
            kind = data[at]
            if kind == PUT:
                # Of nearly all jobs only this is needed: they are deleted before the log is folded.
                _, put_size, put_id = PUT_START.unpack_from(data, at)
                self._puts[put_id] = (data, at, put_size)
                self._bytes += put_size
                self.last_id = max(self.last_id, put_id)
                at += put_size
                continue
            size: int = HEAD.unpack_from(data, at)[1]
            end = at + size
            if kind == DELETE:
                self._delete(data, at + HEAD_SIZE, end)
            elif kind in (RELEASE, BURY):
                self._change_state(data, at, end)
            elif kind == KICK:
                for kicked in range(at + HEAD_SIZE, end, 16):
                    job_id, kicks = KICKED.unpack_from(data, kicked)
                    self._change(job_id).update({"state": READY, "place": 0.0, "kicks": kicks, "reason": ""})
            elif kind == MOVE:
                length: int = MOVE_HEAD.unpack_from(data, at)[2]
                start = at + MOVE_SIZE
                name = data[start : start + length].decode()
                for moved in range(start + length, end, 8):
                    moved_id: int = ID.unpack_from(data, moved)[0]
                    self._change(moved_id)["tube"] = name
            elif kind == PAUSE:
                _, _, seconds, until = PAUSE_HEAD.unpack_from(data, at)
                self.pauses[data[at + PAUSE_SIZE : end].decode()] = (seconds, until)
            elif kind == UPDATE:
                _, _, updated_id, raw_size = UPDATE_HEAD.unpack_from(data, at)
                change = self._change(updated_id)
                self._bytes += size - UPDATE_SIZE - _body_size(change)
                change.update({"body": data[at + UPDATE_SIZE : end], "raw_size": raw_size})
            else:
                raise ValueError(f"a record of the unknown kind {kind}")
            at = end

    def __contains__(self, job_id: int) -> bool:
        """Tell whether a job was put, and not deleted."""
        return job_id in self._puts

    def size(self) -> int:
        """Estimate how many bytes have to be written."""
        return self._bytes + CHANGE_BYTES * (len(self.changed) + len(self.gone))

    def keep(self, later: "Net") -> None:
        """Forget the jobs that were put and of which nothing is left in what more changes come to."""
        for job_id in list(self._puts):
            if job_id not in later:
                self._bytes -= self._puts.pop(job_id)[2]
                self._forget(job_id)

    def put_ids(self) -> list[int]:
        """Return the ids of the jobs that were put and not deleted, in order."""
        return sorted(self._puts)

    def row(self, job_id: int) -> Row:
        """Return a job that was put and not deleted."""
        data, at, size = self._puts[job_id]
        (
            _,
            _,
            _,
            pri,
            delay,
            ttr,
            born,
            place,
            retries,
            raw_size,
            failed,
            tube_length,
            metadata_length,
        ) = PUT_HEAD.unpack_from(data, at)
        start = at + PUT_SIZE
        name_end = start + tube_length
        body_at = name_end + metadata_length
        tube = data[start:name_end].decode()
        metadata = data[name_end:body_at].decode()
        body = data[body_at : at + size]
        state = DELAYED if delay else READY
        row: Row = (
            job_id, tube, state, pri, delay, ttr, born, place, body, 0, 0, 0, 0, 0, metadata, "", retries, failed, raw_size,
        )  # fmt: skip
        return self.over(row)

    def over(self, row: Row) -> Row:
        """Return a job's row with what has changed."""
        job_id = row[0]
        change = self.changed.get(job_id) if isinstance(job_id, int) else None
        if change is None:
            return row
        values = list(row)
        for name, value in change.items():
            values[PLACES[name]] = value
        return tuple(values)

    def _change(self, job_id: int) -> dict[str, object]:
        change = self.changed.get(job_id)
        if change is None:
            change = {}
            self.changed[job_id] = change
        return change

    def _delete(self, data: bytes, start: int, end: int) -> None:
        ids: tuple[int, ...] = unpack_from(f"<{(end - start) // 8}Q", data, start)
        for job_id in ids:
            place = self._puts.pop(job_id, None)
            if place is None:
                self.gone.add(job_id)
            else:
                self._bytes -= place[2]
            if self.changed:
                self._forget(job_id)

    def _forget(self, job_id: int) -> None:
        """Forget what has changed of a job."""
        change = self.changed.pop(job_id, None)
        if change is not None:
            self._bytes -= _body_size(change)

    def _change_state(self, data: bytes, at: int, end: int) -> None:
        (
            _,
            _,
            job_id,
            state,
            pri,
            delay,
            place,
            reserves,
            timeouts,
            releases,
            buries,
            kicks,
            retries,
            failed,
            has_reason,
        ) = STATE_HEAD.unpack_from(data, at)
        change = self._change(job_id)
        change.update(
            {
                "state": state,
                "pri": pri,
                "delay": delay,
                "place": place,
                "reserves": reserves,
                "timeouts": timeouts,
                "releases": releases,
                "buries": buries,
                "kicks": kicks,
                "retries": retries,
                "failed": failed,
            }
        )
        if has_reason:
            change["reason"] = data[at + STATE_SIZE : end].decode()


def _body_size(change: dict[str, object]) -> int:
    """Return the size of a new body, 0 without one."""
    body = change.get("body")
    return len(body) if isinstance(body, bytes) else 0
