"""`beanspiked check`: checks whether a cluster is fit for jobs."""

from __future__ import annotations

from typing import Final

from beanspiked.cli.printing import printing

__all__ = ["OPTIONS", "main"]

# The options for a shell's completion.
OPTIONS: Final = ("-z", "--max-job-size", "-h", "--help")


def main(words: list[str]) -> int:
    """Run the command; return the exit code."""
    from beanspiked.ops.check import main as check  # noqa: PLC0415 - not to complete

    return printing(lambda: check(words))
