"""The `beanspiked` command. It listens first and imports the server after: clients may connect within 100 ms of exec."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Final

from beanspiked import __version__
from beanspiked.config import USAGE, UsageError, parse

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

__all__ = ["main"]

# beanstalkd's exit codes.
EXIT_USAGE: Final = 5
EXIT_JOURNAL: Final = 10
EXIT_UNKNOWN_USER: Final = 33
EXIT_SETUID: Final = 34
EXIT_LISTEN: Final = 111
EXIT_INTERRUPTED: Final = 130
EXIT_TERMINATED: Final = 143


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    words = sys.argv[1:] if argv is None else argv
    try:
        if words and words[0] in COMMANDS:
            return COMMANDS[words[0]](words[1:])
        return _serve(words)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _say(message: object) -> None:
    print(f"beanspiked: {message}", file=sys.stderr)


def _serve(words: list[str]) -> int:
    try:
        settings = parse(words, os.environ)
    except UsageError as error:
        _say(error)
        sys.stderr.write(USAGE)
        return EXIT_USAGE
    if settings.action == "version":
        print(f"beanspiked {__version__}")
        return 0
    if settings.action == "help":
        sys.stdout.write(USAGE)
        return 0
    # Until the server handles them, TERM and INT end the process as they end beanstalkd, and USR1 waits.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    if os.getpid() == 1:
        # In a container: for the first process the default is to ignore it.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(EXIT_TERMINATED))
    from beanspiked.server import listeners  # noqa: PLC0415 - argument errors need no sockets

    try:
        sockets = listeners.inherited(os.environ, os.getpid())
        if not sockets:
            sockets = listeners.bind(settings)
        elif settings.listen:
            _say("listening sockets are inherited; -l and -p are ignored")
    except listeners.ListenError as error:
        _say(error)
        return EXIT_LISTEN
    for warning in settings.warnings:
        _say(warning)
    from beanspiked.engine.errors import StoreUnusable  # noqa: PLC0415 - the socket listens before this
    from beanspiked.server.main import serve  # noqa: PLC0415 - likewise

    if settings.user is not None:
        # After the imports: the user may not be allowed to read where Python is installed.
        if settings.journal is not None:
            import beanspiked.engine.embedded.journal  # noqa: F401, PLC0415 - likewise
        _become(settings.user)
    try:
        serve(settings, sockets)
    except StoreUnusable as error:
        _say(error)
        return EXIT_JOURNAL
    return 0


def _become(user: str) -> None:
    """Give up the rights of the user who started the server (beanstalkd's `-u`)."""
    import pwd  # noqa: PLC0415 - rarely needed

    def fail(message: str, code: int) -> NoReturn:
        _say(message)
        sys.exit(code)

    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        fail(f"no such user: {user}", EXIT_UNKNOWN_USER)
    try:
        if os.getuid() == 0:
            os.initgroups(user, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    except OSError as error:
        fail(f"cannot become {user}: {error.strerror}", EXIT_SETUID)


def _bench(words: list[str]) -> int:
    from beanspiked.bench import main as bench  # noqa: PLC0415 - only this command needs it

    return bench(words)


def _backup(words: list[str]) -> int:
    from beanspiked.engine.embedded.database import backup  # noqa: PLC0415 - only this command needs it
    from beanspiked.engine.errors import StoreUnusable  # noqa: PLC0415 - likewise

    if len(words) != 2:
        _say("use: beanspiked backup DIR FILE")
        return EXIT_USAGE
    directory, target = words
    try:
        count = backup(directory, target)
    except StoreUnusable as error:
        _say(error)
        return EXIT_JOURNAL
    except OSError as error:
        _say(f"{target}: {error.strerror}")
        return 1
    print(f"{count} jobs copied to {target}")
    return 0


def _check(words: list[str]) -> int:
    from beanspiked.engine.aerospike.check import main as check  # noqa: PLC0415 - only this command needs it

    return check(words)


def _cleanup(words: list[str]) -> int:
    from beanspiked.engine.aerospike.udf import main as cleanup  # noqa: PLC0415 - only this command needs it

    return cleanup(words)


COMMANDS: Final[dict[str, Callable[[list[str]], int]]] = {
    "bench": _bench,
    "backup": _backup,
    "check": _check,
    "cleanup": _cleanup,
}
