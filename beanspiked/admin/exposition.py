"""Prometheus's text format. It is joined from pieces, which is quick, and in slices if a family is long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from beanspiked.engine.histogram import Histogram

__all__ = ["CONTENT_TYPE", "Family", "by", "counter", "gauge", "histogram", "labels"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# The characters that a label's value must escape.
ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


def labels(**values: str) -> str:
    """Return labels as they stand behind a metric's name."""
    return "{" + ",".join(f'{name}="{value.translate(ESCAPES)}"' for name, value in values.items()) + "}"


class Family:
    """The samples of one metric.

    Args:
        kind: gauge, counter or histogram.
        name: Its name.
        text: Its help text.

    Attributes:
        lines: The text, in pieces.
    """

    __slots__ = ("lines", "name")

    def __init__(self, kind: str, name: str, text: str) -> None:
        self.name = name
        self.lines = [f"# HELP {name} {text}\n# TYPE {name} {kind}\n"]

    def add(self, value: float, labelled: str = "", suffix: str = "") -> None:
        """Add a sample."""
        self.lines.append(f"{self.name}{suffix}{labelled} {value}\n")

    def add_histogram(self, measured: Histogram, **values: str) -> None:
        """Add the samples of a histogram with these labels."""
        total = 0
        for bound, count in zip((*map(str, measured.bounds), "+Inf"), measured.counts, strict=True):
            total += count
            self.add(total, labels(**values, le=bound), "_bucket")
        behind = labels(**values) if values else ""
        self.add(total, behind, "_count")
        self.add(measured.total, behind, "_sum")


def gauge(name: str, text: str, value: float | None = None) -> Family:
    """Make the family of a value that goes up and down. Without a value, it gets samples with labels later."""
    family = Family("gauge", name, text)
    if value is not None:
        family.add(float(value))
    return family


def counter(name: str, text: str, value: float | None = None) -> Family:
    """Make the family of a value that only goes up. Its name gets `_total`."""
    family = Family("counter", f"{name}_total", text)
    if value is not None:
        family.add(value)
    return family


def histogram(name: str, text: str, measured: Histogram) -> Family:
    """Make the family of one histogram."""
    family = Family("histogram", name, text)
    family.add_histogram(measured)
    return family


def by(family: Family, label: str, values: Iterable[tuple[str, float]]) -> Family:
    """Add a sample for each value of a label; return the family."""
    for value, figure in values:
        family.add(figure, labels(**{label: value}))
    return family
