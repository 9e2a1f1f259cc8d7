"""A parent process whose workers are stand-ins, which need no store: `stand_in.py parent FOLDER COUNT [FILES]`.

It listens on the socket `s` in the folder. A worker tells each client its number, its process and whether it drains, and then does what the
client says. How workers behave from their start stands in the folder's file `plan`.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from beanspiked.server import log
from beanspiked.server.channel import CLIENT, CLIENTS, COUNT, COUNTERS, READY, TOTAL, UP, VARIABLE, Channel
from beanspiked.server.notify import notify
from beanspiked.server.parent import Parent

REFUSED = 7


def parent(folder: Path, count: int, files: int) -> int:
    log.start(0)
    if files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(folder / "s"))
    sock.listen(1024)
    sock.setblocking(False)
    program = (folder / "program").read_text() if (folder / "program").exists() else sys.executable
    return Parent([program, __file__, "worker", str(folder)], count, [sock]).run()


class StandIn:
    """A worker."""

    def __init__(self, folder: Path) -> None:
        self.channel = Channel(socket.socket(fileno=int(os.environ[VARIABLE])))
        hello = self.channel.receive()
        assert hello is not None
        self.number = hello.numbers[0]
        self.draining = bool(hello.numbers[4])
        self.clients: dict[int, socket.socket] = {}
        self.asker: socket.socket | None = None
        self.taken = 0
        self.ended = 0
        self.left = False
        self.plan = (folder / "plan").read_text().split() if (folder / "plan").exists() else []

    def drain(self, *_: object) -> None:
        self.draining = True

    def run(self) -> int:
        if "refuse" in self.plan:
            print("stand-in: the store is refused", file=sys.stderr)
            return REFUSED
        signal.signal(signal.SIGUSR1, self.drain)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        signal.signal(signal.SIGTERM, (lambda *_: None) if "stubborn" in self.plan else lambda *_: sys.exit(0))
        # Only its parent is known to a service manager.
        notify("READY=1")
        self.channel.send(UP)
        self.channel.send(READY, [int("apart" not in self.plan)])
        while True:
            heard = [] if self.left else [self.channel.fileno()]
            for fd in select.select([*heard, *self.clients], [], [])[0]:
                if fd in self.clients:
                    self.serve(self.clients[fd])
                    continue
                try:
                    self.hear()
                except EOFError:
                    return 0

    def hear(self) -> None:
        while message := self.channel.receive():
            if message.kind == CLIENT:
                client = socket.socket(fileno=message.descriptors[0])
                self.clients[client.fileno()] = client
                self.taken += 1
                self.channel.send(CLIENTS, [self.taken, self.ended])
                client.sendall(f"{self.number} {os.getpid()} {self.draining}\n".encode())
            elif message.kind == COUNT and "mute" not in self.plan:
                self.channel.send(COUNTERS, [message.numbers[0], self.number, 10])
            elif message.kind == TOTAL and self.asker is not None:
                self.asker.sendall((" ".join(map(str, message.numbers)) + "\n").encode())

    def serve(self, client: socket.socket) -> None:
        word = b""
        with suppress(ConnectionResetError):
            word = client.recv(100)
        if word == b"die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif word == b"leave":
            self.left = True
            self.channel.close()
            client.sendall(b"left\n")
        elif word == b"who":
            client.sendall(f"{self.number} {os.getpid()} {self.draining}\n".encode())
        elif word == b"count":
            self.asker = client
            self.channel.send(COUNT, [5])
        else:
            self.ended += 1
            self.channel.send(CLIENTS, [self.taken, self.ended])
            del self.clients[client.fileno()]
            client.close()


if __name__ == "__main__":
    role, folder, *rest = sys.argv[1:]
    sys.exit(parent(Path(folder), *map(int, rest)) if role == "parent" else StandIn(Path(folder)).run())
