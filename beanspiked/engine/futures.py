"""Outcomes for programs that await them: futures of what comes later."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from beanspiked.engine.later import Later

__all__ = ["end_of", "seen_by", "value_of"]

Result = TypeVar("Result")


def seen_by(later: Later, loop: asyncio.AbstractEventLoop, read: Callable[[], Result]) -> asyncio.Future[Result]:
    """Return a future of what `read` returns at once when the outcome is known: jobs change after its listeners were told.

    It fails with the outcome's error, or with what `read` raises.
    """
    future: asyncio.Future[Result] = loop.create_future()

    def settled(outcome: Later) -> None:
        if future.done():
            return
        try:
            if outcome.error is not None:
                raise outcome.error
            future.set_result(read())
        except Exception as error:  # noqa: BLE001 - it is raised where the future is awaited
            future.set_exception(error)

    later.then(settled)
    return future


def value_of(later: Later, loop: asyncio.AbstractEventLoop) -> asyncio.Future[int]:
    """Return a future of the outcome's value; it fails with the outcome's error."""
    return seen_by(later, loop, lambda: later.value)


def end_of(later: Later, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
    """Return a future that is done when the outcome is known, whatever it is: another call reports it."""
    future: asyncio.Future[None] = loop.create_future()
    later.then(lambda _: None if future.done() else future.set_result(None))
    return future
