"""Starts a server whose jobs live in a shared store of its own: `shared_server.py memory|aerospike://HOST:PORT/NAMESPACE [FLAGS]`.

In memory the store is that of the simulation. In Aerospike it has sets of its own. With `-b` the server is an ordinary one.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from beanspiked.engine.aerospike.engine import SharedEngine
    from beanspiked.engine.contract import ReadyListener
    from beanspiked.engine.timers import Timers
    from beanspiked.ops.url import StoreAddress


def start_in_memory(
    address: StoreAddress,  # noqa: ARG001 - as the function that it replaces
    timers: Timers,
    listener: ReadyListener,
    turn: Callable[[], None],
    max_job_size: int,  # noqa: ARG001 - likewise
) -> SharedEngine:
    from memory import Cluster, MemoryStore

    from beanspiked.engine.aerospike.engine import SharedEngine

    store = MemoryStore(Cluster(lambda: round(time.time() * 1000)))
    engine = SharedEngine(timers, listener, store, turn, time.monotonic)
    engine.start()
    return engine


def main() -> int:
    store, *words = sys.argv[1:]
    if not any(word.startswith(("-b", "--store", "--journal")) for word in words) and not os.environ.get(
        "BEANSPIKED_JOURNAL"
    ):
        if store == "memory":
            from beanspiked.engine.aerospike import start

            start.start = start_in_memory
            store = "aerospike://127.0.0.1/memory"
        words += ["--store", f"{store}?prefix=t{uuid.uuid4().hex[:8]}_"]
    from beanspiked.cli import main as serve

    return serve(words)


if __name__ == "__main__":
    sys.exit(main())
