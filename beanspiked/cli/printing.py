"""Runs what prints, where perhaps nobody can read it. The server imports this for -v and -h, so it imports little itself."""

from __future__ import annotations

import os
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
    except BrokenPipeError:
        # The reader of the output has gone. Drop the rest of the buffer without an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_BROKEN_PIPE
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        from beanspiked.cli.terminal import say  # noqa: PLC0415 - only an error needs it

        say(f"input or output: {error.strerror}")
        return EXIT_FAILED
    return code
