"""The depth of a test run, and the command that repeats a failure.

By default only the tests run that find most regressions. With `CI=true` all tests run at full length, and a missing tool is a failure.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["AT_FULL_DEPTH", "COMPILED", "FULL", "absent", "full_depth", "on_source", "repeated_by", "seeds"]

FULL = os.environ.get("CI") == "true"
# What takes long for its size, and not for what it runs through, runs on the compiled core only.
COMPILED = not str(getattr(importlib.util.find_spec("beanspiked.server.session"), "origin", "")).endswith(".py")
REPEATED_BY = "repeated by "
# `BEANSPIKED_SEEDS=0-1999` runs two thousand random worlds of each kind, and `SEED-SEED` a single one again.
ASKED = os.environ.get("BEANSPIKED_SEEDS")

AT_FULL_DEPTH = "at full depth only: CI=true"

full_depth = pytest.mark.skipif(not FULL, reason=AT_FULL_DEPTH)
# For tests that replace a method of the core.
on_source = pytest.mark.skipif(COMPILED, reason="methods of a compiled core cannot be replaced: tested on the source")


def absent(what: str) -> NoReturn:
    """Skip a test whose tool is missing. Fail it in CI, where no test may be left out silently."""
    if FULL:
        pytest.fail(f"{what}, and CI=true asks for it", pytrace=False)
    pytest.skip(what)


def seeds(count: int, together: int, first: int = 0) -> list[range]:
    """Return some seeds, or those that were asked for, in parts that run one after the other."""
    last = first + count - 1
    if ASKED:
        begin, _, end = ASKED.partition("-")
        first, last = int(begin), int(end or begin)
    return [range(start, min(start + together, last + 1)) for start in range(first, last + 1, together)]


@contextlib.contextmanager
def repeated_by(**environ: object) -> Iterator[None]:
    """Add the variables that repeat a failure to its report."""
    try:
        yield
    except Exception as error:
        error.add_note(REPEATED_BY + " ".join(f"{name}={value}" for name, value in environ.items()))
        raise


def command(node: str, error: BaseException) -> str:
    """Return the command that repeats a failed test alone."""
    notes = [note for note in getattr(error, "__notes__", []) if note.startswith(REPEATED_BY)]
    if not notes:
        return f"pytest '{node}'"
    # The variables replace the parameter.
    return f"{notes[0].removeprefix(REPEATED_BY)} pytest '{node.partition('[')[0]}'"
