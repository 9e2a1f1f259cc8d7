"""What deploy/ watches is what a server tells."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from depth import absent
from prometheus_client.parser import text_string_to_metric_families

from beanspiked.admin import dialects
from beanspiked.admin.metrics import of_store
from beanspiked.engine.contract import StoreStats
from beanspiked.engine.histogram import Histogram

if TYPE_CHECKING:
    from conftest import Port

DEPLOY = Path(__file__).parents[2] / "deploy"
OURS = re.compile(r"\b(?:beanstalkd|beanspiked)_[a-z_]+")


@pytest.fixture
def promtool() -> str:
    return shutil.which("promtool") or absent("promtool is not installed")


@pytest.fixture
def told(port: Port, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What servers with a journal, a ready job and a shared store tell."""
    with ExitStack():
        port.wire.broker.measure()
        port.wire.connect().put()
        monkeypatch.setattr(port.application, "_journal", str(tmp_path))
        store = StoreStats()
        store.calls["change"] = Histogram([1.0])
        store.outcomes["change", "done"] = 1
        store.records["segment"] = 1
        shared = "".join(line for family in of_store(store) for line in family.lines)
        return port.get("/metrics").text + shared


def names(text: str) -> set[str]:
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}


@pytest.mark.parametrize("file", ["prometheus/alerts.yml", "grafana/beanspiked.json"])
def test_only_metrics_that_there_are_are_watched(told: str, file: str) -> None:
    content = (DEPLOY / file).read_text()
    if file.endswith(".json"):
        asked = " ".join(target["expr"] for panel in json.loads(content)["panels"] for target in panel["targets"])
    else:
        asked = " ".join(line for line in content.splitlines() if "summary" not in line)
    wanted = set(OURS.findall(asked))
    assert len(wanted) > 5
    assert wanted - names(told) == set()


def test_the_dashboard_counts_the_jobs_of_a_cluster_once() -> None:
    panels = json.loads((DEPLOY / "grafana/beanspiked.json").read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    # Each front-end tells of the whole cluster.
    added = [expr for expr in asked if re.search(r"sum.*\(beanstalkd_(current_jobs|tube_current_)", expr)]
    assert len(added) == 7
    session = 'beanspiked_store_session_age_seconds{instance=~"$instance"}'
    all_but_one = f" unless on (instance) ({session} unless topk(1, {session}))"
    assert [expr for expr in added if all_but_one not in expr] == []


def test_the_dashboards_panels_lie_side_by_side() -> None:
    places: set[tuple[int, int]] = set()
    for panel in json.loads((DEPLOY / "grafana/beanspiked.json").read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not places & cells, panel["title"]
        assert max(x for x, _ in cells) < 24
        places |= cells


def test_each_alert_fires_in_its_test() -> None:
    rules = re.findall(r"- alert: (\w+)", (DEPLOY / "prometheus/alerts.yml").read_text())
    tests = (DEPLOY / "prometheus/alerts_test.yml").read_text()
    fired = re.findall(r"alertname: (\w+)\n\s+exp_alerts:\n", tests)
    assert sorted(rules) == sorted(fired)


@pytest.mark.real
@pytest.mark.parametrize(
    "words",
    [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"], ["check", "config", "prometheus.yml"]],
)
def test_prometheus_accepts_the_rules(promtool: str, words: list[str]) -> None:
    done = subprocess.run(
        [promtool, *words], cwd=DEPLOY / "prometheus", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.real
def test_prometheus_has_no_complaint_about_our_names(promtool: str, told: str) -> None:
    done = subprocess.run(
        [promtool, "check", "metrics"], input=told, capture_output=True, text=True, timeout=60, check=False
    )
    # `beanstalkd_jobs_total` and others are the names that other servers chose; ours are to be without fault.
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("beanspiked_")]
    assert complaints == []


@pytest.mark.real
@pytest.mark.parametrize("dialect", sorted(dialects.DIALECTS))
def test_prometheus_can_read_each_dialect(promtool: str, port: Port, dialect: str) -> None:
    text = port.get(f"/metrics?compat={dialect}").text
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert "error while linting" not in done.stderr
