"""`beanspiked backup`: copies a journal, even that of a running server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from beanspiked.cli.arguments import Parser
from beanspiked.cli.command import EXIT_FAILED, run
from beanspiked.cli.terminal import say

if TYPE_CHECKING:
    import argparse

__all__ = ["main", "parser"]

# The server's exit code for a journal that cannot be used.
EXIT_JOURNAL: Final = 10


def parser() -> Parser:
    """Return the command's parser."""
    words = Parser(
        "backup",
        "Copy a journal, even that of a running server. The copy is a journal: name it\n"
        "jobs.sqlite, and a server can use its directory with -b.",
        "  beanspiked backup /var/lib/beanspiked /backup/jobs.sqlite",
        server=False,
        usage="beanspiked backup DIR FILE",
    )
    words.add_argument(
        "words", nargs="*", metavar="DIR FILE", help="the journal's directory, and a file that does not exist yet"
    )
    return words


def main(words: list[str]) -> int:
    """Run the command; return the exit code."""
    return run(parser(), words, _backup)


def _backup(options: argparse.Namespace) -> int:
    from beanspiked.engine.embedded.backup import backup  # noqa: PLC0415 - not to complete or to help
    from beanspiked.engine.errors import StoreUnusable  # noqa: PLC0415 - likewise

    if len(options.words) != 2:
        parser().error("backup needs a directory and a file: beanspiked backup DIR FILE")
    directory, target = options.words
    if not directory or not target:
        parser().error(f"backup: the {'file' if directory else 'directory'} is missing")
    if "://" in directory:
        parser().error("backup: a cluster has no journal; back up its namespace with Aerospike's own tools")
    try:
        count = backup(directory, target)
    except StoreUnusable as error:
        say(error)
        return EXIT_JOURNAL
    except OSError as error:
        say(f"{target}: {error.strerror}")
        return EXIT_FAILED
    print(f"{count} jobs copied to {target}")
    return 0
