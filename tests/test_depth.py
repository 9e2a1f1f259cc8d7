"""A failure tells how it is repeated."""

import pytest
from depth import command, repeated_by


def test_a_failure_is_repeated_by_its_name() -> None:
    assert command("tests/a.py::test[x y]", AssertionError()) == "pytest 'tests/a.py::test[x y]'"


def test_a_failure_with_a_seed_is_repeated_by_the_seed_whatever_its_parameter_was() -> None:
    with pytest.raises(ValueError, match="wrong") as caught, repeated_by(BEANSPIKED_SEEDS=117):
        raise ValueError("wrong")
    assert command("tests/a.py::test[100-149]", caught.value) == "BEANSPIKED_SEEDS=117 pytest 'tests/a.py::test'"
