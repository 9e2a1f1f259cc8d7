"""Lists, counts and changes the jobs of a tube that match a filter, over the server's admin port."""

from __future__ import annotations

import argparse
import base64
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from beanspiked.cli.arguments import number, seconds
from beanspiked.cli.command import Failed, confirm
from beanspiked.cli.terminal import Progress, plural, print_json
from beanspiked.client.errors import AdminRefused
from beanspiked.client.requests import Job
from beanspiked.protocol.lines import MAX_U32
from beanspiked.spelling import meant

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from beanspiked.cli.arguments import Parser
    from beanspiked.client.admin import AdminConn
    from beanspiked.client.documents import Stats

__all__ = [
    "Matching",
    "add_admin",
    "add_all",
    "add_filter",
    "admin_known",
    "expect_answer",
    "filtered",
    "kick_each",
    "over_admin",
]

VARIABLE: Final = "BEANSPIKED_ADMIN"
TOKEN_VARIABLE: Final = "BEANSPIKED_ADMIN_TOKEN"  # noqa: S105 - the variable's name
UNAUTHORIZED: Final = 401
NOT_FOUND: Final = 404
CONFLICT: Final = 409
# The largest pages that the admin port has, of jobs and of tubes.
PAGE: Final = 100
TUBES_PAGE: Final = 200


class _Filter(argparse.Action):
    """Notes that a filter was given, even one that applies to all jobs."""

    def __call__(self, _parser: object, namespace: argparse.Namespace, values: object, _option: object = None) -> None:
        setattr(namespace, self.dest, values)
        namespace.filtered = True


def add_admin(words: Parser) -> None:
    """Add the options that name the admin port."""
    words.add_argument(
        "--admin",
        metavar="URL",
        help=f"ask the server's admin port instead: http[s]://HOST:PORT, HOST:PORT or PORT ({VARIABLE} when it is needed)",
    )
    words.add_argument(
        "--admin-token-file", metavar="FILE", help=f"the admin port's secret, alone in a file (else {TOKEN_VARIABLE})"
    )


def add_filter(words: Parser) -> None:
    """Add the options that choose the jobs."""
    words.set_defaults(filtered=False)
    words.add_argument("-g", "--grep", action=_Filter, metavar="TEXT", help="only jobs whose body contains this text")
    words.add_argument(
        "-o",
        "--older",
        action=_Filter,
        type=seconds,
        default=0,
        metavar="TIME",
        help="only jobs that were put at least this long ago: 90s, 5m, 2h, 1d",
    )
    words.add_argument(
        "--tries",
        action=_Filter,
        type=number,
        default=0,
        metavar="N",
        help="only jobs that were reserved at least this often",
    )
    words.add_argument(
        "--priority",
        action=_Filter,
        type=_range,
        default=(0, MAX_U32),
        metavar="LOW-HIGH",
        help="only jobs with a priority in this range",
    )


def add_all(words: Parser) -> None:
    """Add the options for a change of all jobs that match."""
    add_filter(words)
    add_admin(words)
    words.add_argument("--count", action="store_true", help="only count the jobs that match; change nothing")
    words.add_argument("-y", "--yes", action="store_true", help="do not ask for confirmation")


def _range(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    low, high = number(first), number(last if dash else first)
    if low > high:
        raise argparse.ArgumentTypeError(f"{text!r} is not a range; the lower number comes first")
    return low, high


def filtered(options: argparse.Namespace) -> bool:
    """Tell whether a filter was given."""
    given: bool = options.filtered
    return given


def over_admin(options: argparse.Namespace) -> bool:
    """Tell whether the command needs the admin port, or names one."""
    return filtered(options) or options.count or options.admin is not None


def admin_known(options: argparse.Namespace) -> bool:
    """Tell whether an option or the environment names the admin port of the chosen server."""
    return options.admin is not None or (bool(os.environ.get(VARIABLE)) and not options.addressed)


def expect_answer(words: Parser, options: argparse.Namespace) -> None:
    """Refuse a change that must be confirmed if there is no terminal to ask at."""
    if not (options.yes or options.count or sys.stdin.isatty()):
        words.error(f"{words.prog.split()[-1]}: there is no terminal to ask at; give --yes")


class Matching:
    """The jobs of a tube that match a command's options. Each method raises ClientError and Failed.

    Args:
        options: The command's options: an admin port, a filter, and for a change whether to ask first.
        tube: The tube.
        states: The states of the chosen jobs.
        most: How many jobs are changed at most, the first ones of each queue; None for all.

    Raises:
        Failed: No admin port is known, its secret cannot be read, or it cannot search for such a text.
    """

    def __init__(self, options: argparse.Namespace, tube: str, states: Sequence[str], most: int | None = None) -> None:
        self._options = options
        self._tube = tube
        self._states = states
        self._most = most
        self._port = _connected(options)
        try:
            (options.grep or "").encode()
        except UnicodeEncodeError as error:
            raise Failed("--grep: the admin port searches only for text in UTF-8") from error
        low, high = options.priority
        wanted = {"min_age": options.older, "min_tries": options.tries, "min_priority": low, "text": options.grep}
        self._wanted: dict[str, object] = {name: value for name, value in wanted.items() if value}
        if high < MAX_U32:
            self._wanted["max_priority"] = high

    def count(self) -> int:
        """Count them, up to `most`."""
        count = sum(int(self._ask("tube/jobs/count", state=state)["count"]) for state in self._states)
        return count if self._most is None else min(count, self._most)

    def listed(self, most: int) -> Iterator[tuple[Job, Stats]]:
        """List at most this many of them, with whole bodies, in the order of their queues."""
        with self._port as port:
            for state in self._states:
                after: str | None = ""
                while after is not None and most:
                    told = self._ask("tube/jobs", state=state, after=after, limit=min(PAGE, most))
                    for one in told["jobs"]:
                        job = _job(port, one)
                        if job is not None:
                            yield job
                    # Those that are gone count, too: workers may be faster than the list for ever.
                    most -= len(told["jobs"])
                    after = told["after"] or None

    def change(self, path: str, counted: str, question: str, typed: str, more: dict[str, str] | None = None) -> int:
        """Count them, ask whether to go on, and change them; return how many were changed.

        Args:
            path: The change, in the admin API.
            counted: The word for the change of a job, such as `deleted`.
            question: The text of the question, with `{}` for the jobs.
            typed: The text that the user has to type to go on: the tube's name, or yes.
            more: The arguments of the change besides the filter.
        """
        with self._port as port:
            total = self.count()
            if not total:
                return 0
            if not self._options.yes:
                # The answer may take long.
                port.rest()
                confirm(question.format(plural(total)), typed, "yes" if typed == "yes" else "the tube's name")
            done = 0
            with Progress(counted, total) as progress:
                for state in self._states:
                    said = {**self._wanted, **(more or {}), "state": state}
                    if self._most is not None:
                        said["limit"] = self._most - done
                        if done == self._most:
                            break
                    count = 0
                    try:
                        for count in port.change(path, {"tube": self._tube}, said, counted):
                            progress.show(done + count)
                    except AdminRefused as error:
                        # The tube was counted. Without its last job it is gone, and so has none of the other states.
                        if error.status != NOT_FOUND:
                            raise
                    done += count
            return done

    def print_count(self) -> int:
        """Print how many jobs match; return the exit code."""
        with self._port:
            count = self.count()
        if self._options.json:
            print_json({"tube": self._tube, "count": count})
        else:
            print(plural(count))
        return 0

    def _ask(self, path: str, **query: object) -> Any:
        try:
            return self._port.ask(path, {"tube": self._tube, **self._wanted, **query})
        except AdminRefused as error:
            _expect_secret(error)
            if error.status == NOT_FOUND:
                raise Failed(f"{error}{meant(self._tube, self._names())}") from error
            raise

    def _names(self) -> Iterator[str]:
        offset, total = 0, 1
        while offset < total:
            page = self._port.ask("tubes", {"sort": "name", "limit": TUBES_PAGE, "offset": offset})
            yield from (tube["name"] for tube in page["tubes"])
            offset, total = offset + TUBES_PAGE, page["total"]


def kick_each(options: argparse.Namespace, ids: Sequence[int]) -> Iterator[bool]:
    """Make buried or delayed jobs ready, one by one; tell of each whether it was one. Raises ClientError and Failed."""
    with _connected(options) as port:
        for job_id in ids:
            try:
                port.kick(job_id)
            except AdminRefused as error:
                _expect_secret(error)
                if error.status not in (NOT_FOUND, CONFLICT):
                    raise
                yield False
            else:
                yield True


def _expect_secret(error: AdminRefused) -> None:
    """Raise Failed if the secret is missing or wrong."""
    if error.status == UNAUTHORIZED:
        raise Failed(
            f"the admin port needs a secret: there is none or a wrong one in {TOKEN_VARIABLE} or --admin-token-file"
        ) from error


def _connected(options: argparse.Namespace) -> AdminConn:
    """Return a connection to the admin port. Raises Failed if none is known."""
    # Few commands need HTTP, which takes as long to import as everything else.
    from beanspiked.client.admin import AdminAddress, AdminConn  # noqa: PLC0415

    named = options.admin or os.environ.get(VARIABLE, "")
    if not named:
        raise Failed(
            f"beanstalkd's protocol has no command for this: name the server's admin port with --admin or {VARIABLE} "
            "(a server has one with --admin)"
        )
    if options.addressed and options.admin is None:
        raise Failed(
            f"this goes to the admin port that {VARIABLE} names, not to {options.address}: name that server's admin port with --admin"
        )
    try:
        address = AdminAddress.parse(named)
    except ValueError as error:
        raise Failed(f"--admin or {VARIABLE}: {named!r}: {error}") from error
    return AdminConn(address, _token(options.admin_token_file))


def _token(path: str | None) -> str:
    """Return the secret. Raises Failed, without the secret in the text."""
    if path is None:
        source, token = TOKEN_VARIABLE, os.environ.get(TOKEN_VARIABLE, "")
    else:
        source = f"--admin-token-file: {path}"
        try:
            token = Path(path).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Failed(f"{source}: {getattr(error, 'strerror', None) or 'not text'}") from error
    if not (token.isascii() and token.isprintable()):
        raise Failed(f"{source}: a secret has only printable ASCII characters")
    return token


def _job(port: AdminConn, told: dict[str, Any]) -> tuple[Job, Stats] | None:
    """Return a job from the admin port as the protocol would show it, with its whole body and the reason of its burial.

    Return None if somebody has deleted it since its page was made.
    """
    body = base64.b64decode(told["body"])
    if told["size"] > len(body) and not told["damage"]:
        try:
            body = port.body(told["id"])
        except AdminRefused as error:
            if error.status != NOT_FOUND:
                raise
            return None
    fields: Stats = {name: told[name] for name in ("id", "tube", "state")}
    fields |= {"pri": told["priority"], "age": int(told["age"]), "delay": int(told["delay"]), "ttr": int(told["ttr"])}
    fields["time-left"] = int(told["time_left"] or 0)
    fields |= {name: told[name] for name in ("reserves", "timeouts", "releases", "buries", "kicks", "reason")}
    if told["damage"]:
        fields["damage"] = told["damage"]
    return Job(told["id"], body), fields
