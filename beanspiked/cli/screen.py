"""The screen of `beanspiked top`: a server's tubes as a table in colour. Needs rich."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from beanspiked.cli.command import number_of
from beanspiked.cli.terminal import shown, shown_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from beanspiked.client.documents import Stats

__all__ = ["Row", "Screen"]

# The lines of the header, the table's head and the footer.
OTHER_LINES: Final = 6
PLAIN_WIDTH: Final = 160
HELP: Final = "up/down choose  s sort  r reverse  p pause  k kick one  K kick all  q quit"
STYLES: Final = {"reserved": "cyan", "delayed": "blue", "buried": "red", "paused": "yellow"}


@dataclass(frozen=True, slots=True)
class Row:
    """A tube's figures; rates are in jobs a second."""

    name: str
    ready: int
    reserved: int
    delayed: int
    buried: int
    waiting: int
    puts: float
    deletes: float
    paused: int


# The columns by which the user can sort, in their order.
COLUMNS: Final = ("name", "ready", "reserved", "delayed", "buried", "waiting", "puts", "deletes", "paused")


class Screen:
    """The screen's content.

    Attributes:
        said: The effect of the last key.
        reversed: Whether the order is reversed.
    """

    def __init__(self, address: str, console: Console | None = None) -> None:
        self.said = ""
        self.reversed = False
        self._address = address
        # A pipe or a file gets the table in its full width.
        self._console = console or Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
        self._sort = "ready"
        self._rows: list[Row] = []
        self._server: Stats = {}
        self._name = ""
        # The time of the last figures, and how many jobs were put into each tube and deleted from it until then.
        self._seen_at = 0.0
        self._totals: dict[str, tuple[int, int]] = {}

    def update(self, now: float, server: Stats, found: Sequence[Stats]) -> None:
        """Take the figures of a moment, in seconds."""
        passed = now - self._seen_at
        before, self._totals = self._totals, {}
        self._seen_at, self._server, self._rows = now, server, []
        for told in found:
            name = str(told["name"])
            total = (number_of(told, "total-jobs"), number_of(told, "cmd-delete"))
            self._totals[name] = total
            # A tube that was gone in between counts from 0 again.
            puts, deletes = (max(0, new - old) for new, old in zip(total, before.get(name, total), strict=True))
            self._rows.append(
                Row(
                    name,
                    number_of(told, "current-jobs-ready"),
                    number_of(told, "current-jobs-reserved"),
                    number_of(told, "current-jobs-delayed"),
                    number_of(told, "current-jobs-buried"),
                    number_of(told, "current-waiting"),
                    puts / passed,
                    deletes / passed,
                    number_of(told, "pause-time-left"),
                )
            )

    @property
    def rows(self) -> list[Row]:
        """The tubes in order. By a number, the largest comes first."""
        by_name = sorted(self._rows, key=lambda row: row.name)
        if self._sort == "name":
            return by_name[::-1] if self.reversed else by_name
        return sorted(by_name, key=lambda row: getattr(row, self._sort), reverse=not self.reversed)

    @property
    def chosen(self) -> Row | None:
        """The tube on which keys act, or None."""
        rows = self.rows
        return next((row for row in rows if row.name == self._name), rows[0] if rows else None)

    def choose(self, step: int) -> None:
        """Go up or down."""
        rows = self.rows
        if (chosen := self.chosen) is not None:
            self._name = rows[max(0, min(len(rows) - 1, rows.index(chosen) + step))].name

    def sort_by_next(self) -> None:
        """Sort by the next column."""
        self._sort = COLUMNS[(COLUMNS.index(self._sort) + 1) % len(COLUMNS)]

    @property
    def redraws(self) -> bool:
        """Whether the output is a terminal that can show the screen again and again; one with TERM=dumb stays empty."""
        return sys.stdout.isatty() and not self._console.is_dumb_terminal

    def live(self) -> Live:
        """Return a display that shows the screen and updates it."""
        return Live(console=self._console, screen=True, auto_refresh=False)

    def print(self) -> None:
        """Print all tubes once."""
        self._console.print(self._head(), self._table(self.rows, None))

    def render(self) -> RenderableType:
        """Return the screen: as many tubes as fit, the chosen one among them."""
        rows, chosen = self.rows, self.chosen
        room = max(1, self._console.height - OTHER_LINES)
        place = rows.index(chosen) if chosen is not None else 0
        first = max(0, min(place - room // 2, len(rows) - room))
        table = self._table(rows[first : first + room], chosen)
        more = f"{len(rows)} tubes" if len(rows) > room else ""
        return Group(
            self._head(),
            table,
            Text(f"{shown(self.said or more)}\n", style="bold"),
            Text(HELP, style="dim", no_wrap=True),
        )

    def _head(self) -> Text:
        server = self._server
        counts = "  ".join(
            f"{state} {number_of(server, f'current-jobs-{state}'):,}"
            for state in ("ready", "reserved", "delayed", "buried")
        )
        up = shown_time(number_of(server, "uptime"))
        draining = "  DRAINING" if server.get("draining") else ""
        return Text(
            f"{self._address}  up {up}  {number_of(server, 'current-connections'):,} connections  {counts}{draining}\n",
            style="bold",
            no_wrap=True,
            overflow="ellipsis",
        )

    def _table(self, rows: Sequence[Row], chosen: Row | None) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in COLUMNS:
            title = {"name": "tube", "puts": "puts/s", "deletes": "deletes/s"}.get(name, name)
            mark = ("^" if self.reversed else "v") if name == self._sort else ""
            table.add_column(title + mark, justify="left" if name == "name" else "right", no_wrap=True)
        for row in rows:
            cells = [Text(shown(row.name))]
            for name in COLUMNS[1:]:
                value: int | float = getattr(row, name)
                text = shown_time(int(value)) if name == "paused" and value else f"{value:,.0f}"
                cells.append(
                    Text("" if name == "paused" and not value else text, style=STYLES.get(name, "") if value else "dim")
                )
            table.add_row(*cells, style="reverse" if row is chosen else "")
        return table
