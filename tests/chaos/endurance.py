"""Ordinary life on a real Aerospike server for some minutes: reply tubes, backlogs, large jobs, front-ends that are replaced.

At two quiet moments, after the first minute and at the end, it counts the records of each set and what each front-end takes of memory.
Records that have become more, but for those that are known to, fail the run. Each quiet moment takes four minutes: by then dead sessions
are forgotten and tubes let go of.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import greenstalk

if TYPE_CHECKING:
    from collections.abc import Callable

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "shared"))

from asd import HOST, NAMESPACE, Node, connected
from launcher import free_port

from beanspiked.engine.aerospike.store.aerospike.directories import RINGS, SHARDS

QUIET_FOR_S = 240.0
FIRST_S = 60.0
# How often a command is repeated at most, a second after the other.
TRIES = 30
# A front-end is replaced so often, and its session is forgotten two minutes and a half later at most.
REPLACE_EVERY_S = 20.0
AT_MOST = dict.fromkeys(("ses", "news"), 3 + int(150 / REPLACE_EVERY_S) + 1)
# The list of sessions, their counter, two rings, and what salts the shards.
SINGLE = 5
# Records of segments, pages and shards are used again once there are so many: see store/aerospike/directories.py.
AT_MOST |= {"seg": RINGS["segment"], "page": RINGS["page"], "ctl": SHARDS + SINGLE}
NAMESPACE_SETTINGS = """
    replication-factor 1
    nsup-period 0
    default-ttl 0
    storage-engine device {
        file $file
        filesize 1G
        flush-max-ms 1000
        post-write-cache 64M
    }"""


class FrontEnd:
    """One process that serves."""

    def __init__(self, store: str, command: str, log: IO[bytes]) -> None:
        self.port = free_port()
        arguments = [command, "-l", HOST, "-p", str(self.port), "--store", store]
        self._process = subprocess.Popen(arguments, stdout=log, stderr=log)
        # A cluster may take a new front-end longer than it keeps a client waiting.
        until = time.monotonic() + 20
        with self.client("default") as client:
            while True:
                try:
                    client.stats_tube("default")
                except greenstalk.InternalError:
                    if time.monotonic() > until:
                        raise
                else:
                    break

    def client(self, tube: str) -> greenstalk.Client:
        """Connect, as soon as it listens."""
        until = time.monotonic() + 20
        while True:
            try:
                return greenstalk.Client((HOST, self.port), use=tube, watch=[tube], encoding=None)
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def end(self, *, cleanly: bool) -> None:
        """Stop it, or kill it."""
        self._process.send_signal(signal.SIGTERM if cleanly else signal.SIGKILL)
        self._process.wait(30)

    def memory_kb(self) -> int:
        """Return its resident set."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def records(client: Any) -> Counter[str]:
    """Count the records of each set."""
    found: Counter[str] = Counter()
    for _, answer in client.info_all(f"sets/{NAMESPACE}").values():
        for line in str(answer).strip().split(";"):
            fields = dict(field.split("=", 1) for field in line.split(":") if "=" in field)
            if fields.get("set", "").startswith("bsd_"):
                found[fields["set"].removeprefix("bsd_")] += int(fields["objects"])
    return found


class Life:
    """What goes on: through the first front-end jobs are put only, through the second they are taken only."""

    def __init__(self, store: str, command: str, log: IO[bytes], chance: random.Random, pace: float) -> None:
        self.front_ends = [FrontEnd(store, command, log) for _ in range(3)]
        self.used = 0
        self.failed = 0
        self._start = lambda: FrontEnd(store, command, log)
        self._chance = chance
        self._pace = pace

    def live(self, seconds: float, replace_every: float) -> None:
        """Go on for some time."""
        until = time.monotonic() + seconds
        replaced = time.monotonic()
        while (begun := time.monotonic()) < until:
            for _ in range(20):
                self._reply()
            self._through("work", 100, 50)
            self._through("large", 5, 5000)
            self._through("backlog", 300, 900)
            if time.monotonic() - replaced > replace_every:
                replaced = time.monotonic()
                place = self._chance.randrange(3)
                self.front_ends[place].end(cleanly=self._chance.random() < 0.5)
                self.front_ends[place] = self._start()
            time.sleep(max(0.0, begun + self._pace - time.monotonic()))

    def _reply(self) -> None:
        self.used += 1
        asking, answering = self._chance.sample(self.front_ends, 2)
        name = f"reply-{self.used}"
        with asking.client(name) as waiting, answering.client(name) as client:
            self._again(lambda: client.put(b"x"))
            self._take(waiting, 30)

    def _through(self, tube: str, count: int, size: int) -> None:
        with self.front_ends[0].client(tube) as client:
            for number in range(count):
                body, priority = self._chance.randbytes(size), count - number
                self._again(lambda: client.put(body, priority=priority, ttr=20))  # noqa: B023 - called at once
        with self.front_ends[1].client(tube) as client:
            for _ in range(count):
                self._take(client, 60)

    def _take(self, client: greenstalk.Client, seconds: int) -> None:
        job = self._again(lambda: client.reserve(seconds))
        failed = self.failed
        try:
            self._again(lambda: client.delete(job))
        except greenstalk.NotFoundError:
            # It is gone if a try before this one has deleted it.
            if self.failed == failed:
                raise

    def _again(self, command: Callable[[], Any]) -> Any:
        """Repeat a command while the store does not answer, as it may on a starved machine; a put may then be there twice."""
        for _ in range(TRIES):
            try:
                return command()
            except greenstalk.InternalError:
                self.failed += 1
                time.sleep(1)
        return command()

    def measure(self, client: Any) -> tuple[Counter[str], list[int]]:
        """Let everything come to rest, and count."""
        time.sleep(QUIET_FOR_S)
        found = records(client), [front_end.memory_kb() for front_end in self.front_ends]
        print(
            f"{self.used} reply tubes, {self.failed} commands failed: records {dict(found[0])}, front-ends {found[1]} KB",
            flush=True,
        )
        return found


def main() -> int:
    """Run it; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--asd", default="asd", help="the server's program (default: %(default)s)")
    parser.add_argument("--server", default="beanspiked", help="the front-ends' program (default: %(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=2.0, help="how long, quiet moments aside (default: %(default)s)"
    )
    parser.add_argument(
        "--pace",
        type=float,
        default=0.0,
        help="how many seconds a round of the work takes at least (default: %(default)s)",
    )
    parser.add_argument("--seed", default="1", help="decides what happens (default: %(default)s)")
    parser.add_argument("--log", default=os.devnull, help="where the front-ends' logs go (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Path(options.log).open("ab") as log:
        work = Path(folder)
        node = Node(options.asd, work, NAMESPACE_SETTINGS.replace("$file", str(work / "data")))
        host, port = node.address
        front_ends: list[FrontEnd] = []
        try:
            client = connected(node.address)
            life = Life(
                f"aerospike://{host}:{port}/{NAMESPACE}",
                options.server,
                log,
                random.Random(options.seed),
                options.pace,
            )
            front_ends = life.front_ends
            life.live(FIRST_S, REPLACE_EVERY_S)
            first, _ = life.measure(client)
            life.live(max(0.0, options.minutes * 60 - FIRST_S), REPLACE_EVERY_S)
            last, _ = life.measure(client)
            client.close()
        finally:
            for front_end in front_ends:
                front_end.end(cleanly=True)
            node.stop()
    more = {name: (first[name], last[name]) for name in last if last[name] > max(first[name], AT_MOST.get(name, 0))}
    print(f"more than before: {more}" if more else "nothing has become more")
    return 1 if more else 0


if __name__ == "__main__":
    sys.exit(main())
