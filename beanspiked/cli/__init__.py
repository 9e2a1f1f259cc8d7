"""The `beanspiked` command. It listens first and imports the server after that, so clients can connect within 30 ms of exec.

Each import before that costs tenths of a millisecond: `signal` takes five of these, and `_signal`, on which it is built, takes none.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import sys

from beanspiked.config import UsageError, parse
from beanspiked.usage import USAGE
from beanspiked.version import __version__

# `typing` has this too, but takes longer to import than all of this.
TYPE_CHECKING = False

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Final, NoReturn

    from beanspiked.admin.options import AdminOptions
    from beanspiked.config import Settings
    from beanspiked.server.main import Companion
    from beanspiked.server.worker import Worker

__all__ = ["COMMANDS", "main", "usage"]

EXIT_NO_MEMORY: Final = 1
# beanstalkd's exit codes.
EXIT_USAGE: Final = 5
EXIT_JOURNAL: Final = 10
EXIT_UNKNOWN_USER: Final = 33
EXIT_SETUID: Final = 34
EXIT_LISTEN: Final = 111
EXIT_INTERRUPTED: Final = 130
EXIT_TERMINATED: Final = 143
# With fewer descriptors a journal cannot be opened and served.
LEAST_FILES: Final = 24
# The length of the longest error, in characters, so that a terminal shows nearly all of it.
MAX_ERROR: Final = 200

# Each command with its purpose. It is a module of this package, which is imported when it is used.
COMMANDS: Final = {
    "stats": "show the statistics of the server or of a tube",
    "tubes": "list the tubes and their jobs by state",
    "top": "watch the tubes live; pause and kick with keys",
    "peek": "show a job, or the next jobs of a tube",
    "jobs": "list the next job of each state, or jobs by their ids",
    "put": "put a job for each line of the input",
    "work": "run a command for each job",
    "kick": "make buried or delayed jobs ready",
    "move": "move jobs to another tube",
    "delete": "delete jobs by their ids",
    "clear": "delete all jobs of a tube",
    "pause": "pause a tube: nobody can reserve from it for a time",
    "wait": "wait until a tube is empty",
    "health": "check a tube, for monitoring",
    "completion": "print a shell's completion script",
    "bench": "load a server and print its speed",
    "backup": "copy a journal, even that of a running server",
    "check": "check whether an Aerospike cluster is fit for jobs",
    "cleanup": "remove Lua modules of other versions from a cluster",
}


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    _open_standard_files()
    words = sys.argv[1:] if argv is None else argv
    try:
        if not words or words[0].startswith("-"):
            return _serve(words)
        if words[0] not in COMMANDS:
            from beanspiked.spelling import meant  # noqa: PLC0415 - only an error needs it

            return _refuse(UsageError(f"unknown argument: {words[0] or '(empty)'}{meant(words[0], COMMANDS)}"))
        run: Callable[[list[str]], int] = __import__(f"{__name__}.{words[0]}", fromlist=["main"]).main
        return run(words[1:])
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except MemoryError:
        _say("there is not enough memory")
        return EXIT_NO_MEMORY


def usage() -> str:
    """Return the help text of the server and the list of commands."""
    from beanspiked.admin import options  # noqa: PLC0415 - only the help needs it

    commands = "".join(f" {name:<10} {text}\n" for name, text in COMMANDS.items())
    forms = "Usage: beanspiked [OPTIONS]        start the server\n"
    forms += "       beanspiked COMMAND [...]    run a command; -h after it prints its help\n"
    return f"{forms}\nCommands:\n{commands}\n{USAGE}{options.USAGE}"


def _open_standard_files() -> None:
    """Open /dev/null for each standard file that is closed. Otherwise the first socket or journal would take its place."""
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(fd)
        except OSError:
            # The kernel gives the lowest free descriptor, which is fd.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - open to the end


def _say(message: object) -> None:
    print(f"beanspiked: {message}", file=sys.stderr)


def _refuse(error: UsageError) -> int:
    """Print two lines: the fault of a command line, and how to get help."""
    text = "".join(letter if letter.isprintable() else "?" for letter in str(error))
    _say(text if len(text) <= MAX_ERROR else f"{text[:MAX_ERROR]}...")
    print("beanspiked -h for help", file=sys.stderr)
    return EXIT_USAGE


def _end_when_told() -> None:
    """Let TERM and INT end the process, as they end beanstalkd, and keep USR1 pending, until the server handles signals."""
    if os.getpid() == 1:
        # The first process of a container ignores them by default.
        _signal.signal(_signal.SIGTERM, lambda *_: os._exit(EXIT_TERMINATED))
        _signal.signal(_signal.SIGINT, lambda *_: os._exit(EXIT_INTERRUPTED))
    else:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_BLOCK, {_signal.SIGUSR1})


def _serve(words: list[str]) -> int:
    _end_when_told()
    try:
        settings = parse(words, os.environ)
    except UsageError as error:
        return _refuse(error)
    if settings.action in ("version", "help"):
        return _print(f"beanspiked {__version__}\n" if settings.action == "version" else usage())
    files = os.sysconf("SC_OPEN_MAX")
    if 0 <= files < LEAST_FILES:
        _say(f"a server needs {LEAST_FILES} open files or more, and the limit (ulimit -n) is {files}")
        return EXIT_LISTEN
    from beanspiked.server import listeners, log  # noqa: PLC0415 - argument errors need neither

    log.guard()
    if settings.workers and "BEANSPIKED_CHANNEL" in os.environ:
        return _work(settings, os.environ.pop("BEANSPIKED_CHANNEL"))
    bound = False
    try:
        inherited = listeners.inherited(os.environ, os.getpid(), settings.tcp_keepalive)
        descriptors = inherited or listeners.bind(settings)
        bound = not inherited
        admin = None if settings.admin is None else _listen_to_admins(settings.admin)
        companion = None if settings.workers else _admin_port(settings, admin)
    except listeners.ListenError as error:
        if bound:
            listeners.remove_files(settings)
        _say(error)
        return EXIT_LISTEN
    for line in (*settings.notices, *settings.warnings):
        _say(line)
    if inherited and settings.listen:
        _say("systemd gave the sockets; -l and -p are ignored")
    import socket  # noqa: PLC0415 - the socket listens before this

    sockets = [socket.socket(fileno=fd) for fd in descriptors]
    if settings.workers:
        return _keep_workers(settings, sockets, admin)
    code = _run(settings, sockets, companion)
    if code and bound:
        listeners.remove_files(settings)
    return code


def _print(text: str) -> int:
    from beanspiked.cli.printing import printing  # noqa: PLC0415 - a server needs no commands

    def written() -> int:
        sys.stdout.write(text)
        return 0

    return printing(written)


def _keep_workers(settings: Settings, sockets: list[socket.socket], admin: socket.socket | None) -> int:
    """Run as the parent of workers, which have the same command line."""
    from beanspiked.server.log import start  # noqa: PLC0415 - likewise
    from beanspiked.server.parent import Parent  # noqa: PLC0415 - likewise

    if settings.user is not None:
        _become(settings.user)
    start(settings.verbose)
    return Parent([sys.executable, *sys.orig_argv[1:]], settings.workers, sockets, admin).run()


def _work(settings: Settings, channel: str) -> int:
    """Run as a worker."""
    from beanspiked.server.listeners import ListenError  # noqa: PLC0415 - only a worker needs it
    from beanspiked.server.worker import NoParentError, Worker  # noqa: PLC0415 - likewise

    try:
        worker = Worker(channel)
        companion = _admin_port(settings, worker.admin)
    except NoParentError as error:
        return _refuse(UsageError(str(error)))
    except ListenError as error:
        _say(error)
        return EXIT_LISTEN
    return _run(settings, [], companion, worker)


def _run(
    settings: Settings, sockets: list[socket.socket], companion: Companion | None, worker: Worker | None = None
) -> int:
    """Serve until the end; return the exit code."""
    from beanspiked.engine.errors import StoreUnusable  # noqa: PLC0415 - the socket listens before this
    from beanspiked.server.main import serve  # noqa: PLC0415 - likewise
    from beanspiked.server.sockets import NativeMissingError  # noqa: PLC0415 - likewise

    if settings.user is not None:
        # This comes after the imports: the user may lack permission to read Python's directories.
        if settings.journal is not None:
            import beanspiked.engine.embedded.journal  # noqa: F401, PLC0415 - likewise
        _become(settings.user)
    try:
        serve(settings, sockets, companion, worker)
    except StoreUnusable as error:
        _say(error)
        return EXIT_JOURNAL
    except NativeMissingError as error:
        _say(error)
        return EXIT_USAGE
    return 0


def _listen_to_admins(options: AdminOptions) -> socket.socket:
    """Bind the admin port. Raises ListenError."""
    from beanspiked.server.listeners import ListenError  # noqa: PLC0415 - likewise

    try:
        from beanspiked.admin.start import listen  # noqa: PLC0415 - loaded only with --admin
    except ModuleNotFoundError as error:
        raise ListenError(f"the admin port needs {error.name}: pip install 'beanspiked[admin]'") from error
    try:
        return listen(options)
    except OSError as error:
        raise ListenError(f"the admin port, {options.host} port {options.port}: {error.strerror}") from error


def _admin_port(settings: Settings, sock: socket.socket | None) -> Companion | None:
    """Make the admin port on its socket, if there is one. Raises ListenError."""
    if settings.admin is None or sock is None:
        return None
    from beanspiked.admin.start import AdminPort  # noqa: PLC0415 - likewise
    from beanspiked.server.listeners import ListenError  # noqa: PLC0415 - likewise

    options = settings.admin
    try:
        return AdminPort(options, sock, settings.journal)
    except OSError as error:
        # OpenSSL does not tell which of the two files it is.
        files = f"the admin port's certificate {options.tls_cert} or its key {options.tls_key}"
        raise ListenError(f"{files}: {error.strerror or error}") from error


def _become(user: str) -> None:
    """Become another user and give up the rights of the one that started the server (beanstalkd's `-u`)."""
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
