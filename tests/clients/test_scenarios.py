"""What users do with a queue, through eight client libraries: each scenario is written once and run with each."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from drivers import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from drivers import Queue

    Connect = Callable[[], Queue]

pytestmark = pytest.mark.real

# What a library has no word for, or cannot say correctly to any server.
LACKS: dict[str, set[str]] = {
    "greenstalk": {"put_all"},
    "aiostalk": {"put_all", "reserve_job", "kick_job"},  # forgets to await its kick_job
    "beanstalkc3": {"put_all", "reserve_job", "not_ignored"},  # takes NOT_IGNORED for success
    "pystalk": {"put_all", "reserve_job", "not_ignored", "touch", "peek", "using", "watching"},
    "npm-fivebeans": {"reserve_job"},
    "npm-beanstalkd": {"reserve_job", "kick", "large"},  # loses its place when a reply comes in two segments
    "npm-node-beanstalk": set(),
    "npm-jackd": {"put_all", "pause", "binary"},  # sends pause-tube without a line end; makes JSON of a buffer
}

EVERY_BYTE = bytes(range(256))
MAX_JOB_SIZE = 65535


def with_every_client(*needed: str) -> pytest.MarkDecorator:
    """Run the scenario with each library that has words for what it does."""
    return pytest.mark.parametrize("client", [name for name, lacking in LACKS.items() if not lacking & set(needed)])


@pytest.fixture
def tube() -> str:
    return f"scenario-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def producer(connect: Connect, tube: str) -> Queue:
    queue = connect()
    queue.use(tube)
    return queue


@pytest.fixture
def worker(connect: Connect, tube: str) -> Queue:
    queue = connect()
    queue.watch_only(tube)
    return queue


@pytest.fixture
def refusal() -> Callable[..., str]:
    """The reply with which the server refuses a call."""

    def of(call: Callable[..., Any], *arguments: Any) -> str:
        with pytest.raises(Refused) as caught:
            call(*arguments)
        status: str = caught.value.status
        return status

    return of


@with_every_client()
def test_a_job_goes_from_producer_to_worker_and_is_gone_when_deleted(
    producer: Queue, worker: Queue, tube: str, refusal: Callable[..., str]
) -> None:
    id_ = producer.put(b"hello")
    assert producer.stats_job(id_)["state"] == "ready"
    assert worker.reserve() == (id_, b"hello")
    assert worker.stats_job(id_)["state"] == "reserved"
    assert refusal(producer.delete, id_) == "NOT_FOUND"
    worker.delete(id_)
    assert refusal(worker.reserve) == "TIMED_OUT"
    assert refusal(worker.stats_job, id_) == "NOT_FOUND"
    assert refusal(worker.delete, id_) == "NOT_FOUND"
    assert worker.stats_tube(tube)["cmd-delete"] == 1


@with_every_client()
def test_the_smallest_priority_comes_first_and_equals_in_the_order_they_were_put(
    producer: Queue, worker: Queue
) -> None:
    for priority, body in [(30, b"c"), (10, b"a1"), (4294967295, b"d"), (10, b"a2"), (20, b"b"), (0, b"first")]:
        producer.put(body, pri=priority)
    assert [worker.reserve()[1] for _ in range(6)] == [b"first", b"a1", b"a2", b"b", b"c", b"d"]


@pytest.mark.slow
@with_every_client()
def test_a_delayed_job_is_ready_after_its_delay_and_an_empty_tube_makes_a_worker_wait_as_long_as_it_said(
    connect: Connect, producer: Queue, worker: Queue, tube: str, refusal: Callable[..., str]
) -> None:
    idle = connect()
    idle.watch_only(f"{tube}-empty")
    id_ = producer.put(b"later", delay=1)
    assert producer.stats_job(id_)["state"] == "delayed"
    assert producer.peek_delayed() == (id_, b"later")
    assert refusal(worker.reserve) == "TIMED_OUT"
    began = time.monotonic()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(refusal, idle.reserve, 1)
        assert worker.reserve(5) == (id_, b"later")
        assert 0.5 < time.monotonic() - began < 3
        assert waiting.result() == "TIMED_OUT"
        assert 0.9 < time.monotonic() - began < 3


@with_every_client()
def test_a_waiting_worker_gets_a_job_as_soon_as_it_is_put(producer: Queue, worker: Queue, tube: str) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(worker.reserve, 10)
        give_up_at = time.monotonic() + 5
        while producer.stats_tube(tube)["current-waiting"] != 1:
            assert time.monotonic() < give_up_at
        began = time.monotonic()
        id_ = producer.put(b"now")
        assert waiting.result() == (id_, b"now")
        assert time.monotonic() - began < 1


@with_every_client()
def test_a_released_job_comes_back_with_its_new_priority_and_delay(producer: Queue, worker: Queue) -> None:
    first = producer.put(b"first", pri=1)
    second = producer.put(b"second", pri=2)
    assert worker.reserve() == (first, b"first")
    worker.release(first, pri=3)
    assert worker.reserve() == (second, b"second")
    worker.release(second, pri=1, delay=60)
    assert worker.reserve() == (first, b"first")
    stats = producer.stats_job(second)
    assert (stats["state"], stats["pri"], stats["delay"], stats["releases"]) == ("delayed", 1, 60, 1)


@with_every_client("kick")
def test_buried_jobs_stay_until_kicked(producer: Queue, worker: Queue, tube: str, refusal: Callable[..., str]) -> None:
    ids = [producer.put(str(number).encode()) for number in range(3)]
    for id_ in ids:
        assert worker.reserve()[0] == id_
        worker.bury(id_, pri=7)
    assert refusal(worker.reserve) == "TIMED_OUT"
    assert producer.peek_buried() == (ids[0], b"0")
    assert producer.stats_tube(tube)["current-jobs-buried"] == 3
    assert producer.kick(2) == 2
    assert [worker.reserve()[0] for _ in range(2)] == ids[:2]
    assert producer.kick(10) == 1
    stats = producer.stats_job(ids[2])
    assert (stats["state"], stats["pri"], stats["buries"], stats["kicks"]) == ("ready", 7, 1, 1)


@with_every_client("kick_job")
def test_a_buried_or_delayed_job_can_be_kicked_by_its_id(
    producer: Queue, worker: Queue, refusal: Callable[..., str]
) -> None:
    buried = producer.put(b"buried")
    worker.reserve()
    worker.bury(buried)
    delayed = producer.put(b"delayed", delay=60)
    producer.kick_job(delayed)
    assert worker.reserve() == (delayed, b"delayed")
    producer.kick_job(buried)
    assert worker.reserve() == (buried, b"buried")
    assert refusal(producer.kick_job, buried) == "NOT_FOUND"


@pytest.mark.slow
@with_every_client("touch")
def test_touching_a_job_gives_its_worker_the_whole_time_again(
    producer: Queue, worker: Queue, refusal: Callable[..., str]
) -> None:
    id_ = producer.put(b"slow", ttr=3)
    worker.reserve()
    time.sleep(1.1)
    assert worker.stats_job(id_)["time-left"] <= 1
    worker.touch(id_)
    assert worker.stats_job(id_)["time-left"] >= 2
    assert refusal(producer.touch, id_) == "NOT_FOUND"
    worker.delete(id_)


@pytest.mark.slow
@with_every_client()
def test_a_worker_that_takes_too_long_is_warned_and_then_loses_the_job(
    connect: Connect, producer: Queue, worker: Queue, tube: str, refusal: Callable[..., str]
) -> None:
    other = connect()
    other.watch_only(tube)
    id_ = producer.put(b"slow", ttr=1)
    assert worker.reserve() == (id_, b"slow")
    assert refusal(worker.reserve, 5) == "DEADLINE_SOON"
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(other.reserve, 5)
        while not waiting.done():  # beanstalkd 1.12 may forget the deadline of a worker that says nothing
            assert worker.stats_job(id_)["reserves"] in {1, 2}
            time.sleep(0.05)
        assert waiting.result() == (id_, b"slow")
    assert refusal(worker.delete, id_) == "NOT_FOUND"
    assert other.stats_job(id_)["timeouts"] == 1
    other.delete(id_)


@with_every_client()
def test_a_closed_connection_gives_its_jobs_back(connect: Connect, producer: Queue, worker: Queue, tube: str) -> None:
    lost = connect()
    lost.watch_only(tube)
    id_ = producer.put(b"again")
    assert lost.reserve() == (id_, b"again")
    lost.close()
    assert worker.reserve(5) == (id_, b"again")
    assert worker.stats_job(id_)["reserves"] == 2


@with_every_client("reserve_job")
def test_a_job_can_be_reserved_by_its_id_in_any_order(
    producer: Queue, worker: Queue, refusal: Callable[..., str]
) -> None:
    first, second = producer.put(b"first"), producer.put(b"second", delay=60)
    assert worker.reserve_job(second) == (second, b"second")
    assert worker.reserve_job(first) == (first, b"first")
    assert refusal(producer.reserve_job, first) == "NOT_FOUND"


@with_every_client("peek")
def test_peeking_shows_jobs_and_changes_nothing(producer: Queue, worker: Queue, refusal: Callable[..., str]) -> None:
    assert refusal(producer.peek_ready) == "NOT_FOUND"
    assert refusal(producer.peek_delayed) == "NOT_FOUND"
    assert refusal(producer.peek_buried) == "NOT_FOUND"
    later, urgent = producer.put(b"later", pri=9), producer.put(b"urgent", pri=1)
    assert producer.peek_ready() == (urgent, b"urgent")
    assert worker.peek(later) == (later, b"later")
    assert worker.reserve() == (urgent, b"urgent")
    assert producer.peek(urgent) == (urgent, b"urgent")
    worker.delete(urgent)
    assert refusal(producer.peek, urgent) == "NOT_FOUND"


@pytest.mark.slow
@with_every_client("pause")
def test_a_paused_tube_keeps_its_jobs_until_the_pause_is_over(
    producer: Queue, worker: Queue, tube: str, refusal: Callable[..., str]
) -> None:
    id_ = producer.put(b"held")
    producer.pause(tube, 60)
    stats = producer.stats_tube(tube)
    assert (stats["pause"], stats["cmd-pause-tube"]) == (60, 1)
    assert 58 <= stats["pause-time-left"] <= 60
    assert refusal(worker.reserve) == "TIMED_OUT"
    producer.pause(tube, 1)
    began = time.monotonic()
    assert worker.reserve(5) == (id_, b"held")
    assert 0.5 < time.monotonic() - began < 3
    worker.release(id_)
    producer.pause(tube, 60)
    producer.pause(tube, 0)
    assert worker.reserve() == (id_, b"held")
    assert refusal(producer.pause, f"{tube}-unknown", 1) == "NOT_FOUND"


@with_every_client("using", "watching", "not_ignored")
def test_tubes_are_used_and_watched_and_the_last_one_cannot_be_ignored(
    connect: Connect, tube: str, refusal: Callable[..., str]
) -> None:
    queue = connect()
    assert (queue.using(), queue.watching()) == ("default", ["default"])
    queue.use(tube)
    assert queue.using() == tube
    assert queue.watch(tube) == 2
    assert queue.watch(tube) == 2
    assert queue.watching() == ["default", tube]
    assert tube in queue.tubes()
    queue.ignore("default")
    assert queue.watching() == [tube]
    assert refusal(queue.ignore, tube) == "NOT_IGNORED"
    assert queue.watching() == [tube]


@with_every_client()
def test_statistics_count_what_was_done(producer: Queue, worker: Queue, tube: str) -> None:
    before = producer.stats()
    id_ = producer.put(b"urgent", pri=5, ttr=90)
    producer.put(b"ready", pri=5000)
    producer.put(b"delayed", delay=60)
    worker.reserve()
    after = producer.stats()
    assert after["cmd-put"] - before["cmd-put"] == 3
    assert after["total-jobs"] - before["total-jobs"] == 3
    assert after["cmd-reserve-with-timeout"] - before["cmd-reserve-with-timeout"] == 1
    assert after["cmd-stats"] - before["cmd-stats"] == 1
    assert after["max-job-size"] == MAX_JOB_SIZE
    assert {"pid", "version", "uptime", "hostname", "draining", "binlog-max-size", "os", "platform"} <= set(after)

    of_tube = producer.stats_tube(tube)
    names = ["urgent", "ready", "reserved", "delayed", "buried"]
    assert [of_tube[f"current-jobs-{name}"] for name in names] == [0, 1, 1, 1, 0]
    names = ["current-using", "current-watching", "current-waiting", "total-jobs"]
    assert [of_tube[name] for name in names] == [1, 1, 0, 3]
    assert of_tube["name"] == tube

    of_job = producer.stats_job(id_)
    assert (of_job["id"], of_job["tube"], of_job["state"]) == (id_, tube, "reserved")
    assert (of_job["pri"], of_job["ttr"], of_job["delay"], of_job["reserves"]) == (5, 90, 0, 1)
    assert 88 <= of_job["time-left"] <= 90


@with_every_client("large")
def test_the_largest_body_arrives_whole_and_a_larger_one_is_refused(
    producer: Queue, worker: Queue, refusal: Callable[..., str]
) -> None:
    body = (b"0123456789abcdef" * 4096)[:MAX_JOB_SIZE]
    id_ = producer.put(body)
    assert worker.reserve() == (id_, body)
    worker.delete(id_)
    assert refusal(producer.put, body + b"x") == "JOB_TOO_BIG"
    small = producer.put(b"still here")
    assert worker.reserve() == (small, b"still here")


@with_every_client("binary")
@pytest.mark.parametrize(
    "body",
    [b"", b"\r\n", EVERY_BYTE * 8, b"a\r\nRESERVED 1 1\r\nb", b"\x00"],
    ids=["empty", "crlf", "all", "reply", "0"],
)
def test_a_body_may_hold_any_bytes(producer: Queue, worker: Queue, body: bytes) -> None:
    id_ = producer.put(body)
    assert producer.peek_ready() == (id_, body)
    assert worker.reserve() == (id_, body)


@pytest.mark.slow
@with_every_client()
def test_hundreds_of_jobs_arrive_once_each_and_in_order(producer: Queue, worker: Queue, tube: str) -> None:
    ids = [producer.put(f"job {number}".encode()) for number in range(300)]
    assert ids == sorted(set(ids))
    arrived = []
    for _ in ids:
        id_, body = worker.reserve()
        worker.delete(id_)
        arrived.append((id_, body))
    assert arrived == [(id_, f"job {number}".encode()) for number, id_ in enumerate(ids)]
    assert producer.stats_tube(tube)["current-jobs-ready"] == 0


@pytest.mark.slow
@with_every_client("put_all")
def test_commands_sent_together_are_answered_in_order(producer: Queue, worker: Queue) -> None:
    bodies = [f"job {number}".encode() for number in range(500)]
    ids = producer.put_all(bodies)
    assert ids == sorted(set(ids))
    assert [worker.reserve() for _ in ids] == list(zip(ids, bodies, strict=True))


@with_every_client()
def test_workers_share_the_jobs_and_none_is_given_out_twice(connect: Connect, producer: Queue, tube: str) -> None:
    workers = [connect() for _ in range(3)]
    for worker in workers:
        worker.watch_only(tube)

    def work(worker: Queue) -> list[int]:
        done = []
        while (job := worker.reserve(5))[1] != b"stop":
            worker.delete(job[0])
            done.append(job[0])
        worker.delete(job[0])
        return done

    with ThreadPoolExecutor() as pool:
        results = [pool.submit(work, worker) for worker in workers]
        ids = [producer.put(b"work", pri=1) for _ in range(150)]
        for _ in workers:
            producer.put(b"stop", pri=2)
        done = [id_ for result in results for id_ in result.result(20)]
    assert sorted(done) == ids
