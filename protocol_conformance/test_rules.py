"""The suite about itself: every rule has a test or a reason, and the README tells it. Needs no server."""

from __future__ import annotations

from . import make_table


def test_every_rule_has_a_test_or_a_reason_and_every_test_a_rule() -> None:
    assert not make_table.problems()


def test_the_tables_in_the_readme_are_current() -> None:
    assert make_table.README.read_text(encoding="utf-8") == make_table.readme_as_it_should_be()
