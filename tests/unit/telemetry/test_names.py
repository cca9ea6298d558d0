"""The table of names keeps its own rules."""

import pytest

from haif.engine.sandbox.layers import LAYERS
from haif.telemetry import names
from haif.telemetry.names import Counter, Gauge, Histogram

UNITS = ("_seconds", "_hops")


@pytest.mark.parametrize("metric", names.ALL, ids=lambda metric: metric.name)
def test_every_metric_follows_the_prometheus_conventions(metric: names.Metric) -> None:
    assert metric.name.startswith(("haif_", "gen_ai_"))
    assert metric.name == metric.name.lower()
    assert isinstance(metric, Counter) == metric.name.endswith("_total")
    assert metric.help.endswith(".")
    assert metric.roles
    assert set(metric.roles) <= set(names.ROLES)
    if isinstance(metric, Histogram):
        assert metric.name.endswith(UNITS)
        assert metric.buckets == tuple(sorted(set(metric.buckets)))
    assert not metric.name.endswith(("_ms", "_milliseconds", "_minutes"))


def test_no_name_stands_twice() -> None:
    assert len(names.BY_NAME) == len(names.ALL)


def test_a_label_name_is_never_what_prometheus_itself_attaches() -> None:
    labels = {label.name for metric in names.ALL for label in metric.labels}
    assert not labels & {"job", "instance", "le", "quantile"}


def test_no_metric_can_tell_tenants_or_peers_apart() -> None:
    labels = {label.name for metric in names.ALL for label in metric.labels}
    assert not labels & {"tenant", "peer", "worker", "gateway", "job", "user", "key"}


def test_closed_labels_stay_within_the_bound_on_series() -> None:
    for metric in names.ALL:
        series = 1
        for label in metric.labels:
            series *= max(1, len(label.values))
        assert series <= 64, metric.name


def test_every_reason_can_be_counted() -> None:
    assert set(names.REASONS) == {reason.value for reason in names.Reason}


def test_the_generative_ai_buckets_contain_those_of_the_conventions() -> None:
    conventional = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5}
    assert conventional <= set(names.TIME_PER_OUTPUT_TOKEN)


def test_the_span_of_a_request_is_named_by_operation_and_model() -> None:
    assert names.inference_span(names.CHAT, "haif-demo") == "chat haif-demo"


def test_the_reference_has_a_line_for_every_metric_and_label() -> None:
    text = names.reference()
    for metric in names.ALL:
        assert f"| `{metric.name}` | {type(metric).__name__.lower()} |" in text
        for label in metric.labels:
            assert f"| `{label.name}` | {label.help} |" in text


def test_the_sandbox_layers_are_those_of_the_engine_childs_statement() -> None:
    assert LAYERS == names.SANDBOX_LAYERS


def test_what_a_person_is_shown_of_a_span_is_declared() -> None:
    assert set(names.SHOWN) <= names.ATTRIBUTES


def test_descriptors_are_values() -> None:
    assert Gauge("a", "b", ()) == Gauge("a", "b", ())
