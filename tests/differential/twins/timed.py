"""Scenarios in which time passes, as a table.

They all run at once, each on a tube and connections of its own, in rounds of a second and a half. All times in them are one or two
seconds, so whatever comes due does so half a second before or after a round, and a slow machine does not matter.
"""

from dataclasses import dataclass

ROUND_S = 1.5


@dataclass(frozen=True, slots=True)
class Scenario:
    """Rounds of lines "A command": who sends what. T is the scenario's tube, #0 its first job, / begins a put's body."""

    name: str
    rounds: tuple[tuple[str, ...], ...]


def _scenario(name: str, *rounds: str) -> Scenario:
    return Scenario(name, tuple(tuple(line.strip() for line in text.split(";") if line.strip()) for text in rounds))


SCENARIOS = (
    _scenario(
        "a delayed job comes due", "A put 5 1 100 1/x; A peek-ready; A peek-delayed", "A stats-job #0; A peek-ready"
    ),
    _scenario("a delayed job wakes a waiter", "A put 5 2 100 1/x; B reserve", "A peek-delayed", "A stats-job #0"),
    _scenario("a timeout ends a wait", "A reserve-with-timeout 1; B reserve-with-timeout 2", "", "B stats-tube T"),
    _scenario("a job in time ends a wait", "A reserve-with-timeout 2", "B put 0 0 100 1/x", "A touch #0; A delete #0"),
    _scenario(
        "a TTR runs out",
        "A put 5 0 1 1/x; A reserve",
        "A stats-job #0; A touch #0; A release #0 0 0; A bury #0 0; A peek-ready",
    ),
    _scenario("the old holder deletes", "A put 5 0 1 1/x; A reserve", "A delete #0; B stats-tube T"),
    _scenario(
        "another one holds it", "A put 5 0 1 1/x; A reserve; B reserve", "A delete #0; B stats-job #0; B delete #0"
    ),
    _scenario(
        "its place is kept", "A put 5 0 1 1/x; A put 5 0 1 1/y; A reserve", "A reserve-with-timeout 0; A peek-ready"
    ),
    _scenario(
        "a touch helps", "A put 5 0 2 1/x; A reserve", "A touch #0; A stats-job #0", "A stats-job #0; A delete #0"
    ),
    _scenario("a TTR of zero is one", "A put 5 0 0 1/x; A stats-job #0; A reserve", "A stats-job #0; A peek-ready"),
    _scenario(
        "soon, at once", "A put 5 0 1 1/x; A reserve; A reserve; A reserve-with-timeout 0; A reserve", "A stats-job #0"
    ),
    _scenario(
        "soon, while waiting",
        "A put 5 0 2 1/x; A reserve; A reserve",
        "A reserve-with-timeout 0; A touch #0; A stats-job #0",
    ),
    _scenario(
        "soon, but a job is ready",
        "A put 5 0 1 1/x; A put 5 0 1 1/y; A reserve; A reserve; A reserve",
        "B stats-tube T",
    ),
    _scenario(
        "soon is not for reserve-job",
        "A put 5 0 1 1/x; A reserve; A put 5 0 100 1/y; A reserve-job #1; A reserve",
        "A reserve-job #0",
    ),
    _scenario(
        "soon is not for others",
        "A put 5 0 2 1/x; A reserve; B reserve-with-timeout 1",
        "B stats-job #0",
        "B stats-job #0",
    ),
    _scenario(
        "soon and paused",
        "A put 5 0 1 1/x; A reserve; A put 5 0 9 1/y; A pause-tube T 100; A reserve",
        "A stats-tube T",
    ),
    _scenario(
        "a pause ends",
        "A pause-tube T 1; A put 5 0 100 1/x; B reserve; A stats-tube T",
        "A stats-tube T; B stats-job #0",
    ),
    _scenario(
        "a pause is lifted", "A pause-tube T 100; A put 5 0 100 1/x; B reserve", "A pause-tube T 0", "A stats-tube T"
    ),
    _scenario(
        "a pause is replaced",
        "A pause-tube T 1; A pause-tube T 100; A put 5 0 100 1/x; B reserve-with-timeout 2",
        "",
        "A stats-tube T",
    ),
    _scenario(
        "a pause does not stop time",
        "A put 5 1 100 1/x; A pause-tube T 100; B reserve",
        "A stats-job #0; A peek-ready",
        "A reserve-job #0",
    ),
    _scenario(
        "a release with a delay",
        "A put 5 0 100 1/x; A reserve; A release #0 9 1; B reserve",
        "B stats-job #0; B delete #0",
    ),
    _scenario(
        "kicked before it is due",
        "A put 5 2 100 1/x; A kick 1; A stats-job #0",
        "A reserve; A stats-job #0",
        "A delete #0",
    ),
    _scenario(
        "buried jobs do not run out",
        "A put 5 0 1 1/x; A reserve; A bury #0 3",
        "A stats-job #0; A kick 5; A stats-job #0",
    ),
    _scenario(
        "reserved by id runs out too",
        "A put 5 100 1 1/x; A reserve-job #0",
        "A stats-job #0; A peek-ready; A delete #0",
    ),
    _scenario(
        "taken by id before it is due",
        "A put 5 1 100 1/x; A reserve-job #0",
        "A stats-job #0; A release #0 0 0; A stats-job #0",
    ),
    _scenario(
        "deleted before it is due", "A put 5 1 100 1/x; B reserve; A delete #0", "A stats-tube T", "A stats-tube T"
    ),
    _scenario(
        "commands behind a wait",
        "A reserve-with-timeout 1; A use T; A put 5 0 100 1/x; A reserve; A delete #0",
        "A stats-tube T",
    ),
    _scenario("a waiter that leaves", "A put 5 1 100 1/x; B reserve; B reset", "A stats-tube T; A peek-ready"),
    _scenario("a holder that leaves", "B put 5 0 1 1/x; B reserve; B close; A stats-job #0", "A stats-job #0"),
    _scenario("a waiter that sends no more", "A put 5 1 100 1/x; B reserve; B half", "A stats-job #0"),
    _scenario(
        "first kicked, first served",
        "A put 5 100 100 1/x; A put 0 200 100 1/y; B reserve; A kick 2; B delete #0",
        "B stats-job #1",
    ),
    _scenario(
        "first buried, first served",
        "A put 5 0 100 1/x; A put 0 0 100 1/y; A reserve-job #0; A bury #0 9; A reserve; A bury #1 1; B reserve; A kick 2",
    ),
    _scenario(
        "first reserved, first given back",
        "A put 0 0 200 1/x; A put 0 0 100 1/y; A reserve; A reserve; B reserve; A close",
    ),
    _scenario(
        "a tube ends with its jobs",
        "A use default; B use default; A ignore T; B ignore T; A stats-tube T",
        "A stats-tube T",
    ),
)
