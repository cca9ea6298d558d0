"""Holds dashboards to what is exposed: a reader of PromQL's names, and a real Prometheus where one is installed."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from prometheus_client.parser import text_string_to_metric_families

from haif.base.machine import Address
from haif.telemetry.targets import scrape_targets

BINARY = shutil.which("prometheus")
DEADLINE_SECONDS = 30.0
ATTACHED = {"job", "instance"}  # labels Prometheus itself puts on what it scrapes

_TOKEN = re.compile(
    r"""\s+|(?P<text>"(?:[^"\\]|\\.)*"|'[^']*')|(?P<range>\[[^\]]*\])|(?P<number>(?:[0-9]+(?:ms|[smhdwy]))+|[0-9.]+(?:[eE][+-]?[0-9]+)?)
                        |(?P<name>[A-Za-z_:][A-Za-z0-9_:]*)|(?P<sign>=~|!~|!=|==|<=|>=|[-+*/%^(){},=<>])""",
    re.VERBOSE,
)
_GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_WORDS = {"and", "or", "unless", "bool", "offset", "atan2", "inf", "nan"}


@dataclass(frozen=True)
class Named:
    """What a query names: each metric with the labels it is selected by, and the labels it is grouped by."""

    metrics: tuple[tuple[str, frozenset[str]], ...]
    grouped: frozenset[str]


def expressions(dashboard: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(panel title, query) of every query, with Grafana's own variables put in."""
    return [
        (panel["title"], target["expr"].replace("$__rate_interval", "1m"))
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]


def named_in(expression: str) -> Named:
    """The metrics and labels a query names. Raises `ValueError` for what is no PromQL token."""
    tokens = _tokens(expression)
    metrics: list[tuple[str, frozenset[str]]] = []
    grouped: set[str] = set()
    while tokens:
        kind, text = tokens.pop(0)
        following = tokens[0][1] if tokens else ""
        if kind != "name" or text.lower() in _WORDS:
            continue
        if text in _GROUPING and following == "(":
            grouped |= _names_until(tokens, ")")
        elif text not in _GROUPING and following not in {"(", *_GROUPING}:  # otherwise a function or an aggregation
            metrics.append((text, frozenset(_names_until(tokens, "}")) if following == "{" else frozenset()))
    return Named(tuple(metrics), frozenset(grouped))


def missing_series(dashboard: Mapping[str, Any], expositions: Iterable[str]) -> list[str]:
    """A sentence for each metric or label that a query names and no scrape has; empty when all is well."""
    found: dict[str, set[str]] = {}
    for exposition in expositions:
        for family in text_string_to_metric_families(exposition):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    complaints: list[str] = []
    for panel, expression in expressions(dashboard):
        named = named_in(expression)
        for metric, labels in named.metrics:
            if metric not in found:
                complaints.append(f"{panel}: {metric} is exposed by nobody")
                continue
            unknown = (labels | named.grouped) - found[metric] - ATTACHED
            complaints += [f"{panel}: {metric} has no label {label}" for label in sorted(unknown)]
    return complaints


class Prometheus:
    """A running Prometheus, asked over its API."""

    def __init__(self, address: Address) -> None:
        self.address = address

    def query(self, expression: str) -> list[Any]:
        """The result of an instant query. Raises `AssertionError` with Prometheus' own words if it is refused."""
        connection = http.client.HTTPConnection(*self.address, timeout=DEADLINE_SECONDS)
        try:
            connection.request("GET", f"/api/v1/query?{urlencode({'query': expression})}")
            response = connection.getresponse()
            if response.status == 503:
                raise http.client.HTTPException("Prometheus is still starting")
            answer = json.loads(response.read())
        finally:
            connection.close()
        assert answer["status"] == "success", f"{expression}: {answer.get('error')}"
        result = answer["data"]["result"]
        assert isinstance(result, list)
        return result

    def number(self, expression: str) -> float:
        """The value of a query that yields one; 0 where it yields none."""
        result = self.query(expression)
        return float(result[0]["value"][1]) if result else 0.0

    def run(self, dashboard: Mapping[str, Any]) -> dict[str, int]:
        """Run every query of a dashboard; how many series each yields."""
        return {expression: len(self.query(expression)) for _, expression in expressions(dashboard)}


@contextmanager
def running(roles: Sequence[tuple[str, Address]], folder: Path, *, scrapes: int = 2) -> Iterator[Prometheus]:
    """A real Prometheus that has scraped each (role, address of /metrics) at least `scrapes` times.

    Only where `BINARY` is not None. Listens on a free loopback port; keeps its data in `folder`.
    """
    assert BINARY is not None, "install prometheus, or skip"
    (folder / "targets.json").write_text(scrape_targets(roles))
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        "scrape_configs:\n- job_name: haif\n  file_sd_configs: [{files: [targets.json]}]\n"
    )
    log = folder / "prometheus.log"
    command = [BINARY, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
               "--web.listen-address=127.0.0.1:0"]  # fmt: skip
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            port = _until(lambda: re.search(r'Listening on" address=127\.0\.0\.1:(\d+)', log.read_text()), log)
            prometheus = Prometheus(("127.0.0.1", int(port[1])))
            enough = f"count(sum_over_time(up[1m]) >= {scrapes})"
            _until(lambda: prometheus.number(enough) == len(roles), log)
            yield prometheus
        finally:
            process.terminate()


def _until(check: Callable[[], Any], log: Path) -> Any:
    """What `check` returns once it is true; fails with the log at the deadline."""
    end, pause = time.monotonic() + DEADLINE_SECONDS, threading.Event()
    while time.monotonic() < end:
        try:
            if found := check():
                return found
        except (OSError, http.client.HTTPException):
            pass  # not listening yet
        pause.wait(0.02)
    raise AssertionError(f"Prometheus was not ready within {DEADLINE_SECONDS} s:\n{log.read_text()}")


def _tokens(expression: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    at = 0
    while at < len(expression):
        match = _TOKEN.match(expression, at)
        if match is None:
            raise ValueError(f"{expression[at:]!r} is no PromQL")
        if match.lastgroup:
            tokens.append((match.lastgroup, match[0]))
        at = match.end()
    return tokens


def _names_until(tokens: list[tuple[str, str]], end: str) -> set[str]:
    names: set[str] = set()
    while tokens:
        kind, text = tokens.pop(0)
        if text == end:
            break
        if kind == "name":
            names.add(text)
    return names
