"""Every query of the dashboard names only what live roles expose, and runs in a real Prometheus."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from haif.base.machine import Address
from haif.telemetry import names
from haif.telemetry.names import Counter, Gauge, Histogram, Label
from haif.telemetry.service import Telemetry
from haif.telemetry.targets import scrape_targets
from tests.support import prometheus
from tests.support.prometheus import Named, expressions, missing_series, named_in

OPS = Path(__file__).parents[3] / "ops"
FILE = OPS / "grafana" / "dashboards" / "haif.json"


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


def busy(role: str) -> Telemetry:
    """A role in which everything it measures has happened once."""
    telemetry = Telemetry(role=role, instance=f"{role}-1")
    for metric in names.ALL:
        if role not in metric.roles or metric is names.BUILD_INFO:
            continue
        labels = dict(example(metric.labels))
        match metric:
            case Counter():
                telemetry.count(metric, **labels)
            case Gauge():
                telemetry.gauge(metric, 1.0, **labels)
            case Histogram():
                telemetry.observe(metric, 0.1, **labels)
    return telemetry


def example(labels: Iterable[Label]) -> Iterable[tuple[str, str]]:
    return ((label.name, label.values[0] if label.values else "200") for label in labels)


def test_the_file_is_what_the_builder_prints() -> None:
    printed = subprocess.run([sys.executable, OPS / "grafana" / "build.py"], capture_output=True, text=True, check=True)
    assert printed.stdout == FILE.read_text(), f"print it again: python ops/grafana/build.py > {FILE}"


def test_live_roles_expose_every_series_and_label_the_queries_name(dashboard: dict[str, Any]) -> None:
    assert missing_series(dashboard, [busy(role).exposition().decode() for role in names.ROLES]) == []


def test_every_metric_is_on_the_dashboard(dashboard: dict[str, Any]) -> None:
    queried = {metric for _, expression in expressions(dashboard) for metric, _ in named_in(expression).metrics}
    shown = {metric.removesuffix("_bucket") for metric in queried}
    assert {metric.name for metric in names.ALL} - shown == set()


def test_the_rows_are_those_an_operator_looks_for(dashboard: dict[str, Any]) -> None:
    rows = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
    assert rows == ["Gateway", "Orchestrator", "Audits", "Workers and engine", "Mesh"]


def test_no_panel_covers_another_and_ids_are_unique(dashboard: dict[str, Any]) -> None:
    cells = [
        (x, y)
        for panel in dashboard["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_every_panel_says_what_it_shows_and_asks_the_chosen_source(dashboard: dict[str, Any]) -> None:
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            assert panel["description"]
            assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
            assert all(target["legendFormat"] for target in panel["targets"])


@pytest.mark.parametrize(
    ("expression", "metrics", "grouped"),
    [
        ("up", {"up": ""}, ""),
        ('sum by (a, b) (rate(m_total{c=~"5..", x!="by"}[1m]))', {"m_total": "c x"}, "a b"),
        ("sum(rate(m[5m])) by (a) / on (c) group_left sum(n) * 1e-9", {"m": "", "n": ""}, "a c"),
        ("histogram_quantile(0.99, sum by (le) (rate(h_bucket[1m])))", {"h_bucket": ""}, "le"),
        ("a unless b offset 1h30m", {"a": "", "b": ""}, ""),
        ('sum(a{b="}"}) or vector(0)', {"a": "b"}, ""),
    ],
)
def test_the_names_in_a_query_are_found(expression: str, metrics: dict[str, str], grouped: str) -> None:
    wanted = tuple((metric, frozenset(labels.split())) for metric, labels in metrics.items())
    assert Named(wanted, frozenset(grouped.split())) == named_in(expression)


def test_what_is_no_query_is_refused() -> None:
    with pytest.raises(ValueError, match="no PromQL"):
        named_in("rate(m[5m]) ; drop")


def one(expression: str) -> dict[str, Any]:
    return {"panels": [{"title": "P", "targets": [{"expr": expression}]}]}


def test_a_metric_nobody_exposes_is_reported() -> None:
    assert missing_series(one("rate(haif_magic_total[$__rate_interval])"), ["other 1\n"]) == [
        "P: haif_magic_total is exposed by nobody"
    ]


def test_a_label_a_metric_does_not_have_is_reported() -> None:
    scrape = 'm{a="1"} 1\n'
    assert missing_series(one('sum by (job, instance, a) (m{a="1"})'), [scrape]) == []
    assert missing_series(one('sum by (b) (m{c="1"})'), [scrape]) == ["P: m has no label b", "P: m has no label c"]


def test_targets_are_written_as_prometheus_reads_them() -> None:
    found = json.loads(scrape_targets([("gateway", ("127.0.0.1", 1)), ("worker", ("::1", 2))]))
    assert found == [
        {"targets": ["127.0.0.1:1"], "labels": {"job": "haif-gateway"}},
        {"targets": ["[::1]:2"], "labels": {"job": "haif-worker"}},
    ]


@pytest.mark.skipif(prometheus.BINARY is None, reason="prometheus is not installed")
async def test_a_real_prometheus_runs_every_query_over_live_roles(dashboard: dict[str, Any], tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        roles: list[tuple[str, Address]] = []
        for role in names.ROLES:
            telemetry = await stack.enter_async_context(busy(role))
            roles.append((role, await telemetry.serve_metrics("127.0.0.1", 0)))
        yielded = await asyncio.to_thread(run_all, dashboard, roles, tmp_path)
    assert [expression for expression, series in yielded.items() if not series] == []


def run_all(dashboard: dict[str, Any], roles: list[tuple[str, Address]], folder: Path) -> dict[str, int]:
    with prometheus.running(roles, folder) as running:
        return running.run(dashboard)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_the_prometheus_configuration_is_valid() -> None:
    command = ["promtool", "check", "config", "--syntax-only", str(OPS / "prometheus" / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_prometheus_configuration_names_every_job_the_dashboard_groups_by() -> None:
    text = (OPS / "prometheus" / "prometheus.yml").read_text()
    assert all(f'"haif-{role}"' in text for role in (names.GATEWAY, names.ORCHESTRATOR, names.WORKER))
    assert "file_sd_configs" in text


def test_every_alert_is_about_metrics_that_exist_and_has_a_runbook() -> None:
    rules = (OPS / "prometheus" / "rules.yml").read_text()
    alerts = re.findall(r"- alert: (\w+)\n +expr: (.+)\n(?:.*\n)*? +runbook: (\S+)", rules)
    assert len(alerts) == rules.count("- alert:")
    known = {metric.name for metric in names.ALL}
    for _, expression, page in alerts:
        assert set(re.findall(r"haif_\w+", expression)) <= known
        assert (OPS.parent / page).exists()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_accepts_the_rules() -> None:
    command = ["promtool", "check", "rules", str(OPS / "prometheus" / "rules.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_the_alarm_of_an_eclipse_rings_for_a_series_of_suspicions_and_not_for_one(tmp_path: Path) -> None:
    series, hour = "haif_dht_eclipses_suspected_total", "eval_time: 1h\n        alertname: HaifEclipseSuspected"
    (tmp_path / "test.yml").write_text(f"""
rule_files: ["{OPS / "prometheus" / "rules.yml"}"]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: '{series}{{instance="calm"}}', values: '0x30 1x60'}}
      - {{series: '{series}{{instance="besieged"}}', values: '0+1x90'}}
    alert_rule_test:
      - {hour}
        exp_alerts:
          - exp_labels: {{severity: ticket, instance: besieged}}
            exp_annotations:
              summary: "besieged found parts of the directory far too crowded: somebody may be hiding records"
              runbook: ops/runbooks/HaifEclipseSuspected.md
""")
    done = subprocess.run(
        ["promtool", "test", "rules", tmp_path / "test.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
