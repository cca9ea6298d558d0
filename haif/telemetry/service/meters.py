"""The numbers of one process, in a Prometheus registry of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import cast

import prometheus_client as prometheus
from prometheus_client.process_collector import ProcessCollector

from haif.base import limits
from haif.base.errors import Misuse
from haif.telemetry import names
from haif.telemetry.names import Counter, Gauge, Histogram, Label, Metric
from haif.telemetry.redact import line

Family = prometheus.Counter | prometheus.Gauge | prometheus.Histogram
OTHER = "other"
_KNOWN_MAX = 8 * limits.METRIC_SERIES_MAX  # of all metrics; what is beyond is looked up the longer way


class Meters:
    """Counts, gauges and observations by descriptor. What a role exposes exists from the start.

    Raises `Misuse` for labels that the descriptor does not name and for values outside a closed set. An open label
    takes any text, cut to one line; past `limits.METRIC_SERIES_MAX` series its values become "other".
    """

    def __init__(self, role: str) -> None:
        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]  # their times of birth would double the series
        self._registry = prometheus.CollectorRegistry()
        self._families: dict[str, Family] = {}
        self._series: dict[tuple[str, tuple[str, ...]], Family] = {}
        self._known: dict[tuple[str, tuple[tuple[str, str], ...]], Family] = {}  # the same by labels as they were given
        self._totals: dict[tuple[str, tuple[str, ...]], float] = {}
        self._watches: list[Callable[[], None]] = []
        ProcessCollector(registry=self._registry)
        for metric in names.ALL:
            if role in metric.roles:
                self._begin(metric)

    def count(self, metric: Counter, amount: float, labels: Mapping[str, str]) -> None:
        """Add to a counter."""
        cast("prometheus.Counter", self._at(metric, labels)).inc(amount)

    def total(self, metric: Counter, value: float, labels: Mapping[str, str]) -> None:
        """Bring a counter up to a total that someone else keeps; a smaller total means that he began again."""
        key = (metric.name, self._values(metric, labels))
        before = self._totals.get(key, 0.0)
        self.count(metric, value - before if value >= before else value, labels)
        self._totals[key] = value

    def gauge(self, metric: Gauge, value: float, labels: Mapping[str, str]) -> None:
        """Set a gauge."""
        cast("prometheus.Gauge", self._at(metric, labels)).set(value)

    def observe(self, metric: Histogram, value: float, labels: Mapping[str, str]) -> None:
        """Add one measurement."""
        cast("prometheus.Histogram", self._at(metric, labels)).observe(value)

    def watch(self, refresh: Callable[[], None]) -> None:
        """Call `refresh` before each exposition: the place to read `statistics()`."""
        self._watches.append(refresh)

    def exposition(self) -> bytes:
        """Everything, in the Prometheus text format 0.0.4."""
        for refresh in self._watches:
            refresh()
        return prometheus.generate_latest(self._registry)

    def _begin(self, metric: Metric) -> Family:
        family = self._families[metric.name] = _family(metric, self._registry)
        if all(label.values for label in metric.labels):
            for values in product(*(label.values for label in metric.labels)):
                self._series[metric.name, values] = family.labels(*values) if values else family
        return family

    def _at(self, metric: Metric, labels: Mapping[str, str]) -> Family:
        key = (metric.name, (*labels.items(),))
        series = self._known.get(key)
        if series is None:
            values = self._values(metric, labels)
            series = self._series.get((metric.name, values)) or self._new(metric, values)
            if len(self._known) < _KNOWN_MAX:
                self._known[key] = series
        return series

    def _new(self, metric: Metric, values: tuple[str, ...]) -> Family:
        family = self._families.get(metric.name) or self._begin(metric)
        if sum(name == metric.name for name, _ in self._series) >= limits.METRIC_SERIES_MAX:
            values = tuple(v if label.values else OTHER for label, v in zip(metric.labels, values, strict=True))
        return self._series.setdefault((metric.name, values), family.labels(*values) if values else family)

    @staticmethod
    def _values(metric: Metric, labels: Mapping[str, str]) -> tuple[str, ...]:
        if len(labels) != len(metric.labels) or any(label.name not in labels for label in metric.labels):
            wanted = [label.name for label in metric.labels]
            raise Misuse(f"{metric.name} has the labels {wanted}, not {sorted(labels)}")
        return tuple(_value(metric, label, labels[label.name]) for label in metric.labels)


def _value(metric: Metric, label: Label, value: str) -> str:
    if not label.values:
        return line(value)
    if value not in label.values:
        raise Misuse(f"{metric.name}: {label.name} is one of {', '.join(label.values)}, not {line(value)!r}")
    return value


def _family(metric: Metric, registry: prometheus.CollectorRegistry) -> Family:
    labels = [label.name for label in metric.labels]
    match metric:
        case Counter():
            return prometheus.Counter(metric.name, metric.help, labels, registry=registry)
        case Gauge():
            return prometheus.Gauge(metric.name, metric.help, labels, registry=registry)
        case Histogram():
            return prometheus.Histogram(metric.name, metric.help, labels, buckets=metric.buckets, registry=registry)
