"""`beanspiked cleanup`: removes Lua modules that other versions left in a cluster."""

from __future__ import annotations

from typing import Final

from beanspiked.cli.printing import printing

__all__ = ["OPTIONS", "main"]

# The options for a shell's completion.
OPTIONS: Final = ("-h", "--help")


def main(words: list[str]) -> int:
    """Run the command; return the exit code."""
    from beanspiked.ops.cleanup import main as cleanup  # noqa: PLC0415 - not to complete

    return printing(lambda: cleanup(words))
