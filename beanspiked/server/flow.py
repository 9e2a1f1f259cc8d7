"""The flow of one connection: when its commands are executed, and when it ends."""

import logging
from collections import deque
from typing import Final

from beanspiked.engine.contract import Answer
from beanspiked.engine.later import Later
from beanspiked.protocol import commands as verbs
from beanspiked.protocol import replies
from beanspiked.protocol.commands import VERB_COUNT, Command
from beanspiked.protocol.parser import Parser
from beanspiked.server.broker import UNWATCHED, Broker
from beanspiked.server.contract import TurnTaker
from beanspiked.server.gate import CHANGE, CLOSED, LOOK, OPEN, OWN_CHANGES, QUIT, RESERVING, Gate
from beanspiked.server.reply_queue import WRITE_CHUNK, Sink
from beanspiked.server.session import Session

__all__ = ["Flow"]

logger = logging.getLogger(__name__)

# How much is read ahead while a command waits, in bytes.
READ_AHEAD: Final = 65536
# How many reserves of one connection one take may serve.
RESERVES_AT_ONCE: Final = 1000
# How many `stats-tube` of one connection a shared engine may look for together.
LOOKS_AT_ONCE: Final = 100

# Commands whose replies do not depend on the connection's own earlier changes. All others wait until these are committed.
BLIND: Final = [
    verb
    in (
        verbs.PUT,
        verbs.BODY,
        verbs.PUT_TOO_BIG,
        verbs.DELETE,
        verbs.RELEASE,
        verbs.BURY,
        verbs.TOUCH,
        verbs.USE,
        verbs.WATCH,
        verbs.IGNORE,
        verbs.LIST_TUBE_USED,
        verbs.QUIT,
        verbs.REFUSED,
    )
    for verb in range(VERB_COUNT)
]
# Commands with the id of a job, which may have a change on its way.
BY_ID: Final = [
    verb
    in (
        verbs.DELETE,
        verbs.RELEASE,
        verbs.BURY,
        verbs.TOUCH,
        verbs.PEEK,
        verbs.STATS_JOB,
        verbs.KICK_JOB,
        verbs.RESERVE_JOB,
    )
    for verb in range(VERB_COUNT)
]
# The verb under which a command's time is counted; -1 for commands without a reply of their own, and for lines that are no command.
TIMED: Final = [verbs.PUT if verb == verbs.BODY else verb if verb < verbs.QUIT else -1 for verb in range(VERB_COUNT)]


class Flow(TurnTaker):
    """Passes a connection's commands to its session, one by one, while the gate is open.

    Args:
        broker: The broker of all connections.
        sink: Takes the replies.

    Attributes:
        parser: Makes commands from the client's bytes.
        gate: Says why the next command waits.
        session: Executes the commands.
    """

    def __init__(self, broker: Broker, sink: Sink) -> None:
        self.parser: Parser = Parser(broker.max_job_size, broker.lenient_eol)
        self.gate: Gate = Gate(broker, self)
        self.session: Session = Session(self.gate, sink)
        self._broker = broker
        self._engine = broker.engine
        self._out = self.session.out
        self._reserve = self.session.reserve
        # The next command, which the parser has returned already.
        self._next: Command | None = None
        # The commands directly after the next one whose looks are on their way, and the command after these. Empty without a next one.
        self._looked: deque[tuple[Command, Answer]] = deque()
        self._after: Command | None = None
        self._eof: bool = False
        self._stopping: bool = False
        self._reading_paused: bool = False
        broker.connections += 1
        broker.total_connections += 1

    # --- calls by the connection

    def receive(self, data: bytes) -> None:
        """Take bytes from the client and execute their commands as far as possible."""
        if self.gate.why >= QUIT:
            return
        self.parser.feed(data)
        if not self.gate.queued:
            self.run()

    def receive_eof(self) -> None:
        """Learn that the client sends no more. End a waiting reserve, and close the connection once all commands are answered."""
        self._eof = True
        self.end_waiting()
        self.run()

    def end_waiting(self) -> None:
        """Learn that the client has closed its side, perhaps before its last bytes are read. End a waiting reserve."""
        self._reserve.hang_up()

    def choke(self) -> None:
        """Learn that the client does not read. Execute nothing more for now."""
        self._out.choked = True

    def unchoke(self) -> None:
        """Learn that the client has read its replies."""
        self._out.choked = False
        self.gate.wake()

    def backlog(self) -> bool:
        """Tell whether received commands are about to run, so that no more need to be read now."""
        return self.gate.queued and self.parser.buffered > 0

    # --- commands

    def run(self) -> None:
        """Execute received commands until one has to wait or the connection has had its share of the turn."""
        gate = self.gate
        gate.queued = False
        if gate.why == CLOSED:
            return
        parser = self.parser
        broker = self._broker
        out = self._out
        session = self.session
        # A read of the clock takes a part of a command's time, so this reads it only now and then.
        unwatched = UNWATCHED
        until = 0.0
        blocked = gate.why != OPEN or out.full()
        if self._reserve.left and not blocked:
            self._reserve.go_on()
            blocked = gate.why != OPEN or out.full()
        while not blocked:
            command = self._next
            if command is None:
                command = parser.next()
                if command is None:
                    break
            else:
                self._next = None
            if not (self._engine.durable or out.unsettled) or not self._must_wait(command):
                self._do(command, None)
            if out.size > WRITE_CHUNK:
                out.flush()
            blocked = gate.why != OPEN or out.full()
            unwatched -= 1
            if session.cost:
                unwatched -= session.cost
                session.cost = 0
            if unwatched <= 0:
                unwatched = UNWATCHED
                now = broker.now()
                if until == 0.0:
                    until = now + broker.share
                elif now >= until and not blocked:
                    gate.queued = True
                    broker.next_turn.append(self)
                    blocked = True
        if gate.why == QUIT:
            self._forget_input()
        elif gate.why == RESERVING and self._next is None and self._reserve.seeking():
            self._read_reserves()
        if blocked != self._reading_paused and (not blocked or parser.buffered > READ_AHEAD):
            self._reading_paused = blocked
            if blocked:
                out.sink.pause_reading()
            else:
                out.sink.resume_reading()
        ends = gate.why == QUIT or self._eof or self._stopping
        waits = self._next is not None or parser.buffered or self._reserve.left
        gate.at_rest = not (ends or waits or self._reading_paused)
        done = ends and (gate.why == QUIT or (self._eof and not blocked) or (self._stopping and self._idle()))
        if done and out.all_known() and gate.why != CLOSED:
            self._finish()

    def _read_reserves(self) -> None:
        """Count the reserves directly after the one in progress. One take may serve them all."""
        while self._reserve.wants < RESERVES_AT_ONCE:
            command = self.parser.next()
            if command is None:
                return
            if command.verb != verbs.RESERVE:
                self._next = command
                return
            self._reserve.wants += 1
            self._reserve.since = self._broker.now() if self._broker.noting else 0.0

    def _do(self, command: Command, answer: Answer | None) -> None:
        self._broker.commands[command.verb] += 1
        if self._broker.noting:
            self._do_noted(command, answer)
        else:
            self.session.do(command, answer)

    def _do_noted(self, command: Command, answer: Answer | None) -> None:
        """Execute a command, and log or measure it."""
        broker = self._broker
        if broker.tracing:
            self._out.sink.trace_command(command.verb)
        verb = TIMED[command.verb]
        if verb < 0 or not broker.sampled():
            self.session.do(command, answer)
            return
        began = command.since or broker.now()
        self.session.do(command, answer)
        if self.gate.why == RESERVING:
            self._reserve.time(verb, began)
        elif self.session.upload is None:
            # A put whose body is still on its way has no reply yet.
            self._out.time(verb, began)

    def _must_wait(self, command: Command) -> bool:
        """Tell whether a command has to wait for something that decides its reply. It then becomes the next command again."""
        verb = command.verb
        if self._out.unsettled and not BLIND[verb]:
            self._hold(command, OWN_CHANGES)
            return True
        if BY_ID[verb]:
            change = self._engine.in_flight(command.id)
            if change is not None:
                self._wait_for(change, command, CHANGE, None)
                return True
        if self._engine.shared:
            look = self._look_ahead(command) if verb == verbs.STATS_TUBE else self.session.look(command)
            if look is not None:
                self._wait_for(look, command, LOOK, look)
                return True
        return False

    def _look_ahead(self, command: Command) -> Answer:
        """Look at a tube, and at those of the commands directly after it that look at tubes as well."""
        commands = [command]
        while len(commands) < LOOKS_AT_ONCE and self._after is None:
            following = self.parser.next()
            if following is None:
                break
            if following.verb != verbs.STATS_TUBE:
                self._after = following
                break
            following.since = self._broker.now() if self._broker.noting else 0.0
            commands.append(following)
        looks = self._engine.look_some([one.name for one in commands])
        self._looked.extend([(commands[at], looks[at]) for at in range(1, len(commands))])
        return looks[0]

    def _wait_for(self, later: Later, command: Command, why: int, answer: Answer | None) -> None:
        self._hold(command, why)
        self.gate.when(later, lambda outcome: self._known(command, why, outcome, answer))

    def _hold(self, command: Command, why: int) -> None:
        """Let a command wait, as the next command."""
        self._next = command
        self.gate.why = why
        if self._broker.noting and not command.since:
            command.since = self._broker.now()

    def _known(self, command: Command, why: int, outcome: Later, answer: Answer | None) -> None:
        """Go on with a command that has waited for the change of a job, or for a look."""
        if self._next is not command or self.gate.why != why:
            return
        self.gate.why = OPEN
        if why == LOOK or (outcome.error is not None and self._engine.shared):
            self._next = None
            self._answer(command, outcome, answer)
            self._answer_looked()
        self.gate.wake()

    def _answer(self, command: Command, outcome: Later, answer: Answer | None) -> None:
        if outcome.error is not None:
            self._broker.failures.count(outcome.error)
            self._out.add(replies.INTERNAL_ERROR)
        else:
            self._do(command, answer)

    def _answer_looked(self) -> None:
        """Answer the following commands whose tubes were looked at together with the first, up to one whose look is not done."""
        while self._looked:
            command, look = self._looked.popleft()
            if not look.done:
                self._wait_for(look, command, LOOK, look)
                return
            self._answer(command, look, look)
        self._next, self._after = self._after, None

    # --- replies

    def flush(self) -> None:
        """Send the replies that are known."""
        self._out.flush()

    def is_settled(self) -> bool:
        """Tell whether no change of the connection is on its way to the store."""
        return not self._out.unsettled

    # --- the end

    def _idle(self) -> bool:
        """Tell whether the connection holds no job and has no command in progress, so that a stop need not wait for it."""
        return not len(self.session.holds) and not self._out.unsettled and self._next is None

    def stop(self) -> None:
        """Learn that the server stops. End a waiting reserve without a reply, and close once no job is held."""
        self._stopping = True
        self.gate.at_rest = False
        if self.gate.why == RESERVING or self._idle():
            self._finish()

    def end(self) -> None:
        """Execute nothing more and give held jobs back. Close when the replies to all changes have left."""
        if self.gate.why != CLOSED:
            self._reserve.stop()
            self.gate.why = QUIT
            self.session.holds.give_back()
            self.run()

    def fail(self, error: Exception) -> None:
        """End this connection after a bug."""
        logger.error("internal error: a connection is closed", exc_info=error)
        sink = self._out.sink
        try:
            self.close()
            sink.write(replies.INTERNAL_ERROR)
        except Exception as worse:
            logger.error("internal error: the client of a closed connection gets no reply", exc_info=worse)
        sink.close()

    def _finish(self) -> None:
        """Send the known replies, give everything back and close."""
        self.flush()
        sink = self._out.sink
        self.close()
        sink.close()

    def close(self) -> None:
        """Learn that the connection is gone. Give back its jobs and leave its tubes."""
        if self.gate.why != CLOSED:
            self._reserve.stop()
            self.gate.close()
            self._broker.connections -= 1
            self._forget_input()
            self.session.close()

    def _forget_input(self) -> None:
        """Drop the received commands that have not run."""
        self._next = self._after = None
        self._looked.clear()
        self.parser.clear()
