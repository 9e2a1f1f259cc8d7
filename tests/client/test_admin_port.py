"""The connection to an admin port whose other side does not speak TLS, or is not trusted."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest
from depth import absent

from beanspiked.client.admin import AdminAddress, AdminConn
from beanspiked.client.errors import ServerGone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextlib.contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[AdminAddress]:
    """A server for one connection, which is closed after the answer; yields its address with https."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            # The client hangs up.
            with connection, contextlib.suppress(OSError):
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield AdminAddress(host="127.0.0.1", port=listener.getsockname()[1], tls=True)
        finally:
            thread.join(30)


def said_of(address: AdminAddress) -> str:
    """What is said of a server that cannot be asked."""
    with AdminConn(address) as conn, pytest.raises(ServerGone) as caught:
        conn.ask("tubes", {})
    return str(caught.value).removeprefix(f"cannot ask the admin port {address}: ")


def test_a_certificate_that_is_not_trusted_is_said_so(tmp_path: Path) -> None:
    openssl = shutil.which("openssl") or absent("openssl is not installed")
    key, cert = str(tmp_path / "key"), str(tmp_path / "cert")
    words = [openssl, "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*words, "-keyout", key, "-out", cert], check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with answering(lambda connection: context.wrap_socket(connection, server_side=True).close()) as address:
        said = said_of(address)
    assert said.startswith("its certificate is not trusted: self")
    assert said.endswith("; SSL_CERT_FILE names a file of those that are")


def test_a_server_without_tls_is_said_so() -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with answering(refuse) as address:
        assert said_of(address) == "it does not speak TLS; its URL may begin with http://"
