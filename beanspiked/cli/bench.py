"""`beanspiked bench`: measures a server, or compares two."""

from __future__ import annotations

from typing import TYPE_CHECKING

from beanspiked.cli.printing import printing

if TYPE_CHECKING:
    import argparse

__all__ = ["main", "parser"]


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    from beanspiked.bench.options import parser as bench_parser  # noqa: PLC0415 - not to run

    return bench_parser()


def main(words: list[str]) -> int:
    """Run the command; return the exit code."""
    from beanspiked.bench import main as bench  # noqa: PLC0415 - not to complete

    return printing(lambda: bench(words))
