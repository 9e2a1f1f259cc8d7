"""The admin port of a whole server."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from depth import absent
from launcher import ServerProcess, free_port, serving
from starlette.requests import Request
from suite import COMMAND

from beanspiked.admin import http
from beanspiked.admin.errors import Problem
from beanspiked.admin.options import AdminOptions
from beanspiked.admin.requests import arguments
from beanspiked.admin.start import listen

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = {"X-Beanspiked": "1"}


class Both:
    """A server and the client of its admin port."""

    def __init__(self, server: ServerProcess, client: httpx.Client, port: int) -> None:
        self.server = server
        self.client = client
        self.port = port

    def get(self, path: str) -> httpx.Response:
        return self.client.get(path)

    def ready(self) -> dict[str, Any]:
        shown: dict[str, Any] = self.get("/readyz").json()
        return shown

    def dial(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 5)


@contextmanager
def both(*flags: str, within: tuple[str, ...] = ()) -> Iterator[Both]:
    port = free_port()
    with ExitStack() as stack:
        words = [*within, *shlex.split(COMMAND)]
        server = stack.enter_context(serving(words, "--admin", str(port), *flags))
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20))
        yield Both(server, client, port)


def ask(sock: socket.socket, words: bytes) -> bytes:
    sock.sendall(words)
    return sock.recv(65536)


def test_an_answer_is_sent_without_waiting_for_acknowledgements() -> None:
    with (
        listen(AdminOptions("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname(), 5),
        listening.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_jobs_and_http_are_served_side_by_side() -> None:
    with both() as here, here.server.dial() as client:
        assert ask(client, b"put 0 0 60 2\r\nhi\r\n") == b"INSERTED 1\r\n"
        assert here.get("/api/v1/jobs/1").json()["size"] == 2
        assert ask(client, b"reserve\r\n") == b"RESERVED 1 2\r\nhi\r\n"
        assert here.client.post("/api/v1/jobs/1/release", headers=MARK).status_code == 200
        assert ask(client, b"delete 1\r\n") == b"DELETED\r\n", "it is ready, and nobody's"


def test_the_times_of_jobs_are_measured() -> None:
    with both() as here, here.server.dial() as client:
        ask(client, b"put 0 0 60 2\r\nhi\r\n")
        ask(client, b"reserve\r\n")
        ask(client, b"delete 1\r\n")
        metrics = here.get("/metrics").text
        assert "\nbeanspiked_job_queue_seconds_count 1\n" in metrics
        assert "\nbeanspiked_job_work_seconds_count 1\n" in metrics


def test_it_ends_with_the_server_though_somebody_listens_to_events() -> None:
    with both() as here, here.client.stream("GET", "/api/v1/events") as events:
        assert next(events.iter_lines()).startswith("id: ")
        began = time.monotonic()
        assert here.server.terminate() == 0
        assert time.monotonic() - began < 5
        assert "Task was destroyed" not in here.server.log()
        assert "rror" not in here.server.log()


def test_while_clients_finish_the_server_is_not_ready() -> None:
    with both("--drain-timeout", "20") as here, here.server.dial() as client:
        ask(client, b"put 0 0 60 2\r\nhi\r\n")
        assert ask(client, b"reserve\r\n").startswith(b"RESERVED")
        assert here.ready() == {"ready": True, "reasons": []}
        here.server.signal(signal.SIGTERM)
        give_up_at = time.monotonic() + 5
        while here.ready()["reasons"] != ["stopping"]:
            assert time.monotonic() < give_up_at
        assert ask(client, b"delete 1\r\n") == b"DELETED\r\n"
        assert here.server.wait() == 0


def test_usr1_drains_as_ever() -> None:
    with both() as here, here.server.dial() as client:
        here.server.signal(signal.SIGUSR1)
        give_up_at = time.monotonic() + 5
        while here.ready()["ready"]:
            assert time.monotonic() < give_up_at
        assert ask(client, b"put 0 0 60 2\r\nhi\r\n") == b"DRAINING\r\n"


def test_a_connection_is_shown_and_closed() -> None:
    with both() as here, here.server.dial() as client:
        ask(client, b"watch t\r\n")
        host, port = client.getsockname()
        [shown] = here.get("/api/v1/connections").json()["connections"]
        assert (shown["peer"], shown["watching"], shown["holding"]) == (f"{host}:{port}", ["default", "t"], 0)
        assert here.client.delete("/api/v1/connections/0-0", headers=MARK).status_code == 404
        assert here.client.delete(f"/api/v1/connections/{shown['id']}", headers=MARK).status_code == 200
        assert client.recv(10) == b""


def test_a_client_that_hangs_up_within_its_request_is_no_bug() -> None:
    messages = [{"type": "http.request", "body": b'{"bo', "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    with pytest.raises(Problem, match="not complete"):
        asyncio.run(arguments(Request({"type": "http", "method": "POST", "headers": []}, receive)))


def test_with_a_journal_its_figures_are_told(tmp_path: Any) -> None:
    with both("-b", str(tmp_path)) as here, here.server.dial() as client:
        ask(client, b"put 0 0 60 2\r\nhi\r\n")
        metrics = here.get("/metrics").text
        assert "\nbeanspiked_journal_records_total 1\n" in metrics
        assert "\nbeanspiked_journal_commits_total 1\n" in metrics
        assert "\nbeanspiked_journal_syncs_total 1\n" in metrics
        assert "\nbeanspiked_journal_disk_free_bytes " in metrics


def test_many_silent_http_clients_delay_no_job() -> None:
    with ExitStack() as stack:
        here = stack.enter_context(both())
        client = stack.enter_context(here.server.dial())
        for _ in range(200):
            stack.enter_context(here.dial()).sendall(b"GET /metrics HTTP/1.1\r\nHost:")
        longest = 0.0
        for _ in range(200):
            began = time.monotonic()
            ask(client, b"put 0 0 60 2\r\nhi\r\n")
            longest = max(longest, time.monotonic() - began)
        assert longest < 0.5


def test_http_clients_that_take_the_last_descriptor_delay_no_job() -> None:
    with ExitStack() as stack:
        here = stack.enter_context(both(within=("sh", "-c", 'ulimit -n 40; exec "$@"', "sh")))
        client = stack.enter_context(here.server.dial())
        with ExitStack() as idle:
            for _ in range(60):
                idle.enter_context(here.dial())
            give_up_at = time.monotonic() + 5
            while "admin port: cannot accept connections" not in here.server.log():
                assert time.monotonic() < give_up_at
            began = time.monotonic()
            for _ in range(200):
                assert ask(client, b"put 0 0 60 2\r\nhi\r\n").startswith(b"INSERTED")
            assert time.monotonic() - began < 2
        assert here.get("/healthz").status_code == 200
        assert here.server.log().count("cannot accept connections") == 1
        assert "Traceback" not in here.server.log()


def test_clients_that_take_all_descriptors_leave_some_to_the_admin_port() -> None:
    with ExitStack() as stack:
        here = stack.enter_context(both(within=("sh", "-c", 'ulimit -n 100; exec "$@"', "sh")))
        idle = [stack.enter_context(here.server.dial()) for _ in range(120)]
        give_up_at = time.monotonic() + 5
        while "cannot accept connections: the other descriptors" not in here.server.log():
            assert time.monotonic() < give_up_at
        assert here.get("/healthz").status_code == 200
        idle[0].close()
        assert ask(idle[50], b"put 0 0 60 2\r\nhi\r\n") == b"INSERTED 1\r\n", "it waited for a place"


def test_tls_is_spoken_to_who_shows_the_secret(tmp_path: Path) -> None:
    openssl = shutil.which("openssl") or absent("openssl is not installed")
    key, cert = str(tmp_path / "key"), str(tmp_path / "cert")
    words = [openssl, "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert]
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    port = free_port()
    flags = ["--admin", str(port), "--admin-tls-cert", cert, "--admin-tls-key", key]
    trusting = ssl.create_default_context(cafile=cert)
    with (
        serving(shlex.split(COMMAND), *flags, environ={"BEANSPIKED_ADMIN_TOKEN": "a long secret"}),
        httpx.Client(base_url=f"https://localhost:{port}", verify=trusting) as client,
    ):
        assert client.get("/api/v1/overview").status_code == 401
        assert client.get("/api/v1/overview", headers={"Authorization": "Bearer a long secret"}).status_code == 200


def test_a_certificate_that_cannot_be_used_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "cert").write_text("no certificate")
    for file, said in (("none", b"No such file"), ("cert", b"SSL")):
        name = str(tmp_path / file)
        flags = ["--admin", "0", "--admin-tls-cert", name, "--admin-tls-key", name]
        command = [*shlex.split(COMMAND), "-l", "127.0.0.1", "-p", "0", *flags]
        ended = subprocess.run(command, capture_output=True, timeout=30, check=False)
        assert ended.returncode == 111
        assert f"the admin port's certificate {name} or its key {name}: ".encode() in ended.stderr
        assert said in ended.stderr
        assert b"Traceback" not in ended.stderr


def test_an_admin_port_that_is_taken_is_said_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [*shlex.split(COMMAND), "-l", "127.0.0.1", "-p", "0", "--admin", str(taken.getsockname()[1])]
        ended = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert ended.returncode == 111
    assert b"the admin port, 127.0.0.1 port" in ended.stderr
    assert b"Address already in use" in ended.stderr


def test_without_an_admin_port_nothing_of_it_is_loaded() -> None:
    program = """
import sys
from beanspiked.cli import main
import beanspiked.server.main
from beanspiked.config import parse
parse(["-b", "x"], {})
print(*[name for name in sys.modules if name.startswith(("starlette", "uvicorn", "prometheus", "asyncio", "beanspiked.admin"))])
"""
    environ = {**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=True, env=environ)
    assert ended.stdout.split() == []


# --- clients that are silent, deaf or too many


class Slow:
    """An HTTP server in this process, of little patience."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, context: ssl.SSLContext | None = None, patience: float = 0.1
    ) -> None:
        monkeypatch.setattr(http, "LOOK_EVERY", 0.02)
        self.sock = listen(AdminOptions("127.0.0.1", 0))
        self.address = self.sock.getsockname()
        self.served = http.HttpServer(self.app, context, patience=patience)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        # As much as the buffers of any kernel take, and more.
        for _ in range(2000 if scope["path"] == "/large" else 0):
            await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"end"})

    def hung_up(self, said: bytes, *, wait: float = 5.0, reads: bool = True, drops: bytes = b"") -> bool:
        """Tell whether the server hangs up on a client that says this, these further bytes one by one, and no more."""

        async def run() -> bool:
            self.served.begin(self.sock)
            loop = asyncio.get_running_loop()
            with socket.socket() as sock:
                sock.setblocking(False)
                await loop.sock_connect(sock, self.address)
                await loop.sock_sendall(sock, said)
                try:
                    async with asyncio.timeout(wait):
                        for drop in drops:
                            await asyncio.sleep(0.02)
                            await loop.sock_sendall(sock, bytes([drop]))
                        if not reads:
                            await asyncio.sleep(1.0)
                        while await loop.sock_recv(sock, 1 << 20):
                            pass
                except ConnectionError:
                    return True
                except TimeoutError:
                    return False
                finally:
                    await self.served.end()
            return True

        return asyncio.run(run())


@pytest.mark.parametrize(
    "said",
    [b"", b"GET / HTT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab"],
    ids=["nothing", "half a request", "half a body"],
)
def test_a_client_that_falls_silent_loses_its_connection(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    assert Slow(monkeypatch).hung_up(said)


def test_a_client_that_falls_silent_before_tls_loses_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Slow(monkeypatch, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)).hung_up(b"")


def test_a_client_that_sends_a_body_slowly_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    assert not Slow(monkeypatch, patience=0.4).hung_up(head, drops=b"x" * 1000, wait=1.0)


def test_a_client_that_sends_the_head_of_a_request_in_drops_loses_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Slow(monkeypatch).hung_up(b"GET / HTTP/1.1\r\n", drops=b"x" * 1000)


def test_a_client_that_does_not_read_loses_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Slow(monkeypatch).hung_up(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n", reads=False)


def test_a_client_that_reads_what_is_large_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Slow(monkeypatch).hung_up(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n", wait=1.5)


def test_a_client_that_is_between_two_requests_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Slow(monkeypatch).hung_up(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", wait=0.5)


def test_more_clients_than_there_is_room_for_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 0)
    assert Slow(monkeypatch).hung_up(b"", wait=1.0)


def test_a_request_that_the_end_cuts_off_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        begun = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001 - it does not answer
            begun.set()
            await asyncio.Event().wait()

        sock = listen(AdminOptions("127.0.0.1", 0))
        served = http.HttpServer(app)
        served.begin(sock)
        _, writer = await asyncio.open_connection(*sock.getsockname())
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await begun.wait()
        await served.end()
        writer.close()

    asyncio.run(run())
    assert not caplog.records
