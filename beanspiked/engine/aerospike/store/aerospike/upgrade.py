"""Takes over a cluster of the version before: moves its directories into shards.

That version has a record for each tube, the names of the tubes in 64 lists, and a counter that numbers segments. Its front-ends would not
see what this version writes. So none of them may live. The upgrade makes the counter useless to later ones: puts through them fail, and
nothing is lost. Several front-ends may upgrade a cluster at once, and may be interrupted and do it again. None joins before it is done.
"""

from __future__ import annotations

import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import aerospike
from aerospike_helpers.operations import map_operations, operations

from beanspiked.engine.aerospike.store.aerospike.calls import REMOVE_POLICY, SORTED
from beanspiked.engine.aerospike.store.aerospike.directories import Directories
from beanspiked.engine.aerospike.store.aerospike.sessions import Sessions
from beanspiked.engine.aerospike.store.entries import ITEM_COUNTER, former_directory, former_names, item
from beanspiked.engine.aerospike.store.formats import SetAside
from beanspiked.engine.aerospike.store.keys import RING_MAX
from beanspiked.engine.aerospike.store.lister import Lister
from beanspiked.engine.aerospike.store.seam import Damaged, Fenced
from beanspiked.engine.errors import StoreUnusable

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.directory import Directory

__all__ = ["Former", "take_over"]

logger = logging.getLogger(__name__)

TUBE_LISTS: Final = 64
# A session that is silent for longer may be declared dead, in ms.
DEAD_AFTER_MS: Final = 10_000
# Stands in the counter of segments instead of a number, so that front-ends of the version before cannot add to it.
CLOSED_COUNTER: Final = "directories are in shards: use the newer version"
# A repeated upgrade leaves counters alone that an earlier one has moved.
ONCE: Final = {
    **SORTED,
    "map_write_flags": aerospike.MAP_WRITE_FLAGS_CREATE_ONLY | aerospike.MAP_WRITE_FLAGS_NO_FAIL,
}


class Former(Sessions, Directories):
    """The sessions and directories of a cluster that the version before has written to."""


async def take_over(store: Former) -> None:
    """Move the directories of the version before, unless that was done.

    Raises:
        StoreUnusable: A front-end of that version lives, or it has used too many numbers.
        StoreError: The cluster does not answer.
    """
    if await _moved(store):
        return
    # Also where there are no tubes: a front-end may have numbers for segments left, which the closed counter would not keep from it.
    if not await _nobody_lives(store):
        return
    names = await _former_names(store)
    await _close_counter(store)
    if names:
        logger.info("moving the directories of %d tubes into shards", len(names))
    lister = Lister(store)
    over = [_list_key(store, part) for part in range(TUBE_LISTS)]
    for name in names:
        record = await _former_directory(store, name)
        if record is not None:
            await _move(store, lister, name, record)
            over.append(store.key("dir", name))
    await store.change(store.key("ctl", "shards"), [operations.write("moved", 1)])
    # A node that restarts may bring removed records back. No front-end reads them any more.
    for key in over:
        with contextlib.suppress(Fenced):
            await store.caller.call(partial(store.caller.client.remove, key, policy=REMOVE_POLICY))


async def _moved(store: Former) -> bool:
    await store.secret()
    bins = await store.get(store.key("ctl", "shards"))
    return bins is not None and bins.get("moved") == 1


def _list_key(store: Former, part: int) -> Any:
    return store.key("ctl", f"tubes-{part}")


async def _former_names(store: Former) -> list[str]:
    keys = [_list_key(store, part) for part in range(TUBE_LISTS)]
    found = await store.caller.read_many(keys, [operations.read("names")])
    names: list[str] = []
    for part, bins in enumerate(found):
        if bins is not None:
            names += SetAside().read(f"list {part} of tubes", partial(former_names, bins)) or ()
    return sorted(names)


async def _nobody_lives(store: Former) -> bool:
    """Tell whether there is still something to move. Raises StoreUnusable while a front-end of the version before lives."""
    for session in await store.sessions():
        if session.dead:
            continue
        if session.silent_ms > DEAD_AFTER_MS and await store.kill(session.number, DEAD_AFTER_MS):
            continue
        if await _moved(store):
            # Another front-end has meanwhile moved everything and joined.
            return False
        raise StoreUnusable(
            f"session {session.number} is a front-end of an older version, which cannot share tubes with this one: "
            "stop all of those first"
        )
    return True


async def _close_counter(store: Former) -> None:
    """Keep front-ends of the version before from making segments. Raises StoreUnusable if its numbers are too high."""
    key = store.key("ctl", "counter-segment")
    bins = await store.get(key)
    last = 0 if bins is None else bins.get("last")
    if isinstance(last, int) and last >= RING_MAX:
        raise StoreUnusable(
            f"{last} segments were numbered here, and at {RING_MAX} this version's numbers begin: "
            "drain the tubes with the older version and use another prefix"
        )
    if last != CLOSED_COUNTER:
        await store.make(key, [operations.write("last", CLOSED_COUNTER)])


async def _former_directory(store: Former, name: str) -> Directory | None:
    bins = await store.get(store.key("dir", name))
    try:
        return None if bins is None else former_directory(bins)
    except Damaged as error:
        logger.error("the directory of tube %s cannot be read, so its jobs are not found: %s", name, error)
        return None


async def _move(store: Former, lister: Lister, name: str, record: Directory) -> None:
    """Enter a record's content in the tube's entry, except the items that are there already."""
    known = set((await lister.everywhere({name: (await store.directories([name]))[0]}))[name])
    page = 0
    for number in record.segments:
        if number not in known:
            page = await lister.enlist(name, number, page)
    if record.paused_until_ms:
        await store.pause(name, record.pause_ms, record.paused_until_ms)
    ops = [
        map_operations.map_put("items", item(name, ITEM_COUNTER, counter), count, ONCE)
        for counter, count in record.counters.items()
        if count
    ]
    if ops:
        await store.change_entry(name, ops)
