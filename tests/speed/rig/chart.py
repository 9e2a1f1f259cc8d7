"""Bar charts as SVG. They follow the reader's light or dark colours."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from rig.report import shown

WIDTH = 760
LEFT = 12
BAR = 16
GAP = 4
GROUP_GAP = 14
LABEL = 18
TOP = 64
# The space to the right of the longest bar, for its figure.
FIGURE = 90

STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328; }
.title { font-size: 15px; font-weight: 600; }
.label { fill: #59636e; }
.side0 { fill: #0969da; }
.side1 { fill: #8c959f; }
.side2 { fill: #bf8700; }
.side3 { fill: #1a7f37; }
.side4 { fill: #8250df; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; }
  .label { fill: #9198a1; }
  .side0 { fill: #4493f8; }
  .side1 { fill: #656c76; }
  .side2 { fill: #d29922; }
  .side3 { fill: #3fb950; }
  .side4 { fill: #ab7df8; }
}
"""


@dataclass(frozen=True, slots=True)
class Group:
    """Bars that share a scale.

    Attributes:
        name: The name of their figure.
        values: One for each side.
    """

    name: str
    values: list[float]


def bars(title: str, sides: list[str], groups: list[Group]) -> str:
    """Return a chart of groups of bars. The longest bar of each group has the full width, since groups differ a hundredfold."""
    parts = [_text(LEFT, 22, title, "title")]
    at = LEFT
    for place, side in enumerate(sides):
        parts += [_bar(at, 36, 12, 12, place), _text(at + 18, 47, side)]
        at += 40 + 8 * len(side)
    parts.append(_text(at, 47, "each group has a scale of its own", "label"))
    top = TOP
    for group in groups:
        parts.append(_text(LEFT, top + 12, group.name, "label"))
        top += LABEL
        longest = max(group.values)
        for place, value in enumerate(group.values):
            width = max(1.0, value / longest * (WIDTH - 2 * LEFT - FIGURE))
            parts += [_bar(LEFT, top, width, BAR, place), _text(LEFT + width + 8, top + 13, shown(value))]
            top += BAR + GAP
        top += GROUP_GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>", *parts, "</svg>"]) + "\n"


def _bar(left: float, top: float, width: float, height: float, place: int) -> str:
    return f'<rect x="{left:g}" y="{top:g}" width="{width:.1f}" height="{height:g}" rx="2" class="side{place % 5}"/>'


def _text(left: float, top: float, text: str, kind: str = "") -> str:
    shape = f' class="{kind}"' if kind else ""
    return f'<text x="{left:.1f}" y="{top:g}"{shape}>{escape(text)}</text>'
