"""What requests say: the query, and bodies in JSON."""

from __future__ import annotations

import json
from base64 import b64decode
from binascii import Error as Base64Error
from typing import TYPE_CHECKING, Any, Final

from beanspiked.admin.errors import TooLarge, Unusable
from beanspiked.protocol.lines import MAX_U32, valid_tube_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

__all__ = ["MAX_LIMIT", "Arguments", "arguments", "job_id", "page", "tube_name"]

# How much a request may say, in bytes: as much as the largest job takes that can be put here, in base64.
MAX_BODY: Final = 1_500_000
# How many rows a page may have.
MAX_LIMIT: Final = 200
MAX_ID: Final = 2**64 - 1


def tube_name(request: Request) -> str:
    """Return the tube that a request names. Raises Unusable."""
    name = request.query_params.get("tube", "")
    if not name.isascii() or not valid_tube_name(name.encode()):
        raise Unusable(f"tube: not the name of a tube: {name or '(empty)'}")
    return str(name)


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


class Arguments:
    """The members of a JSON object, each taken once.

    Args:
        given: The object.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._left = dict(given)

    def number(self, name: str, default: int, most: int = MAX_U32) -> int:
        """Take a whole number from 0 on. Raises Unusable."""
        value = self._left.pop(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise Unusable(f"{name}: not a whole number from 0 to {most}")
        return value

    def text(self, name: str, default: str | None = None, most: int = MAX_BODY) -> str:
        """Take a text, which has to be there if there is no default. Raises Unusable."""
        value = self._left.pop(name, default)
        if not isinstance(value, str) or len(value) > most:
            raise Unusable(f"{name}: not a text of at most {most} characters")
        return value

    def body(self) -> bytes:
        """Take a job's body: a text in `body`, or bytes in `body_base64`. Raises Unusable."""
        if "body_base64" in self._left:
            try:
                return b64decode(self.text("body_base64"), validate=True)
            except (Base64Error, ValueError) as error:
                raise Unusable(f"body_base64: {error}") from error
        try:
            return self.text("body").encode()
        except UnicodeEncodeError as error:
            raise Unusable("body: half of a surrogate pair is no character") from error

    def end(self) -> None:
        """Raise Unusable if something is left that nobody takes."""
        for name in self._left:
            raise Unusable(f"{name}: no such argument")


async def arguments(request: Request) -> Arguments:
    """Read the JSON object that a request brings; an empty body is an empty one. Raises TooLarge and Unusable."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise TooLarge(f"a request has at most {MAX_BODY} bytes")
    if not body:
        return Arguments({})
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"not JSON: {error}") from error
    if not isinstance(given, dict):
        raise Unusable("not a JSON object")
    return Arguments(given)
