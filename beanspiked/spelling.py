"""Suggestions for misspelt words."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["meant"]


def meant(word: str, words: Iterable[str]) -> str:
    """Return a question that suggests the nearest of the words, to follow an error; empty when none is near."""
    near = difflib.get_close_matches(word, list(words), 1)
    return f" (do you mean {near[0]}?)" if near else ""
