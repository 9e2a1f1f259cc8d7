"""Output for people (tables, colours, progress, bodies) and JSON for scripts."""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
import time
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Progress",
    "body_fields",
    "discard",
    "plural",
    "print_json",
    "print_table",
    "say",
    "shown",
    "shown_body",
    "shown_time",
]

BOLD: Final = "1"
RED: Final = "31"
YELLOW: Final = "33"
# How often progress is shown, in seconds.
EVERY: Final = 0.2


def shown(value: object) -> str:
    """Return a value as one line that cannot control a terminal, since a server chooses the names."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(value))


def say(message: object) -> None:
    """Print a message that is not a result to standard error, which may be closed."""
    try:
        print(f"beanspiked: {shown(message)}", file=sys.stderr, flush=True)
    except OSError:
        # No other place takes the message; the exit code tells.
        discard(2)


def discard(descriptor: int) -> None:
    """Drop what is printed to a descriptor from now on. Otherwise Python would fail again as it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def coloured() -> bool:
    """Tell whether the output is a terminal that shows colours, and whether they are wanted (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, style: str) -> str:
    """Colour a text if the terminal shows colours."""
    return f"\x1b[{style}m{text}\x1b[0m" if style and coloured() else text


def print_json(value: object) -> None:
    """Print a value for scripts."""
    print(json.dumps(value, ensure_ascii=sys.stdout.encoding.lower() != "utf-8"))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str | int]], styles: dict[str, str] | None = None) -> None:
    """Print rows in columns: numbers to the right, the rest to the left; `styles` colour numbers other than 0."""
    texts = [[shown(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *texts, strict=True)]
    right = [bool(rows) and isinstance(cell, int) for cell in (rows[0] if rows else head)]

    def line(cells: Sequence[str], paints: Sequence[str]) -> str:
        padded = [
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(cells, widths, right, strict=True)
        ]
        return "  ".join(paint(text, style) for text, style in zip(padded, paints, strict=True)).rstrip()

    print(line(head, [BOLD] * len(head)))
    for text, row in zip(texts, rows, strict=True):
        print(line(text, [(styles or {}).get(name, "") if cell else "" for name, cell in zip(head, row, strict=True)]))


def shown_time(seconds: int) -> str:
    """Return a time for people: its two largest units."""
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= size:
            parts.append(f"{seconds // size}{unit}")
            seconds %= size
    return " ".join(parts[:2]) or "0s"


def plural(count: int, noun: str = "job") -> str:
    """Return a count with its noun."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def shown_body(body: bytes) -> str:
    """Return a body so that it cannot control a terminal."""
    text = body.decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() or letter in "\n\t" else ascii(letter)[1:-1] for letter in text)


def body_fields(body: bytes) -> dict[str, str]:
    """Return a body for JSON: as text, or in base64 if it is not text."""
    try:
        return {"body": body.decode("utf-8")}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode("ascii")}


class Progress:
    """A progress line on a terminal's standard error, cleared at the end. Elsewhere it prints nothing."""

    def __init__(self, what: str, total: int | None = None) -> None:
        self._what = what
        self._total = total
        self._shown = sys.stderr.isatty()
        self._next = time.monotonic() + EVERY

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._write("")

    def show(self, done: int) -> None:
        """Show how many are done."""
        if not self._shown or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY
        bar = ""
        if self._total:
            part = min(1.0, done / self._total)
            bar = f" of {self._total:,}  [{'#' * round(part * 20):<20}] {part:.0%}"
        self._write(f"{self._what}: {done:,}{bar}")

    def _write(self, text: str) -> None:
        columns = shutil.get_terminal_size().columns
        print(f"\r\x1b[K{text[: columns - 1]}", end="", file=sys.stderr, flush=True)
