"""Metrics are counted by descriptor, bounded, and visible at zero from the start."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from haif.base import limits
from haif.base.errors import Dropped, Misuse, Reason
from haif.telemetry import names
from haif.telemetry.service import Telemetry


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry(role=names.GATEWAY, instance="g1")


def value(telemetry: Telemetry, sample: str, **labels: str) -> float | None:
    families = text_string_to_metric_families(telemetry.exposition().decode())
    found = [
        each.value for family in families for each in family.samples if (each.name, each.labels) == (sample, labels)
    ]
    return found[0] if found else None


@pytest.mark.parametrize("reason", Reason)
def test_what_is_dropped_is_counted_by_reason_from_zero(telemetry: Telemetry, reason: Reason) -> None:
    assert value(telemetry, "haif_dropped_total", reason=reason.value) == 0
    telemetry.dropped(Dropped(reason, detail="not for the metrics"))
    assert value(telemetry, "haif_dropped_total", reason=reason.value) == 1
    assert b"not for" not in telemetry.exposition()


def test_a_counter_gauge_and_histogram_show_what_they_were_told(telemetry: Telemetry) -> None:
    telemetry.count(names.GATEWAY_TOKENS_OUT, 7, model="m")
    telemetry.gauge(names.GATEWAY_INFLIGHT, 3)
    telemetry.observe(names.GATEWAY_TIME_TO_FIRST_TOKEN, 0.015, model="m")
    assert value(telemetry, "haif_gateway_tokens_out_total", model="m") == 7
    assert value(telemetry, "haif_gateway_inflight") == 3
    assert value(telemetry, "gen_ai_server_time_to_first_token_seconds_bucket", model="m", le="0.01") == 0
    assert value(telemetry, "gen_ai_server_time_to_first_token_seconds_bucket", model="m", le="0.02") == 1
    assert value(telemetry, "gen_ai_server_time_to_first_token_seconds_sum", model="m") == 0.015


@pytest.mark.parametrize("role", names.ROLES)
def test_a_role_exposes_its_metrics_from_the_start_and_no_others(role: str) -> None:
    text = Telemetry(role=role, instance="x").exposition().decode()
    shown = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE haif_")}
    shown |= {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE gen_ai_")}
    assert shown == {metric.name for metric in names.ALL if role in metric.roles}


def test_a_metric_of_another_role_appears_when_it_is_used(telemetry: Telemetry) -> None:
    assert value(telemetry, "haif_engine_deaths_total") is None
    telemetry.count(names.ENGINE_DEATHS)
    assert value(telemetry, "haif_engine_deaths_total") == 1


def test_a_total_kept_elsewhere_is_followed_and_may_begin_again(telemetry: Telemetry) -> None:
    for total in (5, 5, 9, 2):
        telemetry.total(names.WIRE_BYTES, total, direction="in")
    assert value(telemetry, "haif_wire_bytes_total", direction="in") == 11


def test_statistics_are_read_before_each_exposition(telemetry: Telemetry) -> None:
    sessions = iter((1, 2))
    telemetry.watch(lambda: telemetry.gauge(names.WIRE_SESSIONS, next(sessions)))
    assert value(telemetry, "haif_wire_sessions") == 1
    assert value(telemetry, "haif_wire_sessions") == 2


@pytest.mark.parametrize("labels", [{}, {"reason": "expired", "peer": "x"}, {"cause": "expired"}])
def test_labels_the_metric_does_not_have_are_a_misuse(telemetry: Telemetry, labels: dict[str, str]) -> None:
    with pytest.raises(Misuse, match="has the labels"):
        telemetry.count(names.DROPPED, **labels)


def test_a_value_outside_a_closed_set_is_a_misuse(telemetry: Telemetry) -> None:
    with pytest.raises(Misuse, match="reason is one of"):
        telemetry.count(names.DROPPED, reason="bad luck")


def test_an_open_label_cannot_grow_without_bound(telemetry: Telemetry) -> None:
    for number in range(limits.METRIC_SERIES_MAX + 50):
        telemetry.count(names.GATEWAY_TOKENS_OUT, model=f"m{number}")
    text = telemetry.exposition().decode()
    assert text.count("\nhaif_gateway_tokens_out_total{") == limits.METRIC_SERIES_MAX + 1
    assert value(telemetry, "haif_gateway_tokens_out_total", model="other") == 50
    telemetry.count(names.GATEWAY_TOKENS_OUT, model="m0")
    assert value(telemetry, "haif_gateway_tokens_out_total", model="m0") == 2


def test_a_label_value_cannot_break_the_exposition(telemetry: Telemetry) -> None:
    telemetry.count(names.GATEWAY_TOKENS_OUT, model='m"} 1\nhaif_workers_live 99')
    assert value(telemetry, "haif_workers_live") is None
    assert value(telemetry, "haif_gateway_tokens_out_total", model='m"} 1\ufffdhaif_workers_live 99') == 1


def test_two_telemetries_in_one_process_know_nothing_of_each_other(telemetry: Telemetry) -> None:
    other = Telemetry(role=names.GATEWAY, instance="g2")
    other.gauge(names.GATEWAY_INFLIGHT, 9)
    assert value(telemetry, "haif_gateway_inflight") == 0


def test_the_build_is_named(telemetry: Telemetry) -> None:
    assert b'haif_build_info{role="gateway",version="' in telemetry.exposition()
