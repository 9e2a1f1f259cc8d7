"""The client over sockets: with any server, and with servers that go away or fall silent."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
from either import EITHER, running

from beanspiked.client import blocking, errors, requests
from beanspiked.client.address import Address
from beanspiked.client.conn import Conn
from beanspiked.client.requests import Job
from beanspiked.protocol.lines import MAX_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    from beanspiked.client.requests import Request

pytestmark = pytest.mark.filterwarnings("error")


class FromAsyncio:
    """The asyncio connection with the methods of the blocking one."""

    def __init__(self, address: Address, seconds: float = 30) -> None:
        self.runner = asyncio.Runner()
        try:
            self.conn = self.runner.run(Conn.connect(address, answer_seconds=seconds))
        except errors.ClientError:
            self.runner.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.conn.close()
        self.runner.run(asyncio.sleep(0))
        self.runner.close()

    def ask(self, request: Request[Any]) -> Any:
        return self.runner.run(self.conn.ask(request))

    def ask_all(self, wanted: Sequence[Request[Any]]) -> Any:
        return self.runner.run(self.conn.ask_all(wanted))


def from_blocking(address: Address, seconds: float = 30) -> blocking.Conn:
    return blocking.Conn.connect(address, answer_seconds=seconds)


@pytest.fixture(params=[from_blocking, FromAsyncio], ids=["blocking", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module", params=EITHER)
def address(request: pytest.FixtureRequest) -> Iterator[Address]:
    with running(request.param) as server:
        yield Address.parse(server.address)


def test_a_job_goes_through_all_its_states(connect: Any, address: Address) -> None:
    with connect(address) as conn:
        assert conn.ask(requests.use("life")) == "life"
        assert conn.ask(requests.watch("life")) == 2
        assert conn.ask(requests.ignore("default")) == 1
        assert conn.ask(requests.list_tubes_watched()) == ["life"]
        job_id = conn.ask(requests.put(b"a\r\n\0b", delay=100, ttr=9))
        job = Job(job_id, b"a\r\n\0b")
        assert conn.ask(requests.peek_delayed()) == job
        assert conn.ask(requests.kick(5)) == 1
        assert conn.ask(requests.peek_ready()) == job
        assert conn.ask(requests.reserve_with_timeout(0)) == job
        conn.ask(requests.touch(job_id))
        conn.ask(requests.bury(job_id, priority=3))
        assert conn.ask(requests.peek_buried()) == job
        conn.ask(requests.kick_job(job_id))
        assert conn.ask(requests.reserve_job(job_id)) == job
        conn.ask(requests.release(job_id, priority=7))
        told = conn.ask(requests.stats_job(job_id))
        assert (told["id"], told["tube"], told["state"], told["pri"], told["ttr"]) == (job_id, "life", "ready", 7, 9)
        conn.ask(requests.pause_tube("life", 5))
        tube = conn.ask(requests.stats_tube("life"))
        assert (tube["name"], tube["current-jobs-ready"], tube["pause"]) == ("life", 1, 5)
        conn.ask(requests.pause_tube("life", 0))
        assert conn.ask(requests.reserve()) == job
        assert conn.ask(requests.delete(job_id))
        assert not conn.ask(requests.delete(job_id))
        assert conn.ask(requests.stats())["current-jobs-reserved"] == 0
        assert "life" in conn.ask(requests.list_tubes())
        assert conn.ask(requests.list_tube_used()) == "life"
        with pytest.raises(errors.JobLost):
            conn.ask(requests.touch(job_id))
        with pytest.raises(errors.NotIgnored):
            conn.ask(requests.ignore("life"))
        assert conn.ask(requests.quit_()) is None


def test_many_requests_are_sent_at_once_and_answered_in_order(connect: Any, address: Address) -> None:
    # More than sockets hold, both ways: whoever only sent would wait for ever.
    bodies = [b"%06d" % number + b"x" * 50000 for number in range(200)]
    with connect(address) as conn:
        conn.ask(requests.use("many"))
        ids = conn.ask_all([requests.put(body) for body in bodies])
        looked = conn.ask_all([requests.peek(job_id) for job_id in ids])
        assert [job.body for job in looked] == bodies
        assert conn.ask_all([requests.delete(job_id) for job_id in ids]) == [True] * len(ids)


def test_a_server_that_waits_for_its_replies_to_be_read_is_not_waited_for(connect: Any, address: Address) -> None:
    body = b"x" * 60000
    with connect(address, 5) as conn:
        conn.ask(requests.use("both-ways"))
        first = conn.ask(requests.put(body))
        put_and_peek = [requests.put(body), requests.peek(first)] * 200
        outcomes = conn.ask_all(put_and_peek)
        assert outcomes[1::2] == [Job(first, body)] * 200
        assert conn.ask_all([requests.delete(job_id) for job_id in [first, *outcomes[::2]]]) == [True] * 201


def test_a_refusal_among_many_takes_its_place(connect: Any, address: Address) -> None:
    with connect(address) as conn:
        conn.ask(requests.use("refused"))
        first, second, third = conn.ask_all([requests.put(b"a"), requests.put(b"x" * 70000), requests.put(b"b")])
        assert isinstance(second, errors.JobTooBig)
        assert conn.ask_all([requests.delete(first), requests.delete(third)]) == [True, True]


@pytest.mark.parametrize("kind", EITHER)
def test_unix_sockets_do_as_well(connect: Any, kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("s") / "s"
    with running(kind, path=path) as server, connect(Address.parse(server.address)) as conn:
        assert conn.ask(requests.list_tubes()) == ["default"]


def test_where_nobody_listens_is_said(connect: Any, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for text in (f"127.0.0.1:{port}", f"unix:{tmp_path}/none", "no.such.host.invalid:1", "a..b:1", f"{'a' * 64}:1"):
        with pytest.raises(errors.ServerGone, match="cannot connect to"):
            connect(Address.parse(text))


@contextlib.contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[Address]:
    """A server for one connection, which is closed after the answer."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                answer(connection)
                if answer is silent:
                    ended.wait(30)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Address(host="127.0.0.1", port=listener.getsockname()[1])
        finally:
            ended.set()
            thread.join(30)


def silent(connection: socket.socket) -> None:
    pass


def hang_up(connection: socket.socket) -> None:
    connection.sendall(b"RESERVED 1 100\r\nabc")


def talk_http(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (silent, errors.ServerGone, "no answer for"),
        (hang_up, errors.ServerGone, "closed the connection"),
        (talk_http, errors.BrokenReply, "HTTP/1.1 400"),
    ],
)
def test_a_server_that_fails_ends_the_connection(
    connect: Any, answer: Callable[[socket.socket], None], error: type[Exception], said: str
) -> None:
    with answering(answer) as address, connect(address, 0.05) as conn:
        with pytest.raises(error, match=said):
            conn.ask(requests.reserve_with_timeout(0))
        with pytest.raises(errors.ClientError):
            conn.ask(requests.stats())


def test_a_reply_that_cannot_be_read_ends_the_connection(connect: Any) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(b"OK 4\r\nnope\r\n")
        if connection.recv(65536):
            connection.sendall(b"USING default\r\n")

    with answering(answer) as address, connect(address) as conn:
        with pytest.raises(errors.BrokenReply):
            conn.ask(requests.stats())
        with pytest.raises(errors.ClientError):
            conn.ask(requests.list_tube_used())


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


def test_a_reserve_may_wait_as_long_as_the_protocol_allows(connect: Any, address: Address) -> None:
    with connect(address) as conn, from_blocking(address) as other:
        other.ask(requests.use("years"))
        conn.ask(requests.watch("years"))
        later = threading.Timer(0.1, lambda: other.ask(requests.put(b"at last")))
        later.start()
        try:
            job = conn.ask(requests.reserve_with_timeout(MAX_TIMEOUT))
        finally:
            later.join()
        assert job.body == b"at last"
        assert conn.ask(requests.delete(job.id))


def test_a_reserve_that_is_given_up_leaves_no_job_behind(address: Address) -> None:
    async def give_up() -> None:
        async with await Conn.connect(address) as waiting, await Conn.connect(address) as other:
            await waiting.ask(requests.watch("given-up"))
            reserving = asyncio.create_task(waiting.ask(requests.reserve()))
            await asyncio.sleep(0)
            reserving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reserving
            with pytest.raises(errors.ServerGone, match="is closed"):
                await waiting.ask(requests.stats())
            # Its connection is gone before the job comes.
            while True:
                told = await other.ask(requests.stats_tube("given-up"))
                if told is None:
                    break
            await other.ask(requests.use("given-up"))
            job_id = await other.ask(requests.put(b""))
            found = await other.ask(requests.stats_job(job_id))
            assert found is not None
            assert found["state"] == "ready"
            await other.ask(requests.delete(job_id))

    run(give_up())


def test_a_request_that_is_given_up_leaves_the_others_their_replies(address: Address) -> None:
    async def give_up() -> None:
        async with await Conn.connect(address) as conn:
            asking = [asyncio.create_task(conn.ask(requests.use(name))) for name in ("first", "second")]
            await asyncio.sleep(0)
            asking[0].cancel()
            assert await asking[1] == "second"
            assert await conn.ask(requests.list_tube_used()) == "second"

    run(give_up())


def test_requests_of_many_tasks_share_a_connection(address: Address) -> None:
    async def share() -> None:
        async with await Conn.connect(address) as conn:
            names = [f"tube-{number}" for number in range(50)]
            assert await asyncio.gather(*(conn.ask(requests.use(name)) for name in names)) == names

    run(share())
