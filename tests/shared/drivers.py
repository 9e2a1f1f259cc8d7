"""One interface to eight client libraries, so that each scenario is written once.

A driver has `do(operation, *arguments)`, which performs one operation with its library and returns plain values: ids as
int, jobs as (id, body), statistics as dicts. A refusal by the server becomes `Refused`, whatever the library raises.
"""

from __future__ import annotations

import asyncio
import re
import threading
from typing import TYPE_CHECKING, Any, Protocol

import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable


HOST = "127.0.0.1"

REPLY_SECONDS = 20

STATUS = re.compile(r"\b(?:[A-Z]+_[A-Z_]+|DRAINING|BURIED)\b")

Job = tuple[int, bytes]


class Refused(Exception):  # noqa: N818 - it is a reply, not a fault
    """The server answered with something other than success."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


class Driver(Protocol):
    """The wrapper of a client library."""

    def do(self, operation: str, *arguments: Any) -> Any: ...

    def close(self) -> None: ...


class Queue:
    """A connection as the scenarios see it."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._closed = False

    def put(self, body: bytes, pri: int = 100, delay: int = 0, ttr: int = 60) -> int:
        return int(self._driver.do("put", body, pri, delay, ttr))

    def put_all(self, bodies: Iterable[bytes]) -> list[int]:
        """Put without waiting for one reply before the next command."""
        return [int(id_) for id_ in self._driver.do("put_all", list(bodies))]

    def reserve(self, timeout: int = 0) -> Job:
        return self._job("reserve", timeout)

    def reserve_job(self, id_: int) -> Job:
        return self._job("reserve_job", id_)

    def peek(self, id_: int) -> Job:
        return self._job("peek", id_)

    def peek_ready(self) -> Job:
        return self._job("peek_ready")

    def peek_delayed(self) -> Job:
        return self._job("peek_delayed")

    def peek_buried(self) -> Job:
        return self._job("peek_buried")

    def delete(self, id_: int) -> None:
        self._driver.do("delete", id_)

    def release(self, id_: int, pri: int = 100, delay: int = 0) -> None:
        self._driver.do("release", id_, pri, delay)

    def bury(self, id_: int, pri: int = 100) -> None:
        self._driver.do("bury", id_, pri)

    def touch(self, id_: int) -> None:
        self._driver.do("touch", id_)

    def kick(self, bound: int) -> int:
        return int(self._driver.do("kick", bound))

    def kick_job(self, id_: int) -> None:
        self._driver.do("kick_job", id_)

    def use(self, tube: str) -> None:
        self._driver.do("use", tube)

    def watch(self, tube: str) -> int | None:
        """Watch a tube; return the number of watched tubes, if the library tells it."""
        count = self._driver.do("watch", tube)
        return None if count is None else int(count)

    def watch_only(self, tube: str) -> None:
        self.watch(tube)
        self.ignore("default")

    def ignore(self, tube: str) -> None:
        self._driver.do("ignore", tube)

    def pause(self, tube: str, seconds: int) -> None:
        self._driver.do("pause", tube, seconds)

    def stats(self) -> dict[str, Any]:
        return self._mapping("stats")

    def stats_tube(self, tube: str) -> dict[str, Any]:
        return self._mapping("stats_tube", tube)

    def stats_job(self, id_: int) -> dict[str, Any]:
        return self._mapping("stats_job", id_)

    def tubes(self) -> list[str]:
        return list(self._parsed("tubes"))

    def watching(self) -> list[str]:
        return list(self._parsed("watching"))

    def using(self) -> str:
        return str(self._driver.do("using"))

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._driver.close()

    def _job(self, operation: str, *arguments: int) -> Job:
        id_, body = self._driver.do(operation, *arguments)
        return int(id_), bytes(body)

    def _parsed(self, operation: str, *arguments: str | int) -> Any:
        answer = self._driver.do(operation, *arguments)
        return yaml.safe_load(answer) if isinstance(answer, str | bytes) else answer

    def _mapping(self, operation: str, *arguments: str | int) -> dict[str, Any]:
        answer = self._parsed(operation, *arguments)
        assert isinstance(answer, dict)
        return answer


def status_in(error: BaseException) -> str | None:
    found = STATUS.search(str(error))
    return found[0] if found else None


def named_alike(client: Any) -> dict[str, Callable[..., Any]]:
    """Return the operations that a library has under the same names."""
    names = ("use", "watch", "ignore", "stats", "stats_tube", "stats_job", "tubes", "watching", "using")
    return {name: getattr(client, name) for name in names}


class TableDriver:
    """A driver made of a table of callables."""

    def __init__(
        self,
        operations: dict[str, Callable[..., Any]],
        close: Callable[[], None],
        errors: type[Exception],
        status_of: Callable[[Any], str | None] = status_in,
    ) -> None:
        self._operations = operations
        self._errors = errors
        self._status_of = status_of
        self.close = close

    def do(self, operation: str, *arguments: Any) -> Any:
        try:
            return self._operations[operation](*arguments)
        except self._errors as error:
            status = self._status_of(error)
            if status is None:
                raise
            raise Refused(status) from error


def greenstalk_status(error: Exception) -> str | None:
    """Wrap greenstalk, which has one exception class per reply and no text in it."""
    import greenstalk

    for status, kind in greenstalk.ERROR_RESPONSES.items():
        if type(error) is kind:
            return status.decode()
    return None


def greenstalk_client(port: int) -> Driver:
    import greenstalk

    client = greenstalk.Client((HOST, port), encoding=None)

    def job(id_: int) -> greenstalk.Job[bytes]:
        return greenstalk.Job(id_, b"")

    def plain(job: greenstalk.Job[bytes]) -> Job:
        return job.id, job.body

    operations: dict[str, Callable[..., Any]] = {
        "put": client.put,
        "reserve": lambda timeout: plain(client.reserve(timeout)),
        "reserve_job": lambda id_: plain(client.reserve_job(id_)),
        "peek": lambda id_: plain(client.peek(id_)),
        "peek_ready": lambda: plain(client.peek_ready()),
        "peek_delayed": lambda: plain(client.peek_delayed()),
        "peek_buried": lambda: plain(client.peek_buried()),
        "delete": client.delete,
        "release": lambda id_, pri, delay: client.release(job(id_), pri, delay),
        "bury": lambda id_, pri: client.bury(job(id_), pri),
        "touch": lambda id_: client.touch(job(id_)),
        "kick": client.kick,
        "kick_job": client.kick_job,
        **named_alike(client),
        "pause": client.pause_tube,
    }
    return TableDriver(operations, client.close, greenstalk.Error, greenstalk_status)


def aiostalk_client(port: int) -> Driver:
    import aiostalk

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(REPLY_SECONDS)

    def close() -> None:
        run(client.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def plain(coroutine: Coroutine[Any, Any, Any]) -> Job:
        job = run(coroutine)
        return job.id, job.body

    client = aiostalk.Client((HOST, port), encoding=None)
    run(client.connect())
    operations: dict[str, Callable[..., Any]] = {
        "put": lambda *arguments: run(client.put(*arguments)),
        "reserve": lambda timeout: plain(client.reserve(timeout)),
        "peek": lambda id_: plain(client.peek(id_)),
        "peek_ready": lambda: plain(client.peek_ready()),
        "peek_delayed": lambda: plain(client.peek_delayed()),
        "peek_buried": lambda: plain(client.peek_buried()),
        "delete": lambda id_: run(client.delete(id_)),
        "release": lambda id_, pri, delay: run(client.release(id_, pri, delay)),
        "bury": lambda id_, pri: run(client.bury(id_, pri)),
        "touch": lambda id_: run(client.touch(id_)),
        "kick": lambda bound: run(client.kick(bound)),
        "use": lambda tube: run(client.use(tube)),
        "watch": lambda tube: run(client.watch(tube)),
        "ignore": lambda tube: run(client.ignore(tube)),
        "pause": lambda tube, seconds: run(client.pause_tube(tube, seconds)),
        "stats": lambda: run(client.stats()),
        "stats_tube": lambda tube: run(client.stats_tube(tube)),
        "stats_job": lambda id_: run(client.stats_job(id_)),
        "tubes": lambda: run(client.tubes()),
        "watching": lambda: run(client.watching()),
        "using": lambda: run(client.using()),
    }
    return TableDriver(operations, close, aiostalk.Error, greenstalk_status)


def beanstalkc3_client(port: int) -> Driver:
    import beanstalkc

    # By default it calls `yaml.load` without a loader, which PyYAML has refused since version 6.
    client = beanstalkc.Connection(HOST, port, parse_yaml=yaml.safe_load, connect_timeout=10, encoding=None)

    def close() -> None:
        client._socket_file.close()  # The library forgets this.
        client.close()

    def plain(job: Any, otherwise: str) -> Job:
        if job is None:
            raise Refused(otherwise)
        return job.jid, job.body

    def reserve(timeout: int) -> Job:
        try:
            return plain(client.reserve(timeout), "TIMED_OUT")
        except beanstalkc.DeadlineSoon as error:
            raise Refused("DEADLINE_SOON") from error

    operations: dict[str, Callable[..., Any]] = {
        "put": client.put,
        "reserve": reserve,
        "peek": lambda id_: plain(client.peek(id_), "NOT_FOUND"),
        "peek_ready": lambda: plain(client.peek_ready(), "NOT_FOUND"),
        "peek_delayed": lambda: plain(client.peek_delayed(), "NOT_FOUND"),
        "peek_buried": lambda: plain(client.peek_buried(), "NOT_FOUND"),
        "delete": client.delete,
        "release": client.release,
        "bury": client.bury,
        "touch": client.touch,
        "kick": client.kick,
        "kick_job": client.kick_job,
        **named_alike(client),
        "pause": client.pause_tube,
    }
    return TableDriver(operations, close, beanstalkc.BeanstalkcException)


def pystalk_client(port: int) -> Driver:
    import pystalk

    client = pystalk.BeanstalkClient(HOST, port, socket_timeout=REPLY_SECONDS)

    def plain(job: Any) -> Job:
        return job.job_id, job.job_data

    def ignore(tube: str) -> None:
        if tube in client.watchlist:  # The library drops "default" by itself when it watches another tube.
            client.ignore(tube)

    operations: dict[str, Callable[..., Any]] = {
        "put": lambda *arguments: client.put_job(*arguments)[1],
        "reserve": lambda timeout: plain(client.reserve_job(timeout)),
        "peek_ready": lambda: plain(client.peek_ready()),
        "peek_delayed": lambda: plain(client.peek_delayed()),
        "peek_buried": lambda: plain(client.peek_buried()),
        "delete": client.delete_job,
        "release": client.release_job,
        "bury": client.bury_job,
        "kick": lambda bound: client.kick_jobs(bound)[1],
        "kick_job": client.kick_job,
        "use": client.use,
        "watch": client.watch,
        "ignore": ignore,
        "pause": client.pause_tube,
        "stats": client.stats,
        "stats_tube": client.stats_tube,
        "stats_job": client.stats_job,
        "tubes": client.list_tubes,
    }
    return TableDriver(operations, client.close, pystalk.BeanstalkError)


PYTHON_CLIENTS: dict[str, Callable[[int], Driver]] = {
    "greenstalk": greenstalk_client,
    "aiostalk": aiostalk_client,
    "beanstalkc3": beanstalkc3_client,
    "pystalk": pystalk_client,
}
