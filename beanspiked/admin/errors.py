"""The errors of HTTP requests.

Problem
├── Missing      404: there is no such tube, job or connection
├── Conflict     409: the job's state does not allow the change
├── Unusable     400: an argument is missing or malformed
├── TooLarge     413: the request, or the job in it, is too large
├── Refused      403: the request must not do that
└── Unavailable  503: not now
"""

from __future__ import annotations

from typing import ClassVar

__all__ = ["Conflict", "Missing", "Problem", "Refused", "TooLarge", "Unavailable", "Unusable"]


class Problem(Exception):  # noqa: N818 - each names what is wrong
    """A fault of a request. The text goes to the client."""

    status: ClassVar[int] = 400


class Missing(Problem):
    """There is no such thing."""

    status = 404


class Conflict(Problem):
    """The job's state does not allow the change."""

    status = 409


class Unusable(Problem):
    """An argument cannot be used."""


class TooLarge(Problem):
    """The request, or the job in it, is too large."""

    status = 413


class Refused(Problem):
    """The request must not do that."""

    status = 403


class Unavailable(Problem):
    """Not now."""

    status = 503
