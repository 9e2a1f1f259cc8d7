"""Runs what prints, where perhaps nobody can read it. The server imports this for -v and -h, so it imports little itself."""

from __future__ import annotations

import sys

# `typing` has this too, but takes longer to import than all of this.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

__all__ = ["EXIT_FAILED", "printing"]

EXIT_FAILED: Final = 1
# A shell's exit code for a process that SIGPIPE ended.
EXIT_BROKEN_PIPE: Final = 141


def printing(command: Callable[[], int]) -> int:
    """Run what prints; return the exit code. If nobody can read what is printed, that is no error of the program."""
    try:
        code = command()
        sys.stdout.flush()
    except OSError as error:
        from beanspiked.cli.terminal import discard, say  # noqa: PLC0415 - only an error needs it

        discard(1)
        if isinstance(error, BrokenPipeError):
            # The reader of the output has gone.
            return EXIT_BROKEN_PIPE
        say(f"input or output: {error.strerror}")
        return EXIT_FAILED
    return code
