"""A connection to a server's admin port: JSON over HTTP, for requests that the protocol does not have."""

from __future__ import annotations

import json
import ssl
import string
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import TYPE_CHECKING, Any, Final, Self, cast
from urllib.parse import quote, urlencode, urlsplit

from beanspiked.client.blocking import reason
from beanspiked.client.errors import AdminRefused, BrokenReply, ServerGone

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping

__all__ = ["AdminAddress", "AdminConn"]

DEFAULT_PORT: Final = 11301
CONNECT_SECONDS: Final = 10.0
# In seconds. A search of the bodies of a million jobs takes minutes on a busy server. A change reports its progress much more often.
ANSWER_SECONDS: Final = 600.0
# Changes must have this header, so that no page of another site can send one.
CHANGE: Final = {"X-Beanspiked": "1", "Content-Type": "application/json"}
PROGRESS: Final = "application/x-ndjson"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminAddress:
    """The address of an admin port. `prefix` is the path above all others, without a slash at its end."""

    host: str
    port: int
    tls: bool = False
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> AdminAddress:
        """Read a URL, `HOST:PORT`, or a port of this machine.

        Raises:
            ValueError: The text is none of these.
        """
        if text.isascii() and text.isdigit():
            text = f"127.0.0.1:{text}"
        url = urlsplit(text if "://" in text else f"http://{text}")
        if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
            raise ValueError("must be a URL such as http://HOST:PORT, HOST:PORT or PORT")
        port = (443 if url.scheme == "https" else DEFAULT_PORT) if url.port is None else url.port
        # A request's first line is ASCII.
        prefix = quote(url.path.rstrip("/"), string.punctuation, errors="surrogateescape")
        return cls(host=url.hostname, port=port, tls=url.scheme == "https", prefix=prefix)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{self.prefix}"


class AdminConn:
    """A connection to an admin port. It opens when a request needs it, and again after `rest`.

    Args:
        address: The port's address.
        token: The secret to show, in printable ASCII characters; empty for none.
    """

    def __init__(self, address: AdminAddress, token: str = "") -> None:
        self.address: AdminAddress = address
        self._headers: dict[str, str] = {"Authorization": f"Bearer {token}"} if token else {}
        if address.tls:
            context = ssl.create_default_context()
            self._http: HTTPConnection = HTTPSConnection(
                address.host, address.port, timeout=CONNECT_SECONDS, context=context
            )
        else:
            self._http = HTTPConnection(address.host, address.port, timeout=CONNECT_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def rest(self) -> None:
        """Close the connection until the next request, as a server does with clients that are silent for long."""
        self._http.close()

    def ask(self, path: str, query: Mapping[str, object]) -> Any:
        """Return the answer of a GET below `/api/v1/`. Raises AdminRefused, ServerGone and BrokenReply."""
        return _decoded(self._whole(self._begin("GET", path, query)))

    def body(self, job_id: int) -> bytes:
        """Return a job's whole body. Raises AdminRefused and ServerGone."""
        return self._whole(self._begin("GET", f"jobs/{job_id}/body", {}))

    def kick(self, job_id: int) -> None:
        """Make a buried or delayed job ready. Raises AdminRefused, ServerGone and BrokenReply."""
        _decoded(self._whole(self._begin("POST", f"jobs/{job_id}/kick", {}, b"{}", CHANGE)))

    def change(self, path: str, query: Mapping[str, object], said: Mapping[str, object], counted: str) -> Iterator[int]:
        """Change many jobs; yield from time to time how many were changed so far, and at the end how many in all.

        Args:
            path: The change, below `/api/v1/`.
            query: The arguments in the URL.
            said: The arguments in the body.
            counted: The word for the change of a job, such as `deleted`.

        Raises:
            AdminRefused: The server refused the change, or the change ended early. The text says how many jobs were changed by then.
            ServerGone: The server went away. The jobs that were changed by then stay changed.
            BrokenReply: This is no admin port.
        """
        response = self._begin("POST", path, query, json.dumps(said).encode(), {**CHANGE, "Accept": PROGRESS})
        count, ended = 0, False
        while line := self._read(response):
            told = _decoded(line)
            if not isinstance(told, dict) or not isinstance(told.get(counted), int):
                raise BrokenReply(f"{self.address} is no admin port")
            count = told[counted]
            if "error" in told:
                raise AdminRefused(f"{told['error']}; {count:,} were {counted} by then", response.status)
            ended = bool(told.get("ended"))
            yield count
        if not ended:
            raise ServerGone(f"{self.address} hung up; {count:,} were {counted} by then, or more")

    def _begin(
        self,
        method: str,
        path: str,
        query: Mapping[str, object],
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HTTPResponse:
        """Send a request; return the response once its head has come. Raises AdminRefused, ServerGone and BrokenReply."""
        target = f"{self.address.prefix}/api/v1/{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            if self._http.sock is None:
                self._http.connect()
                cast("socket.socket", self._http.sock).settimeout(ANSWER_SECONDS)
            self._http.request(method, target, body, {**self._headers, **(headers or {})})
            response = self._http.getresponse()
        except (OSError, HTTPException, UnicodeError) as error:
            raise self._gone(error) from error
        if response.status >= 400:
            told = _decoded(self._whole(response))
            raise AdminRefused(str(told.get("error") if isinstance(told, dict) else told), response.status)
        return response

    def _whole(self, response: HTTPResponse) -> bytes:
        try:
            return response.read()
        except (OSError, HTTPException) as error:
            raise self._gone(error) from error

    def _read(self, response: HTTPResponse) -> bytes:
        try:
            return response.readline()
        except (OSError, HTTPException) as error:
            raise self._gone(error) from error

    def _gone(self, error: Exception) -> ServerGone:
        self._http.close()
        return ServerGone(f"cannot ask the admin port {self.address}: {_reason(error)}")


def _reason(error: Exception) -> str:
    """Say in words why there is no answer."""
    # The errno of an error of TLS is a number of OpenSSL's own.
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message.removesuffix(".")
        return f"its certificate is not trusted: {why}; SSL_CERT_FILE names a file of those that are"
    if isinstance(error, ssl.SSLError):
        if error.reason == "WRONG_VERSION_NUMBER":
            return "it does not speak TLS; its URL may begin with http://"
        return (error.reason or str(error)).lower().replace("_", " ")
    if isinstance(error, (OSError, UnicodeError)):
        return reason(error)
    return str(error) or type(error).__name__


def _decoded(document: bytes) -> Any:
    try:
        return json.loads(document)
    except ValueError as error:
        raise BrokenReply(f"not JSON, so this is no admin port: {document[:80]!r}") from error
