"""Writes the tables of README.md: rules with their tests, known differences, and what a cluster may relax.

Run `python protocol_conformance/make_table.py`, or with `--check` to learn only whether README.md is current.
"""

from __future__ import annotations

import ast
import dataclasses
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HERE = Path(__file__).parent
README = HERE / "README.md"
BEGIN = "<!-- tables: written by make_table.py -->"
END = "<!-- end of tables -->"


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """A rule in our words; `no_test_because` is empty for a rule that must have a test."""

    id: str
    text: str
    no_test_because: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Marker:
    """A pytest marker with literal arguments, as it stands above a test."""

    name: str
    args: tuple[Any, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Test:
    """A test function and its markers."""

    file: str
    name: str
    markers: tuple[Marker, ...]

    def rules(self) -> tuple[str, ...]:
        """Return the ids of the rules it checks."""
        return tuple(rule for marker in self.markers if marker.name == "rule" for rule in marker.args)

    def reason(self, name: str) -> str | None:
        """Return the reason given to a marker, or None if the test has no such marker."""
        return next((str(marker.args[0]) for marker in self.markers if marker.name == name), None)

    def title(self) -> str:
        """Return its name as a sentence."""
        return self.name.removeprefix("test_").replace("_", " ")

    def link(self) -> str:
        """Return its name with a link to its file."""
        return f"[{self.title()}]({self.file})"


def load_sections() -> dict[str, tuple[str, list[Rule]]]:
    """Return the title and the rules of each section, by its number."""
    sections = {}
    for number, section in tomllib.loads((HERE / "rules.toml").read_text(encoding="utf-8")).items():
        rules = [Rule(f"{number}/{key}", text) for key, text in section.get("rules", {}).items()]
        for key, (text, reason) in section.get("untested", {}).items():
            rules.append(Rule(f"{number}/{key}", text, reason))
        sections[number] = (section["title"], rules)
    return sections


def load_tests() -> list[Test]:
    """Return the suite's tests, read from their source without running it."""
    return [
        Test(path.name, node.name, tuple(_markers(node)))
        for path in sorted(HERE.glob("test_*.py"))
        if path.name != "test_rules.py"
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]


def _markers(function: ast.FunctionDef) -> Iterator[Marker]:
    for decorator in function.decorator_list:
        match decorator:
            case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="mark"), attr=name), args=args) if name in {
                "rule",
                "since_1_13",
                "beanstalkd_bug",
                "cluster_relaxed",
                "shared_store_relaxed",
            }:
                yield Marker(name, tuple(ast.literal_eval(arg) for arg in args))
            case _:
                pass


def problems() -> list[str]:
    """Return what is wrong between rules and markers, one sentence each."""
    sections, tests = load_sections(), load_tests()
    rules = {rule.id: rule for _, listed in sections.values() for rule in listed}
    found = []
    for test in tests:
        if not test.rules():
            found.append(f"{test.file}: {test.name} names no rule")
        for rule_id in test.rules():
            if rule_id not in rules:
                found.append(f"{test.file}: {test.name} names the rule {rule_id}, which is not listed")
            elif rules[rule_id].no_test_because:
                found.append(f"{test.file}: {test.name} tests {rule_id}, which is listed as untested")
    tested = {rule_id for test in tests for rule_id in test.rules()}
    found += [
        f"{rule.id} has neither a test nor a reason"
        for rule in rules.values()
        if rule.id not in tested and not rule.no_test_because
    ]
    return found


def tables() -> str:
    """Return all tables as Markdown."""
    sections, tests = load_sections(), load_tests()
    parts = ["## Rules and their tests"]
    for number, (title, rules) in sections.items():
        parts.append(f"### {number} {title}")
        rows = []
        for rule in rules:
            links = "<br>".join(test.link() for test in tests if rule.id in test.rules())
            rows.append((f"`{rule.id}`", rule.text, links or f"none: {rule.no_test_because}"))
        parts.append(_table(("rule", "in our words", "tests"), rows))
    parts.append("## Where beanstalkd is expected to fail")
    rows = []
    for test in tests:
        for name, title in (("beanstalkd_bug", "all versions"), ("since_1_13", "before 1.13")):
            reason = test.reason(name)
            if reason is not None:
                rows.append((test.link(), title, reason))
    parts.append(_table(("test", "beanstalkd", "reason"), rows))
    parts.append("## What several front-ends of one cluster may relax")
    parts.append(_reasons(tests, "cluster_relaxed"))
    parts.append("## What a single server with a shared store may relax, too")
    parts.append(_reasons(tests, "shared_store_relaxed"))
    return "\n\n".join(parts)


def _reasons(tests: Iterable[Test], marker: str) -> str:
    reasons = ((test, test.reason(marker)) for test in tests)
    return _table(("test", "reason"), ((test.link(), reason) for test, reason in reasons if reason is not None))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


def readme_as_it_should_be() -> str:
    """Return the text of README.md with its tables made anew."""
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


def main(arguments: list[str]) -> int:
    """Write the tables, or check them; return the exit status."""
    wrong = problems()
    for problem in wrong:
        print(problem, file=sys.stderr)
    text = readme_as_it_should_be()
    if "--check" in arguments:
        is_current = text == README.read_text(encoding="utf-8")
        if not is_current:
            print("README.md is not current: run make_table.py", file=sys.stderr)
        return int(bool(wrong) or not is_current)
    README.write_text(text, encoding="utf-8")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
