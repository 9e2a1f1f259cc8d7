"""Makes operations of a simulated cluster fail on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from beanspiked.engine.aerospike.store.seam import Busy

if TYPE_CHECKING:
    from collections.abc import Callable

    from world import World

    from beanspiked.engine.aerospike.store.seam import StoreError


def always(error: Exception) -> Callable[..., Any]:
    """Make an operation that only fails."""

    def fail(*_: object) -> Any:
        raise error

    return fail


def for_segment(number: int, operation: Callable[..., Any], error: StoreError) -> Callable[..., Any]:
    """Let an operation fail for one segment."""

    def maybe(of: int, *arguments: Any) -> Any:
        if of == number:
            raise error
        return operation(of, *arguments)

    return maybe


def busy_for(here: World, seconds: float, operation: Callable[..., Any]) -> Callable[..., Any]:
    """Let an operation find its record busy for some time."""
    free_at = here.time + seconds

    def busy(*arguments: Any) -> Any:
        if here.time < free_at:
            raise Busy("14: key busy")
        return operation(*arguments)

    return busy


def any_failure(operation: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """Raise a bug in the front-end as well, since the simulation would stop at it."""
    try:
        return operation(), None
    except Exception as error:  # noqa: BLE001 - any bug
        return None, error
