"""The parent process of a server with several workers: it accepts clients, hands them over, and replaces a worker that dies.

It serves no clients itself and has no threads. It never forks: a worker is a new process with the same command line. Each client goes
to the worker that has the fewest, whatever kind of socket it used.

Tried: a socket for each of two workers, with SO_REUSEPORT. One worker got up to 32 of fifty clients; somebody could start a second server
on the same port by mistake; and unix sockets and those of systemd cannot do this. Tried as well: one socket from which all workers accept,
with EPOLLEXCLUSIVE. When clients came one by one, one worker got all fifty.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from beanspiked.server import channel, notify
from beanspiked.server.channel import CLIENTS, COUNT, COUNTERS, HELLO, READY, TOTAL, UP, Channel, Message
from beanspiked.server.door import Door, Place
from beanspiked.server.instance import instance_id

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

__all__ = ["Parent"]

logger = logging.getLogger("beanspiked")

# The first pause before the replacement of a worker that died, in seconds. It doubles while replacements die within WELL_AFTER.
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 10.0
WELL_AFTER: Final = 10.0
# How long clients wait for a replacement, in seconds. Those of the worker that died come back at once. Without this wait all of them would
# go to the other workers, and stay there.
PATIENCE: Final = 5.0
# How soon the parent knows that a worker has died, after its channel has ended, in seconds.
DEAD_WITHIN: Final = 0.2
# How long the workers may take to send their counters, in seconds.
COUNT_WITHIN: Final = 0.3
# A shell's exit codes: of a command that cannot run, and of one that a signal killed, to which the signal's number is added.
EXIT_NOT_FOUND: Final = 127
EXIT_SIGNALLED: Final = 128
WAKE_BYTES: Final = 4096


class Question:
    """A worker's question for the counters of the others."""

    def __init__(self, asker: Place, asker_number: int, others: set[Place], until: float) -> None:
        self.asker = asker
        self.asker_number = asker_number
        self.others = others
        self.until = until
        self.answered = 0
        self.total: list[int] = []


class Parent:
    """Keeps a server's workers.

    Args:
        words: A worker's command line. The worker finds the descriptor of its channel in the environment.
        count: How many workers to keep.
        sockets: The listening sockets, which do not block.
        admin: The admin port's socket, which the first worker serves, or None.
    """

    def __init__(
        self, words: list[str], count: int, sockets: list[socket.socket], admin: socket.socket | None = None
    ) -> None:
        self._words = words
        self._places = [Place(number) for number in range(1, count + 1)]
        self._admin = admin
        self._id = instance_id()
        self._started_us = time.time_ns() // 1000
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._questions: dict[int, Question] = {}
        self._asked = 0
        self._door = Door(self._places, sockets, self._hear, self._ignore)
        # Whether all workers have been up at one time. From then on a worker that dies is replaced.
        self._ready = False
        self._announced = False
        self._draining = False
        self._stopping = False
        self._signals: list[int] = []
        self._code = 0

    def run(self) -> int:
        """Serve until a signal stops the server; return its exit code."""
        wake_out, wake_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_in, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, lambda caught, _: self._signals.append(caught))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        self._hear(wake_out, partial(_empty, wake_out))
        # The others follow when the first is up. So an error that prevents the start is logged once.
        self._start(self._places[0])
        while not self._stopping or any(place.pid for place in self._places):
            for fd, _ in self._epoll.poll(self._how_long()):
                # An earlier event may have closed this descriptor.
                if fd in self._handlers:
                    self._handlers[fd]()
            while self._signals:
                self._obey(self._signals.pop(0))
            self._do_what_is_due()
        self._epoll.close()
        signal.set_wakeup_fd(-1)
        return self._code

    def _obey(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number == signal.SIGUSR1:
            logger.info("draining: puts are refused until the server is started again")
            self._draining = True
            self._signal_all(signal.SIGUSR1)
        elif self._stopping:
            # A second signal does not wait for held jobs.
            self._code = 1
            self._signal_all(signal.SIGKILL)
        else:
            self._stop()

    def _do_what_is_due(self) -> None:
        now = time.monotonic()
        if self._ready and not self._stopping:
            for place in self._places:
                if not place.pid and now >= place.start_at:
                    self._start(place)
        for number, question in list(self._questions.items()):
            if now >= question.until:
                self._answer(number, question)
        self._door.move(now)

    def _how_long(self) -> float | None:
        """Return the time until something is due, in seconds; None if nothing is."""
        now = time.monotonic()
        times = [question.until for question in self._questions.values()]
        if self._ready and not self._stopping:
            times += [place.start_at for place in self._places if not place.pid]
            times += [place.awaited_until for place in self._places if not place.up]
            times.append(self._door.again_at)
        times = [at for at in times if at > now]
        return min(times) - now if times else None

    def _hear(self, fd: int, handler: Callable[[], None]) -> None:
        self._handlers[fd] = handler
        self._epoll.register(fd, select.EPOLLIN)

    def _ignore(self, fd: int) -> None:
        del self._handlers[fd]
        self._epoll.unregister(fd)

    # --- the workers' lives

    def _start(self, place: Place) -> None:
        """Start a worker as a process of its own."""
        place.started_at = time.monotonic()
        ours, theirs = channel.pair()
        environ = {name: value for name, value in os.environ.items() if name not in (notify.VARIABLE, "LISTEN_PID")}
        environ[channel.VARIABLE] = str(theirs.fileno())
        admin = [] if self._admin is None or place.number != 1 else [self._admin.fileno()]
        hello = [place.number, len(self._places), os.getpid(), self._started_us, int(self._draining), int(self._id, 16)]
        ours.send(HELLO, hello, admin)
        try:
            # SIGUSR1 waits until the worker can handle it.
            place.pid = os.posix_spawn(self._words[0], self._words, environ, setsigmask=[signal.SIGUSR1])
        except OSError as error:
            ours.close()
            self._ended(place, f"worker {place.number} cannot be started: {error}", EXIT_NOT_FOUND)
            return
        finally:
            theirs.close()
        place.begin(ours)
        self._hear(ours.fileno(), partial(self._listen_to, place, ours))

    def _reap(self) -> None:
        """Learn which processes have ended. The first process of a container has other children besides its workers."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                for place in self._places:
                    if place.pid == ended[0]:
                        code = os.waitstatus_to_exitcode(ended[1])
                        how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
                        self._ended(place, f"worker {place.number} (pid {place.pid}) {how}", code)

    def _ended(self, place: Place, what: str, code: int) -> None:
        """Replace a worker that has ended. While the server starts or stops, end with it."""
        place.pid = 0
        self._hang_up(place)
        if self._stopping:
            if code != -signal.SIGTERM:
                self._code = self._code or _exit_code(code)
        elif not self._ready:
            logger.error("%s; the server stops", what)
            self._code = _exit_code(code) or 1
            self._stop()
        else:
            now = time.monotonic()
            if now - place.started_at >= WELL_AFTER:
                place.pause = 0.0
            # If the worker that died was a replacement, the next one may die as well.
            place.awaited_until = 0.0 if place.pause else now + PATIENCE
            place.pause = min(max(FIRST_PAUSE, 2 * place.pause), LONGEST_PAUSE)
            place.start_at = now + place.pause
            logger.warning("%s; another one starts in %g s", what, place.pause)

    def _hang_up(self, place: Place) -> None:
        """Give a worker no more clients. Give the others none until it is known whether it has died or only stops."""
        if place.up:
            place.up = False
            place.awaited_until = time.monotonic() + DEAD_WITHIN
        if place.channel is not None:
            self._ignore(place.channel.fileno())
            place.channel.close()
            place.channel = None
        for number, question in list(self._questions.items()):
            if question.asker is place:
                del self._questions[number]
            else:
                self._no_more_from(place, number, question)

    def _signal_all(self, number: signal.Signals) -> None:
        for place in self._places:
            # A process that has ended is not reaped yet.
            if place.pid:
                os.kill(place.pid, number)

    def _stop(self) -> None:
        self._stopping = True
        notify.notify("STOPPING=1")
        self._door.close()
        self._signal_all(signal.SIGTERM)

    # --- messages from workers

    def _listen_to(self, place: Place, channel: Channel) -> None:
        while True:
            try:
                message = channel.receive()
            except EOFError:
                # The worker stops, or has died.
                self._hang_up(place)
                return
            if message is None:
                return
            self._hear_out(place, message)
            if place.channel is not channel:
                return

    def _hear_out(self, place: Place, message: Message) -> None:
        if message.kind == UP:
            place.up = True
            if all(other.up for other in self._places):
                self._ready = True
            elif not self._ready and place.number == 1:
                for other in self._places[1:]:
                    self._start(other)
        elif message.kind == READY:
            place.ready = bool(message.numbers[0])
            self._announce()
        elif message.kind == CLIENTS:
            place.heard(*message.numbers)
            self._door.again_at = 0.0
        elif message.kind == COUNT:
            self._asked += 1
            others = {
                other
                for other in self._places
                if other is not place and other.channel is not None and other.channel.send(COUNT, [self._asked])
            }
            until = time.monotonic() + COUNT_WITHIN
            self._questions[self._asked] = Question(place, message.numbers[0], others, until)
            if not others:
                self._answer(self._asked, self._questions[self._asked])
        elif message.kind == COUNTERS:
            number, *counters = message.numbers
            question = self._questions.get(number)
            if question is not None:
                question.answered += 1
                question.total = [sum(two) for two in zip(question.total or [0] * len(counters), counters, strict=True)]
                self._no_more_from(place, number, question)

    def _announce(self) -> None:
        """Tell systemd that the server is ready once all workers have a session with the store; until then ask for more time."""
        if self._announced or self._stopping:
            return
        self._announced = all(place.ready for place in self._places)
        if self._announced:
            notify.notify("READY=1")
        else:
            notify.ask_for_patience()

    def _no_more_from(self, place: Place, number: int, question: Question) -> None:
        question.others.discard(place)
        if not question.others:
            self._answer(number, question)

    def _answer(self, number: int, question: Question) -> None:
        del self._questions[number]
        if question.asker.channel is not None:
            question.asker.channel.send(TOTAL, [question.asker_number, question.answered, *question.total])


def _empty(pipe: int) -> None:
    with suppress(BlockingIOError):
        while len(os.read(pipe, WAKE_BYTES)) == WAKE_BYTES:
            pass


def _exit_code(code: int) -> int:
    """Return a process's exit code as a shell reports it."""
    return EXIT_SIGNALLED - code if code < 0 else code
