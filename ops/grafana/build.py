# ruff: noqa: INP001 -- a script, not a package
"""Prints the Grafana dashboard: python ops/grafana/build.py > ops/grafana/dashboards/haif.json.

The panels are the table below; the rest is what Grafana 11 wants around it. Tests hold every query against what the
roles really expose, and run it in a real Prometheus where there is one.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

RATE = "[$__rate_interval]"
ERRORS = (
    f'(sum(rate(haif_gateway_requests_total{{code=~"5.."}}{RATE})) or vector(0))'
    f" / sum(rate(haif_gateway_requests_total{RATE}))"
)
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS, HEIGHT = 3, 8


@dataclass(frozen=True)
class Panel:
    """One graph: (legend, query) pairs, and the unit in Grafana's spelling."""

    title: str
    unit: str
    help: str
    queries: tuple[tuple[str, str], ...]


def rate(metric: str, label: str) -> tuple[tuple[str, str], ...]:
    """Events per second, by one label."""
    return ((f"{{{{{label}}}}}", f"sum by ({label}) (rate({metric}{RATE}))"),)


def quantiles(metric: str, *labels: str) -> tuple[tuple[str, str], ...]:
    """Median and 99th percentile of a histogram."""
    by, legend = ", ".join(("le", *labels)), "".join(f" {{{{{label}}}}}" for label in labels)
    return tuple(
        (f"{name}{legend}", f"histogram_quantile({q}, sum by ({by}) (rate({metric}_bucket{RATE})))")
        for name, q in (("p50", 0.5), ("p99", 0.99))
    )


def level(metric: str, *labels: str) -> tuple[tuple[str, str], ...]:
    """A gauge, added up over the processes."""
    if not labels:
        return ((metric.removeprefix("haif_").replace("_", " "), f"sum({metric})"),)
    return ((" ".join(f"{{{{{label}}}}}" for label in labels), f"sum by ({', '.join(labels)}) ({metric})"),)


def named(name: str, queries: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """The same queries with `name` before their legends."""
    return tuple((f"{name} {legend}".strip(), query) for legend, query in queries)


ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    ("Gateway", (
        Panel("Requests", "reqps", "Answers by endpoint and status.", (
            ("{{endpoint}} {{code}}", f"sum by (endpoint, code) (rate(haif_gateway_requests_total{RATE}))"),
        )),
        Panel("Share of server errors", "percentunit", "5xx among all answers.", (("errors", ERRORS),)),
        Panel("Certificate", "s", "Until the API's certificate expires.", (
            ("{{instance}}", "(haif_gateway_certificate_expires_timestamp_seconds > 0) - time()"),
        )),
        Panel("In flight", "short", "Requests being answered.", level("haif_gateway_inflight")),
        Panel("Time to first token", "s", "From a whole request to its first token.",
              quantiles("gen_ai_server_time_to_first_token_seconds", "model")),
        Panel("Wait in line", "s", "In the gateway's line for a slot of the model.",
              quantiles("haif_gateway_queue_seconds", "service")),
        Panel("Time per output token", "s", "Mean of an answer, after its first token.",
              quantiles("gen_ai_server_time_per_output_token_seconds", "model")),
        Panel("Request duration", "s", "Whole requests.",
              quantiles("gen_ai_server_request_duration_seconds", "model")),
        Panel("Tokens", "short", "Tokens per second, read and delivered.", (
            *named("in", rate("haif_gateway_tokens_in_total", "model")),
            *named("out", rate("haif_gateway_tokens_out_total", "model")),
        )),
        Panel("Refused for quota", "reqps", "By the allowance that was used up.",
              rate("haif_gateway_rate_limited_total", "dimension")),
        Panel("Attempts placed again", "reqps", "Attempts that failed, and answers gone on with.", (
            *named("placed again:", rate("haif_gateway_retries_total", "reason")),
            *named("gone on with:", rate("haif_gateway_resumed_total", "reason")),
        )),
        Panel("Dead letters", "short", "Requests that failed for good; `haif dlq ls` lists them.",
              level("haif_dlq_letters", "instance")),
        Panel("Age of the oldest dead letter", "s", "For how long nobody has looked.",
              level("haif_dlq_oldest_seconds", "instance")),
        Panel("Dead letters run again", "reqps", "By what came of it.", rate("haif_dlq_redriven_total", "outcome")),
    )),
    ("Orchestrator", (
        Panel("Jobs", "ops", "Jobs per second that went into each state.", rate("haif_job_transitions_total", "state")),
        Panel("Jobs open", "short", "Placed and not yet over.", level("haif_jobs_open")),
        Panel("Workers live", "short", "With a verified offer and a recent heartbeat, as each orchestrator sees it.",
              level("haif_workers_live", "instance")),
        Panel("Breakers open", "short", "Workers that get no work on a model, or only probes.",
              level("haif_breakers_open", "instance")),
        Panel("Pauses", "short", "Orders of operators that pause something now.", level("haif_pauses", "instance")),
        Panel("Placements", "ops", "Attempts placed, and those for which no worker was found.", (
            ("placed", f"sum(rate(haif_placements_total{RATE}))"),
            *named("failed:", rate("haif_placement_failures_total", "reason")),
        )),
        Panel("Journal append", "s", "Until entries are durable.", quantiles("haif_journal_append_seconds")),
        Panel("Journal and heartbeats", "ops", "Entries made durable, heartbeats that verified.", (
            ("entries", f"sum(rate(haif_journal_entries_total{RATE}))"),
            ("snapshots", f"sum(rate(haif_journal_snapshots_total{RATE}))"),
            ("jobs of orchestrators that were gone", f"sum(rate(haif_job_takeovers_total{RATE}))"),
            ("leases claimed anew", f"sum(rate(haif_orchestrator_rejoins_total{RATE}))"),
            ("heartbeats", f"sum(rate(haif_heartbeats_received_total{RATE}))"),
        )),
    )),
    ("Audits", (
        Panel("Verdicts", "ops", "What orchestrators took, by finding and cause.", (
            ("{{finding}} {{cause}}", f"sum by (finding, cause) (rate(haif_verdicts_total{RATE}))"),
        )),
        Panel("Convicted workers", "short", "They get no work; those nobody can check, none that is to be checked.", (
            ("convicted {{instance}}", "sum by (instance) (haif_workers_convicted)"),
            ("incomparable {{instance}}", "sum by (instance) (haif_workers_incomparable)"),
        )),
        Panel("Panels", "short", "Panels that sit, workers set aside meanwhile, validators that panels refuted.", (
            ("sitting", "sum(haif_panels_open)"), ("set aside", "sum(haif_workers_aside)"),
            ("refuted", "max(haif_validators_refuted)"),
            ("absent", f"sum(rate(haif_panel_absences_total{RATE}))"),
            *named("found:", rate("haif_panels_total", "finding")),
        )),
        Panel("Drawn and waiting", "short", "Receipts that validators drew and have not judged.",
              level("haif_audits_waiting", "instance")),
        Panel("Left out", "ops", "By the draws validators revealed: due, not audited, audited though not drawn.", (
            ("due", f"sum(rate(haif_audits_due_total{RATE}))"),
            ("missed", f"sum(rate(haif_audits_missed_total{RATE}))"),
            ("not drawn", f"sum(rate(haif_audits_undrawn_total{RATE}))"),
            ("validators that show no draw", "sum(haif_validators_withholding)"),
        )),
        Panel("Receipts", "ops", "Seen, drawn and judged by validators; payloads that gateways gave.", (
            ("seen", f"sum(rate(haif_audits_seen_total{RATE}))"),
            ("drawn", f"sum(rate(haif_audits_drawn_total{RATE}))"),
            ("given", f"sum(rate(haif_gateway_payloads_given_total{RATE}))"),
            *named("judged:", rate("haif_audits_judged_total", "finding")),
        )),
        Panel("Computing again", "s", "One answer.", quantiles("haif_audit_seconds")),
        Panel("Tokens computed again", "short", "Of answers that were audited, per second.", (
            ("tokens", f"sum(rate(haif_audit_tokens_total{RATE}))"),
        )),
    )),
    ("Workers and engine", (
        Panel("Slots", "short", "Requests that can run, run, and wait.", (
            *named("slots", level("haif_worker_slots", "model")),
            *named("running", level("haif_worker_running", "model")),
            *named("waiting", level("haif_worker_queue_depth", "model")),
        )),
        Panel("Wait for a slot", "s", "Time in the worker's queue.", quantiles("haif_worker_queue_seconds", "model")),
        Panel("Requests", "reqps", "Reserved requests that ended, by outcome.",
              rate("haif_worker_requests_total", "outcome")),
        Panel("Tokens of workers", "short", "Tokens per second of finished requests.", (
            *named("in", rate("haif_worker_tokens_in_total", "model")),
            *named("reused", rate("haif_worker_tokens_cached_total", "model")),
            *named("out", rate("haif_worker_tokens_out_total", "model")),
        )),
        Panel("Tokens of engines", "short", "Tokens per second computed, by worker.", (
            *named("prefill", rate("haif_engine_prefill_tokens_total", "instance")),
            *named("decode", rate("haif_engine_decode_tokens_total", "instance")),
        )),
        Panel("Batch occupancy", "percentunit", "Sequences being computed, as a share of the slots.",
              (("{{instance}}", "haif_engine_batch_occupancy_ratio"),)),
        Panel("KV cache", "short", "Tokens held, by worker.", level("haif_engine_kv_tokens", "instance")),
        Panel("Preemptions", "ops", "Answers that gave their KV cells up for others and went on later, by worker.",
              rate("haif_engine_preemptions_total", "instance")),
        Panel("Engine deaths", "short", "Children that ended unasked, and models quarantined, in an hour.", (
            ("{{instance}}", "sum by (instance) (increase(haif_engine_deaths_total[1h]))"),
            ("quarantined {{instance}}", "sum by (instance) (increase(haif_worker_quarantines_total[1h]))"),
        )),
        Panel("Models", "short", "Models of workers in each state, and moves between memory and disk per second.", (
            *level("haif_worker_model_state", "state"),
            *named("to", rate("haif_worker_model_moves_total", "to")),
        )),
        Panel("Memory for models", "bytes", "What models may take, take, and what each would.", (
            *level("haif_worker_memory_bytes", "use"),
            *level("haif_worker_model_memory_bytes", "model"),
        )),
        Panel("Until a model is ready", "s", "For a request given now.",
              (("{{instance}} {{model}}", "haif_worker_model_ready_seconds"),)),
        Panel("Sandbox layers", "short", "Workers that enforce each layer.", level("haif_sandbox_layer", "layer")),
    )),
    ("Mesh", (
        Panel("Dropped", "ops", "Messages, records and requests refused.", (
            ("{{job}} {{reason}}", f"sum by (job, reason) (rate(haif_dropped_total{RATE}))"),
        )),
        Panel("Noise sessions and calls", "short", "Open, by role.", (
            *named("sessions", level("haif_wire_sessions", "job")),
            *named("calls", level("haif_wire_calls_open", "job")),
        )),
        Panel("Handshakes", "ops", "By outcome.", rate("haif_wire_handshakes_total", "outcome")),
        Panel("Bytes", "Bps", "Over Noise sessions, by role and direction.", (
            ("{{job}} {{direction}}", f"sum by (job, direction) (rate(haif_wire_bytes_total{RATE}))"),
        )),
        Panel("Network", "short", "Revoked peers; 1 where no list of revocations came for 30 days.", (
            ("revoked {{job}}", "max by (job) (haif_network_revoked)"),
            ("old lists {{job}}", "max by (job) (haif_network_lists_stale)"),
        )),
        Panel("Relays", "short", "Places held, circuits open, circuits asked for, and sessions that moved elsewhere.", (
            *named("places", level("haif_relay_places", "instance")),
            *named("circuits", level("haif_relay_circuits_open", "instance")),
            *named("asked for", rate("haif_relay_circuits_total", "outcome")),
            *named("moves", rate("haif_wire_moves_total", "job")),
        )),
        Panel("Relayed", "Bps", "Bytes passed on in circuits.", rate("haif_relay_bytes_total", "instance")),
        Panel("DHT", "short", "Contacts, records, operations in progress, size of the network, eclipses suspected.", (
            *named("contacts", level("haif_dht_nodes", "job")),
            ("network {{job}}", "max by (job) (haif_dht_nodes_estimated)"),
            *named("eclipses", rate("haif_dht_eclipses_suspected_total", "job")),
            *named("records", level("haif_dht_records", "job")),
            *named("operations", level("haif_dht_operations", "job")),
        )),
        Panel("DHT store", "short", "Records kept for others, and megabytes; places waited for.", (
            *named("records", level("haif_dht_records", "job")),
            ("MB {{job}}", "sum by (job) (haif_dht_store_bytes) / 1e6"),
            *named("waiting", level("haif_dht_waiting", "job")),
        )),
        Panel("DHT tickets", "ops", "Given, shown again in time or in vain; records of ours let in; records carried to the other family.", (
            *named("tickets", rate("haif_dht_tickets_total", "outcome")),
            *named("let in", rate("haif_dht_admitted_total", "job")),
            *named("carried over,", rate("haif_dht_carried_total", "whose")),
        )),
        Panel("DHT watching", "short", "Topics watched, registrations of others, and how changes were learnt.", (
            *named("watched", level("haif_dht_watches", "job")),
            *named("watchers", level("haif_dht_watchers", "job")),
            *named("learnt by", rate("haif_dht_watched_records_total", "by")),
        )),
        Panel("DHT lookups: hops", "short", "Queries in a row that led to the closest peer.",
              quantiles("haif_dht_lookup_hops", "job")),
        Panel("DHT lookups: time", "s", "With the reading or writing that followed.",
              quantiles("haif_dht_lookup_seconds", "job")),
        Panel("DHT queries", "ops", "Served to others, and what became of our own.",
              rate("haif_dht_queries_total", "outcome")),
        Panel("DHT traffic", "Bps", "Bytes and datagrams per second, by direction.", (
            *named("bytes", rate("haif_dht_bytes_total", "direction")),
            *named("datagrams", rate("haif_dht_datagrams_total", "direction")),
        )),
        Panel("Reach", "short", "How peers see the nodes, who may be relied upon, and the ways of sessions dialled.", (
            *named("seen", level("haif_reach_mapping", "mapping")),
            *named("persistent", level("haif_reach_persistent", "job")),
            *named("sessions", rate("haif_reach_sessions_total", "way")),
        )),
        Panel("Processor and memory", "short", "Cores in use, and resident gigabytes, of each process.", (
            ("cores {{job}}", f"sum by (job) (rate(process_cpu_seconds_total{RATE}))"),
            ("GB {{job}}", "sum by (job) (process_resident_memory_bytes) / 1e9"),
        )),
        Panel("Running", "short", "Processes by role and version, and spans lost per second.", (
            ("{{role}} {{version}}", "sum by (role, version) (haif_build_info)"),
            ("spans lost", f"sum(rate(haif_spans_lost_total{RATE}))"),
        )),
    )),
)  # fmt: skip


def dashboard() -> dict[str, Any]:
    """The whole dashboard, as Grafana 11 imports it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS:
        panels.append(_row(len(panels) + 1, title, top))
        top += 1
        for place, panel in enumerate(row):
            left, down = place % COLUMNS, place // COLUMNS
            panels.append(_panel(len(panels) + 1, panel, left * 24 // COLUMNS, top + down * HEIGHT))
        top += -(-len(row) // COLUMNS) * HEIGHT
    return {
        "uid": "haif-mesh",
        "title": "HAIF mesh",
        "tags": ["haif"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "5s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "templating": {
            "list": [{"name": "datasource", "label": "Source", "type": "datasource", "query": "prometheus"}]
        },
        "annotations": {"list": []},
        "panels": panels,
    }


def _row(number: int, title: str, top: int) -> dict[str, Any]:
    place = {"x": 0, "y": top, "w": 24, "h": 1}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


def _panel(number: int, panel: Panel, left: int, top: int) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + n), "datasource": SOURCE, "expr": query, "legendFormat": legend}
        for n, (legend, query) in enumerate(panel.queries)
    ]
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.help,
        "datasource": SOURCE,
        "gridPos": {"x": left, "y": top, "w": 24 // COLUMNS, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": {"fillOpacity": 10}}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": targets,
    }


def text() -> str:
    """The dashboard as the file holds it."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
