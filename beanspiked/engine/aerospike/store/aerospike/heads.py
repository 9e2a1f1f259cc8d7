"""Reads of segments without their jobs: the head after a change, and looks over many segments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import aerospike
from aerospike_helpers.expressions import base as exp
from aerospike_helpers.expressions import map as exp_map
from aerospike_helpers.operations import expression_operations, map_operations, operations

from beanspiked.engine.aerospike.store import fields
from beanspiked.engine.aerospike.store.keys import ready_key
from beanspiked.engine.aerospike.store.seam import BURIED, DELAYED, HEAD_KEYS, READY, Damaged, Head

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "FEW_READS",
    "FEW_READS_AFTER_TAKE",
    "HEAD_OPS",
    "HEAD_READS",
    "LEASE_READS",
    "LOOK_READS",
    "SIZE_READS",
    "head_of_bins",
    "head_of_few",
    "head_of_results",
]

# A call for a single segment returns each result separately.
HEAD_OPS: Final = [
    map_operations.map_get_by_index_range(READY, 0, HEAD_KEYS, aerospike.MAP_RETURN_KEY),
    map_operations.map_get_by_index_range(READY, -1, 1, aerospike.MAP_RETURN_KEY),
    map_operations.map_get_by_index_range(DELAYED, 0, 1, aerospike.MAP_RETURN_KEY),
    map_operations.map_size(READY),
    map_operations.map_size(DELAYED),
    map_operations.map_size(BURIED),
    operations.read("nheld"),
    operations.read("st"),
]


def head_of_results(results: Sequence[tuple[str, Any]]) -> Head:
    """Decode the results of HEAD_OPS, at the end of an operation's results."""
    return _head(*[value for _, value in results[-len(HEAD_OPS) :]])


def _head(keys: Any, last: Any, due: Any, ready: Any, delayed: Any, buried: Any, held: Any, state: Any) -> Head:
    """Make a head of the answer to a change. Raises Damaged."""
    if type(ready) is not int or type(delayed) is not int or type(buried) is not int:
        raise Damaged("ready, delayed or buried is missing")
    if type(held) is not int:
        raise fields.unexpected("nheld", held)
    if type(state) is not int:
        raise fields.unexpected("st", state)
    fields.keys(READY, keys, ready=True)
    fields.keys(READY, last, ready=True)
    fields.keys(DELAYED, due, ready=False)
    return Head(keys, last[0] if last else None, due[0] if due else None, ready, delayed, buried, held, state)


def _computed(name: str, expression: Any) -> Any:
    """Read an expression's value under a name."""
    return expression_operations.expression_read(name, expression.compile())


def _keys_read(name: str, queue: str, index: int, count: int) -> Any:
    """Read keys of a queue under a name."""
    return _computed(name, exp_map.MapGetByIndexRange(None, aerospike.MAP_RETURN_KEY, index, count, exp.MapBin(queue)))


COUNT_READS: Final = [
    _computed(f"{name}-n", exp_map.MapSize(None, exp.MapBin(name))) for name in (READY, DELAYED, BURIED)
]
# A batch returns one value a name: the last of its bin. So each read has a name of its own; a take's result has the bin of its removal.
HEAD_READS: Final = [
    operations.read("no"),
    operations.read("st"),
    operations.read("nheld"),
    _keys_read("keys", READY, 0, HEAD_KEYS),
    _keys_read("last", READY, -1, 1),
    _keys_read("due", DELAYED, 0, 1),
    *COUNT_READS,
]
# With few jobs their keys tell everything. Expressions cost a thread four times as much as these reads.
FEW_READS: Final = [
    map_operations.map_get_by_index_range(READY, 0, HEAD_KEYS, aerospike.MAP_RETURN_KEY),
    map_operations.map_get_by_index_range(DELAYED, 0, HEAD_KEYS, aerospike.MAP_RETURN_KEY),
    map_operations.map_size(BURIED),
    operations.read("nheld"),
    operations.read("st"),
]
FEW_READS_AFTER_TAKE: Final = [_keys_read("keys", READY, 0, HEAD_KEYS), *FEW_READS[1:]]


def head_of_bins(bins: Mapping[str, Any]) -> Head:
    """Decode the results of HEAD_READS for a segment that is in use here. Raises Damaged."""
    return _head(
        bins["keys"],
        bins["last"],
        bins["due"],
        bins["ready-n"],
        bins["delayed-n"],
        bins["buried-n"],
        bins.get("nheld"),
        bins.get("st"),
    )


def head_of_few(ready: Any, delayed: Any, buried: Any, held: Any, state: Any) -> Head:
    """Make a head of the results of FEW_READS. If there are more jobs than expected, it covers only the first ones. Raises Damaged."""
    if ready is None or delayed is None:
        raise Damaged("ready or delayed is missing")
    return _head(ready, ready[-1:], delayed[:1], len(ready), len(delayed), buried, held, state)


# --- looks over many segments; formats.py decodes them

# A record whose leases are no map refuses to be read so, and is set aside: nobody could take its jobs.
LOOK_READS: Final = [operations.read("f"), *HEAD_READS, map_operations.map_size("held")]
URGENT: Final = exp_map.MapGetByKeyRange(
    None, aerospike.MAP_RETURN_COUNT, ready_key(0, 0, 0), ready_key(1024, 0, 0), exp.MapBin(READY)
)
SIZE_READS: Final = [
    operations.read("f"),
    operations.read("no"),
    operations.read("nheld"),
    operations.read("hwm"),
    _computed("urgent", URGENT),
    _keys_read("first", READY, 0, 1),
    _keys_read("due", DELAYED, 0, 1),
    _keys_read("oldest", BURIED, 0, 1),
    *COUNT_READS,
]
LEASE_KEYS: Final = exp_map.MapGetByIndexRangeToEnd(None, aerospike.MAP_RETURN_KEY, 0, exp.MapBin("held"))
LEASE_READS: Final = [
    *[operations.read(name) for name in ("f", "no", "tube", "own")],
    _computed("leases", LEASE_KEYS),
]
