"""The arguments of requests: the query, and bodies in JSON."""

from __future__ import annotations

import json
from base64 import b64decode
from binascii import Error as Base64Error
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import ClientDisconnect

from beanspiked.admin.errors import TooLarge, Unusable
from beanspiked.engine.contract import STATE_NAMES, Filter
from beanspiked.protocol.lines import MAX_U32, valid_tube_name

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from starlette.requests import Request

__all__ = ["MAX_LIMIT", "Arguments", "Wanted", "arguments", "checked_tube", "job_id", "page", "query", "tube_name"]

# The largest body of a request, in bytes: it has room for the largest job that can be put here, in base64.
MAX_BODY: Final = 1_500_000
# The longest text to search for in jobs, in characters.
MAX_TEXT: Final = 1000
# How many rows a page may have.
MAX_LIMIT: Final = 200
MAX_ID: Final = 2**64 - 1
# How many jobs a request may name.
MAX_IDS: Final = 1000
# The arguments of a query that are numbers.
NUMBERS: Final = ("limit", "min_age", "min_tries", "min_priority", "max_priority")


def tube_name(request: Request) -> str:
    """Return the tube that a request names. Raises Unusable."""
    return checked_tube("tube", request.query_params.get("tube", ""))


def checked_tube(argument: str, name: str) -> str:
    """Return the name of a tube. Raises Unusable if it is none."""
    if not name.isascii() or not valid_tube_name(name.encode()):
        raise Unusable(f"{argument}: not the name of a tube: {name or '(empty)'}")
    return name


def job_id(request: Request) -> int:
    """Return the job that a request names. Raises Unusable."""
    return _whole("id", request.path_params["id"], MAX_ID)


def page(request: Request) -> tuple[int, int]:
    """Return the offset and the length of a page. Raises Unusable."""
    query = request.query_params
    return _whole("offset", query.get("offset", "0"), MAX_U32), _whole("limit", query.get("limit", "100"), MAX_LIMIT)


def _whole(name: str, text: str, most: int) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 20 or int(text) > most:
        raise Unusable(f"{name}: not a whole number from 0 to {most}: {text or '(empty)'}")
    return int(text)


class Wanted(Filter):
    """A filter with a text for log lines.

    Attributes:
        most: How many jobs are changed at most; None for all that match.
    """

    most: int | None = None

    def __str__(self) -> str:
        said = [", ".join(STATE_NAMES[state] for state in self.states)]
        if self.most is not None:
            said.append(f"the first {self.most}")
        said += [
            f"{name}={value:g}" for name, value in (("min_age", self.min_age), ("min_tries", self.min_tries)) if value
        ]
        if self.min_pri or self.max_pri < MAX_U32:
            said.append(f"priority {self.min_pri} to {self.max_pri}")
        if self.ids is not None:
            said.append(f"{len(self.ids)} ids")
        if self.text:
            said.append(f"text {self.text.decode()!r}")
        return f"jobs ({'; '.join(said)})"


class Arguments:
    """The members of a JSON object. Each is taken once.

    Args:
        given: The object.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._left = dict(given)

    def number(self, name: str, default: int | None, most: int = MAX_U32) -> int:
        """Take a whole number from 0 on. It must be there if there is no default. Raises Unusable."""
        value = self._left.pop(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise Unusable(f"{name}: not a whole number from 0 to {most}")
        return value

    def text(self, name: str, default: str | None = None, most: int = MAX_BODY) -> str:
        """Take a text. It must be there if there is no default. Raises Unusable."""
        value = self._left.pop(name, default)
        if not isinstance(value, str) or len(value) > most:
            raise Unusable(f"{name}: not a text of at most {most} characters")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Unusable(f"{name}: half of a surrogate pair is no character") from error
        return value

    def wanted(self, states: Collection[str] = STATE_NAMES) -> Wanted:
        """Take a filter. Without a state it is for all of `states`. Raises Unusable."""
        state = self.text("state", "")
        if state and state not in states:
            raise Unusable(f"state: not one of {', '.join(states)}")
        lowest, highest = self.number("min_priority", 0), self.number("max_priority", MAX_U32)
        return Wanted(
            [STATE_NAMES.index(name) for name in ([state] if state else states)],
            min_age=self.number("min_age", 0),
            min_tries=self.number("min_tries", 0),
            text=self.text("text", "", MAX_TEXT).encode(),
            min_pri=lowest,
            max_pri=highest,
            ids=self._ids(),
        )

    def meant(self, states: Collection[str] = STATE_NAMES) -> Wanted:
        """Take a filter for a change, and from `limit` how many jobs it changes at most. Raises Unusable."""
        wanted = self.wanted(states)
        if "limit" in self._left:
            wanted.most = self.number("limit", None)
            if not wanted.most:
                raise Unusable("limit: at least 1")
        return wanted

    def _ids(self) -> list[int] | None:
        """Take the ids of selected jobs; None for any job. Raises Unusable."""
        ids = self._left.pop("ids", None)
        if ids is None:
            return None
        whole = isinstance(ids, list) and all(type(one) is int and 0 <= one <= MAX_ID for one in ids)
        if not whole or len(ids) > MAX_IDS:
            raise Unusable(f"ids: not a list of at most {MAX_IDS} ids")
        return list(ids)

    def body(self) -> bytes:
        """Take a job's body: a text in `body`, or bytes in `body_base64`. Raises Unusable."""
        if "body_base64" in self._left:
            try:
                return b64decode(self.text("body_base64"), validate=True)
            except (Base64Error, ValueError) as error:
                raise Unusable(f"body_base64: {error}") from error
        return self.text("body").encode()

    def lines(self) -> list[bytes]:
        """Take the bodies of jobs: the lines of a text in `lines`; an empty line is none. Raises Unusable."""
        bodies = [line for line in self.text("lines").encode().split(b"\n") if line]
        if not bodies:
            raise Unusable("lines: all are empty")
        return bodies

    def end(self) -> None:
        """Raise Unusable if a member was not taken."""
        for name in self._left:
            # The answer is UTF-8, which has no half of a surrogate pair.
            raise Unusable(f"{name.encode(errors='replace').decode()}: no such argument")


def query(request: Request) -> Arguments:
    """Return the arguments of a query except the tube. Raises Unusable."""
    said = {name: value for name, value in request.query_params.items() if name != "tube"}
    return Arguments({name: _whole(name, said[name], MAX_U32) if name in NUMBERS else said[name] for name in said})


async def arguments(request: Request) -> Arguments:
    """Read a request's JSON object. An empty body is an empty object. Raises TooLarge and Unusable."""
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY:
                raise TooLarge(f"a request has at most {MAX_BODY} bytes")
    except ClientDisconnect as gone:
        # Nobody reads the answer; an error that is not a Problem would be logged as a bug.
        raise Unusable("the request is not complete") from gone
    if not body:
        return Arguments({})
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"not JSON: {error}") from error
    if not isinstance(given, dict):
        raise Unusable("not a JSON object")
    return Arguments(given)
