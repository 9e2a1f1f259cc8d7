"""Expressions that are compiled once, with places for what differs. To compile one takes as long as half a write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aerospike_helpers.expressions import base as exp

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["NUMBER", "Template", "both", "numbered"]

# An expression before or after it is compiled, and one that is compiled: a list of parts (see aerospike_helpers).
Condition = Any
Compiled = list[Any]

# Stands for a record's number in a template.
NUMBER: Final = -(1 << 62)
# How an expression begins, and ends, that holds where two others do.
_both: Compiled = exp.And(exp.IntBin("a"), exp.IntBin("b")).compile()
BEGIN: Final = _both[0]
END: Final = _both[-1]


class Template:
    """A compiled expression with places for a number.

    Args:
        expression: The expression, with NUMBER in those places.
    """

    def __init__(self, expression: Any) -> None:
        self._compiled: Compiled = expression.compile()
        self._places: list[int] = [at for at, part in enumerate(self._compiled) if part[2] == {"val": NUMBER}]

    def of(self, number: int) -> Compiled:
        """Return the expression for a number."""
        made = self._compiled[:]
        for at in self._places:
            code, kind, _, operands = made[at]
            made[at] = (code, kind, {"val": number}, operands)
        return made

    def within(self, context: Sequence[Any]) -> Compiled:
        """Return the expression with its outermost operation in another context."""
        code, kind, fixed, operands = self._compiled[0]
        return [(code, kind, {**fixed, "ctx": context}, operands), *self._compiled[1:]]


def both(first: Compiled | None, second: Condition) -> Compiled:
    """Return a compiled expression that holds where both do. There may be no first one."""
    return compiled(second) if first is None else [BEGIN, *first, *compiled(second), END]


def compiled(condition: Condition) -> Compiled:
    """Return an expression that is compiled already, or compile it."""
    made: Compiled = condition if isinstance(condition, list) else condition.compile()
    return made


def numbered(number: int) -> Any:
    """Return an expression: the record has this number."""
    return exp.Eq(exp.IntBin("no"), number)
