"""Marks of tests that kill simulated front-ends."""

from __future__ import annotations

import pytest

__all__ = ["KILLS"]

# A front-end that is killed leaves its coroutines where they stood, as a process does. They are dropped before another module's tests run,
# which do not expect Python's warnings about them.
KILLS = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.usefixtures("what_was_killed_goes", "what_was_logged_goes"),
]
