"""The parser of the sub-commands' arguments, with help and errors in one form, and the kinds of values."""

from __future__ import annotations

import argparse
import os
import re
import sys
from typing import TYPE_CHECKING, Final, NoReturn

from beanspiked.client.address import Address
from beanspiked.protocol.lines import MAX_U32, MAX_U64, valid_tube_name
from beanspiked.spelling import meant

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["STATES", "Parser", "at_least_one", "job_id", "number", "option_strings", "seconds", "tube"]

# The server's exit code for usage errors.
EXIT_USAGE: Final = 5
DEFAULT_ADDRESS: Final = "127.0.0.1:11300"
STATES: Final = ("ready", "delayed", "buried")
# Marks a word that stands behind `--`. No word of a command line has this character.
NO_OPTION: Final = "\0"
UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class _Help(argparse.RawDescriptionHelpFormatter):
    def add_usage(self, usage: object, actions: object, groups: object, prefix: str | None = None) -> None:
        super().add_usage(usage, actions, groups, "Usage: " if prefix is None else prefix)  # type: ignore[arg-type]


class _Given(argparse.Action):
    """Notes that an option gave the address, not the environment."""

    def __call__(self, _parser: object, namespace: argparse.Namespace, values: object, _option: object = None) -> None:
        setattr(namespace, self.dest, values)
        namespace.addressed = True


class Parser(argparse.ArgumentParser):
    """Reads the arguments of one sub-command. An error is one line, and a second line says how to get help."""

    def __init__(
        self,
        command: str,
        description: str,
        examples: str = "",
        *,
        server: bool = True,
        usage_code: int = EXIT_USAGE,
        usage: str | None = None,
    ) -> None:
        epilog = f"examples:\n{examples}" if examples else None
        super().__init__(f"beanspiked {command}", usage, description, epilog, formatter_class=_Help)
        self._usage_code = usage_code
        if server:
            self.add_argument(
                "-a",
                "--address",
                type=_address,
                action=_Given,
                metavar="ADDR",
                default=os.environ.get("BEANSPIKED_ADDR") or DEFAULT_ADDRESS,
                help=f"the server: HOST:PORT or unix:PATH (BEANSPIKED_ADDR, else {DEFAULT_ADDRESS})",
            )

        self.set_defaults(addressed=False)

    def add_json(self) -> None:
        """Add the option for JSON."""
        self.add_argument("--json", action="store_true", help="print JSON, for scripts")

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """Read the arguments; options may stand among the others. Prints an error and then raises SystemExit."""
        place = words.index("--") if "--" in words else len(words)
        # argparse does not know what stands behind `--` any more once it has taken out the options.
        marked = [*words[:place], *(f"{NO_OPTION}{word}" for word in words[place + 1 :])]
        options, rest = self.parse_known_intermixed_args(marked)
        for word in rest:
            given = word.removeprefix(NO_OPTION)
            self.error(f"unknown argument: {given}{meant(given.partition('=')[0], option_strings(self))}")
        return options

    def _get_value(self, action: argparse.Action, arg_string: str) -> object:
        return super()._get_value(action, arg_string.removeprefix(NO_OPTION))

    def error(self, message: str) -> NoReturn:
        """Print an error and exit."""
        text = "".join(letter if letter.isprintable() else "?" for letter in message)
        text = text if len(text) <= 200 else f"{text[:200]}..."
        sys.stderr.write(f"beanspiked: {text}\n{self.prog} -h for help\n")
        self.exit(self._usage_code)


def option_strings(parser: argparse.ArgumentParser) -> list[str]:
    """List the options that a parser knows."""
    return [word for action in parser._actions for word in action.option_strings]  # noqa: SLF001 - argparse has no other way


def _address(text: str) -> Address:
    try:
        return Address.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def tube(text: str) -> str:
    """Read a tube's name."""
    if not valid_tube_name(os.fsencode(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid tube name")
    return text


def number(text: str) -> int:
    """Read a number of 32 bits."""
    return _number(text, MAX_U32)


def at_least_one(text: str) -> int:
    """Read a number that is not 0."""
    value = _number(text, MAX_U32)
    if not value:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def job_id(text: str) -> int:
    """Read a job's id."""
    return _number(text, MAX_U64)


def seconds(text: str) -> int:
    """Read a time, such as 90, 90s, 5m, 2h or 1d."""
    found = re.fullmatch(r"([0-9]{1,10})([smhd]?)", text, re.ASCII)
    value = int(found[1]) * UNITS[found[2]] if found else MAX_U32 + 1
    if value > MAX_U32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time, such as 90, 90s, 5m, 2h or 1d")
    return value


def some_time(text: str) -> int:
    """Read a time that is not 0."""
    value = seconds(text)
    if not value:
        raise argparse.ArgumentTypeError("must be at least 1s")
    return value


def _number(text: str, limit: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20) or int(text) > limit:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {limit}")
    return int(text)
