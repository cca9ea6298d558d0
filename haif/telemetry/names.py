"""Every metric, span and span attribute has its name here, once.

Metrics follow the Prometheus conventions: base units, `_total` for counters, label sets that are bounded. A label with
`values` is closed: its series exist, at zero, from the start, so that a rate can be seen from the first event on. A
label without is open (models), and a metric keeps at most `limits.METRIC_SERIES_MAX` series. No metric carries a
tenant, a peer or a job: those are in spans.

Names that begin with `gen_ai` are the OpenTelemetry semantic conventions for generative AI
(open-telemetry/semantic-conventions-genai), written as Prometheus writes them: underscores, the unit at the end. Those
conventions are still moving: this file is the one place to follow them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from haif.base.errors import Reason

# --- shapes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Label:
    """One dimension of a metric. `values` empty: open."""

    name: str
    help: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Counter:
    """Something that is counted and never goes down while the process lives. `roles` expose it from their start."""

    name: str
    help: str
    roles: tuple[str, ...]
    labels: tuple[Label, ...] = ()


@dataclass(frozen=True, slots=True)
class Gauge:
    """Something that goes up and down."""

    name: str
    help: str
    roles: tuple[str, ...]
    labels: tuple[Label, ...] = ()


@dataclass(frozen=True, slots=True)
class Histogram:
    """Something that is measured again and again. `buckets` are upper bounds in the unit that ends the name."""

    name: str
    help: str
    roles: tuple[str, ...]
    buckets: tuple[float, ...]
    labels: tuple[Label, ...] = ()


Metric = Counter | Gauge | Histogram

# --- roles and labels -------------------------------------------------------------------------------------------------

GATEWAY: Final = "gateway"
ORCHESTRATOR: Final = "orchestrator"
WORKER: Final = "worker"
NODE: Final = "node"
RELAY: Final = "relay"
VALIDATOR: Final = "validator"
ROLES: Final = (GATEWAY, ORCHESTRATOR, WORKER, RELAY, VALIDATOR, NODE)
_WIRED: Final = (GATEWAY, ORCHESTRATOR, WORKER, RELAY, VALIDATOR)

REASONS: Final = tuple(reason.value for reason in Reason)
JOB_STATES: Final = ("submitted", "reserved", "retried", "finalised", "failed", "judged")
MODEL_STATES: Final = ("cold", "loading", "warm", "leaving", "quarantined")
SANDBOX_LAYERS: Final = (  # in the words of the engine child's own statement
    "own process", "clean environment", "no other files", "dies with its parent", "no new privileges", "not traceable",
    "rlimits", "not root", "no capabilities", "seccomp", "landlock", "namespaces", "empty root", "cgroups",
)  # fmt: skip

REASON: Final = Label("reason", "a `Reason` of base/errors.py", REASONS)
ENDPOINT: Final = Label(
    "endpoint",
    "what was asked for",
    (
        "chat.completions", "completions", "responses", "messages", "embeddings", "rerank", "models", "health",
        "other",
    ),
)  # fmt: skip
MODEL: Final = Label("model", "a model's published name; `unknown` for every name that nobody offers")
SERVICE: Final = Label("service", "a class of service", ("interactive", "batch"))
CODE: Final = Label("code", "HTTP status")
DIMENSION: Final = Label(
    "dimension", "the allowance that was used up", ("requests", "tokens", "streams", "budget", "address")
)
STATE: Final = Label("state", "the state a job went into", JOB_STATES)
OUTCOME: Final = Label("outcome", "`ok`, `cancelled`, or a `Reason`", ("ok", "cancelled", *REASONS))
REDRIVE: Final = Label("outcome", "whether it was answered this time", ("answered", "failed"))
HANDSHAKE: Final = Label("outcome", "whether it was completed; `haif_dropped_total` says why not", ("ok", "failed"))
CIRCUIT: Final = Label("outcome", "whether both ends came; `haif_dropped_total` says why not", ("joined", "failed"))
QUERY: Final = Label(
    "outcome",
    "`served` to others; of our own: `accepted`, `resent`, `failed`",
    ("served", "accepted", "resent", "failed"),
)
MAPPING: Final = Label(
    "mapping", "how peers see this node; 1 at the one that holds", ("open", "consistent", "random", "unknown")
)
FAMILY: Final = Label("family", "of the addresses of a directory this node stands in: `ipv4` or `ipv6`")
WHOSE: Final = Label("whose", "`ours`, carried by others; or of `others`, by us", ("ours", "others"))
WAY: Final = Label(
    "way",
    "`direct` or `relayed` when dialled; of the relayed, `moved` to a direct way later, or `failed` to",
    ("direct", "relayed", "moved", "failed"),
)
TICKET: Final = Label(
    "outcome",
    "`given`; of those shown again: `redeemed` in time, or `void` (forged, of another record or address, too late)",
    ("given", "redeemed", "void"),
)
NEWS: Final = Label("by", "`notice`, or a `read` that brought what no notice had", ("notice", "read"))
MODEL_STATE: Final = Label("state", "1 at the one that holds", MODEL_STATES)
USE: Final = Label("use", "`budget`: what they may take; `models`: what those in memory take", ("budget", "models"))
MOVE: Final = Label("to", "into `memory`, or back to `disk`", ("memory", "disk"))
LAYER: Final = Label("layer", "a layer of the engine child's sandbox", SANDBOX_LAYERS)
FINDING: Final = Label("finding", "what a verdict says", ("honest", "convicted", "undecided"))
CAUSE: Final = Label(
    "cause",
    "what differs, or why nothing could be decided (`haif/protocol/audits.py`); `none` where all is well",
    ("none", "tokens", "end", "text", "prompt", "logits", "payload", "recipe", "model", "request", "engine",
     "overloaded"),
)  # fmt: skip
DIRECTION: Final = Label("direction", "seen from this process", ("in", "out"))
ROLE: Final = Label("role", "what this process does")
VERSION: Final = Label("version", "of HAIF")

# --- buckets ----------------------------------------------------------------------------------------------------------

# The conventions' own, with finer ones below for small models and loopback.
TIME_TO_FIRST_TOKEN: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
TIME_PER_OUTPUT_TOKEN: Final = (
    0.0005, 0.001, 0.0025, 0.005,
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
)  # fmt: skip
REQUEST_DURATION: Final = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
)  # fmt: skip
DISK: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
HOPS: Final = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
WAIT: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

# --- every role -------------------------------------------------------------------------------------------------------

BUILD_INFO = Gauge("haif_build_info", "Always 1; the labels say what runs.", ROLES, (VERSION, ROLE))
DROPPED = Counter("haif_dropped_total", "Messages, records and requests refused, by reason.", ROLES, (REASON,))
SPANS_LOST = Counter("haif_spans_lost_total", "Spans that were not kept because the queue was full.", ROLES)

# --- gateway ----------------------------------------------------------------------------------------------------------

GATEWAY_REQUESTS = Counter(
    "haif_gateway_requests_total", "HTTP requests answered.", (GATEWAY,), (ENDPOINT, MODEL, CODE)
)
GATEWAY_INFLIGHT = Gauge("haif_gateway_inflight", "HTTP requests being answered now.", (GATEWAY,))
GATEWAY_CERTIFICATE_EXPIRES = Gauge(
    "haif_gateway_certificate_expires_timestamp_seconds",
    "When the API's certificate, or an authority of its clients, expires, in Unix time; 0 without TLS.",
    (GATEWAY,),
)
GATEWAY_REQUEST_DURATION = Histogram(
    "gen_ai_server_request_duration_seconds",
    "From the first byte of a request to the last byte of its answer.",
    (GATEWAY,),
    REQUEST_DURATION,
    (MODEL,),
)
GATEWAY_TIME_TO_FIRST_TOKEN = Histogram(
    "gen_ai_server_time_to_first_token_seconds",
    "From a whole request to the first token of its answer, as the tenant sees it.",
    (GATEWAY,),
    TIME_TO_FIRST_TOKEN,
    (MODEL,),
)
GATEWAY_QUEUE_SECONDS = Histogram(
    "haif_gateway_queue_seconds", "In the gateway's line for a slot of the model.", (GATEWAY,), TIME_TO_FIRST_TOKEN,
    (MODEL, SERVICE),
)  # fmt: skip
GATEWAY_TIME_PER_OUTPUT_TOKEN = Histogram(
    "gen_ai_server_time_per_output_token_seconds",
    "Mean time per token after the first, one value per answer.",
    (GATEWAY,),
    TIME_PER_OUTPUT_TOKEN,
    (MODEL,),
)
GATEWAY_TOKENS_IN = Counter("haif_gateway_tokens_in_total", "Prompt tokens of answered requests.", (GATEWAY,), (MODEL,))
GATEWAY_TOKENS_OUT = Counter("haif_gateway_tokens_out_total", "Tokens delivered to tenants.", (GATEWAY,), (MODEL,))
GATEWAY_RATE_LIMITED = Counter(
    "haif_gateway_rate_limited_total", "Requests refused because an allowance was used up.", (GATEWAY,), (DIMENSION,)
)
GATEWAY_RETRIES = Counter(
    "haif_gateway_retries_total", "Attempts that failed and were placed again, elsewhere.", (GATEWAY,), (REASON,),
)  # fmt: skip
GATEWAY_RESUMED = Counter(
    "haif_gateway_resumed_total", "Of these, answers that another worker went on with in their middle.", (GATEWAY,),
    (REASON,),
)  # fmt: skip

PAYLOADS_GIVEN = Counter(
    "haif_gateway_payloads_given_total", "Requests and answers that validators drew and were given.", (GATEWAY,)
)
DLQ_LETTERS = Gauge("haif_dlq_letters", "Requests that failed for good and wait for somebody to look.", (GATEWAY,))
DLQ_OLDEST_SECONDS = Gauge("haif_dlq_oldest_seconds", "For how long the oldest of them has waited.", (GATEWAY,))
DLQ_REDRIVEN = Counter(
    "haif_dlq_redriven_total", "Dead letters that were run again, by what came of it.", (GATEWAY,), (REDRIVE,)
)

# --- orchestrator -----------------------------------------------------------------------------------------------------

JOB_TRANSITIONS = Counter("haif_job_transitions_total", "Jobs that went into a state.", (ORCHESTRATOR,), (STATE,))
JOBS_OPEN = Gauge("haif_jobs_open", "Jobs placed and not yet over.", (ORCHESTRATOR,))
WORKERS_LIVE = Gauge("haif_workers_live", "Workers with a verified offer and a recent heartbeat.", (ORCHESTRATOR,))
PAUSES = Gauge("haif_pauses", "Orders of the operator that pause something now.", (ORCHESTRATOR,))
BREAKERS_OPEN = Gauge(
    "haif_breakers_open", "Workers that get no work on a model, or single jobs to see whether they are well.",
    (ORCHESTRATOR,),
)  # fmt: skip
PLACEMENTS = Counter("haif_placements_total", "Attempts placed on a worker.", (ORCHESTRATOR,))
PLACEMENT_FAILURES = Counter(
    "haif_placement_failures_total", "Attempts for which no worker was found, by reason.", (ORCHESTRATOR,), (REASON,)
)
JOURNAL_APPEND = Histogram(
    "haif_journal_append_seconds", "Time until journal entries are durable.", (ORCHESTRATOR,), DISK
)
SNAPSHOTS = Counter("haif_journal_snapshots_total", "Snapshots of the journal that were kept.", (ORCHESTRATOR,))
TAKEOVERS = Counter("haif_job_takeovers_total", "Jobs taken over from orchestrators that were gone.", (ORCHESTRATOR,))
REJOINS = Counter("haif_orchestrator_rejoins_total", "Times that the lease was lost and claimed anew.", (ORCHESTRATOR,))
JOURNAL_ENTRIES = Counter("haif_journal_entries_total", "Entries made durable in the journal.", (ORCHESTRATOR,))
HEARTBEATS = Counter("haif_heartbeats_received_total", "Heartbeats that verified.", (ORCHESTRATOR,))

VERDICTS = Counter("haif_verdicts_total", "Verdicts that were taken.", (ORCHESTRATOR,), (FINDING, CAUSE))
WORKERS_CONVICTED = Gauge("haif_workers_convicted", "Workers that get no work since a conviction.", (ORCHESTRATOR,))
WORKERS_ASIDE = Gauge(
    "haif_workers_aside", "Workers that get no work while a panel looks at an accusation.", (ORCHESTRATOR,)
)
WORKERS_INCOMPARABLE = Gauge(
    "haif_workers_incomparable", "Workers that compute by a recipe that no validator has.", (ORCHESTRATOR,)
)
PANELS = Counter("haif_panels_total", "Panels that are over, by what they found.", (ORCHESTRATOR,), (FINDING,))
PANEL_ABSENCES = Counter(
    "haif_panel_absences_total", "Seats in panels whose members showed nothing in time.", (ORCHESTRATOR,)
)
PANELS_OPEN = Gauge("haif_panels_open", "Panels that sit.", (ORCHESTRATOR,))
VALIDATORS_REFUTED = Gauge(
    "haif_validators_refuted", "Validators whose word counts for nothing since a panel refuted it.", (ORCHESTRATOR,)
)
AUDITS_DUE = Counter(
    "haif_audits_due_total", "Receipts that validators had to audit, by the draws they revealed.", (ORCHESTRATOR,)
)
AUDITS_MISSED = Counter("haif_audits_missed_total", "Of these, those without a verdict.", (ORCHESTRATOR,))
VALIDATORS_WITHHOLDING = Gauge(
    "haif_validators_withholding", "Validators that showed none of the latest draws they had to show.", (ORCHESTRATOR,)
)
AUDITS_UNDRAWN = Counter("haif_audits_undrawn_total", "Verdicts on receipts that were not drawn.", (ORCHESTRATOR,))

# --- validator --------------------------------------------------------------------------------------------------------

AUDITS_SEEN = Counter("haif_audits_seen_total", "Receipts that were looked at.", (VALIDATOR,))
AUDITS_DRAWN = Counter("haif_audits_drawn_total", "Of these, those that were drawn.", (VALIDATOR,))
AUDITS_WAITING = Gauge("haif_audits_waiting", "Receipts drawn and not judged yet.", (VALIDATOR,))
AUDITS_JUDGED = Counter("haif_audits_judged_total", "Receipts judged.", (VALIDATOR,), (FINDING, CAUSE))
AUDIT_DURATION = Histogram("haif_audit_seconds", "Computing one answer again.", (VALIDATOR,), REQUEST_DURATION)
AUDIT_TOKENS = Counter("haif_audit_tokens_total", "Tokens of answers that were computed again.", (VALIDATOR,))

# --- worker and engine ------------------------------------------------------------------------------------------------

WORKER_SLOTS = Gauge("haif_worker_slots", "Requests that can run at once.", (WORKER,), (MODEL,))
WORKER_RUNNING = Gauge("haif_worker_running", "Requests running now.", (WORKER,), (MODEL,))
WORKER_QUEUE_DEPTH = Gauge("haif_worker_queue_depth", "Requests waiting for a slot.", (WORKER,), (MODEL,))
WORKER_QUEUE = Histogram("haif_worker_queue_seconds", "Time a request waited for a slot.", (WORKER,), WAIT, (MODEL,))
WORKER_REQUESTS = Counter("haif_worker_requests_total", "Reserved requests that ended.", (WORKER,), (OUTCOME,))
WORKER_TOKENS_IN = Counter("haif_worker_tokens_in_total", "Prompt tokens of finished requests.", (WORKER,), (MODEL,))
WORKER_TOKENS_CACHED = Counter(
    "haif_worker_tokens_cached_total", "Prompt tokens reused from an earlier request.", (WORKER,), (MODEL,)
)
WORKER_TOKENS_OUT = Counter("haif_worker_tokens_out_total", "Tokens sent to gateways.", (WORKER,), (MODEL,))
WORKER_MODEL_STATE = Gauge(
    "haif_worker_model_state", "Where each model of the worker stands.", (WORKER,), (MODEL, MODEL_STATE)
)
WORKER_MODEL_MEMORY = Gauge(
    "haif_worker_model_memory_bytes", "What each model takes of the memory, or would.", (WORKER,), (MODEL,)
)
WORKER_MODEL_READY = Gauge(
    "haif_worker_model_ready_seconds", "Until a request given now could begin; 0 in memory.", (WORKER,), (MODEL,)
)
WORKER_MEMORY = Gauge("haif_worker_memory_bytes", "Memory for models.", (WORKER,), (USE,))
WORKER_MODEL_MOVES = Counter("haif_worker_model_moves_total", "Models loaded and unloaded.", (WORKER,), (MOVE,))
WORKER_QUARANTINES = Counter(
    "haif_worker_quarantines_total", "Models that were quarantined because their engine children died.", (WORKER,)
)
ENGINE_DEATHS = Counter("haif_engine_deaths_total", "Engine children that ended unasked or did not load.", (WORKER,))
ENGINE_PREFILL_TOKENS = Counter("haif_engine_prefill_tokens_total", "Prompt tokens computed.", (WORKER,))
ENGINE_DECODE_TOKENS = Counter("haif_engine_decode_tokens_total", "Tokens generated.", (WORKER,))
ENGINE_BATCH_OCCUPANCY = Gauge(
    "haif_engine_batch_occupancy_ratio", "Sequences being computed, as a share of the slots.", (WORKER,)
)
ENGINE_PREEMPTIONS = Counter(
    "haif_engine_preemptions_total", "Answers that gave their KV cells up for others and went on later.", (WORKER,)
)
ENGINE_KV_TOKENS = Gauge("haif_engine_kv_tokens", "Tokens held in the KV cache.", (WORKER,))
SANDBOX_LAYER = Gauge("haif_sandbox_layer", "1 where the layer is enforced, 0 where it is not.", (WORKER,), (LAYER,))

# --- mesh -------------------------------------------------------------------------------------------------------------

WIRE_SESSIONS = Gauge("haif_wire_sessions", "Open Noise sessions.", _WIRED)
WIRE_CALLS = Gauge("haif_wire_calls_open", "Calls and streams in progress.", _WIRED)
WIRE_BYTES = Counter("haif_wire_bytes_total", "Bytes over Noise sessions, as on the network.", _WIRED, (DIRECTION,))
WIRE_HANDSHAKES = Counter("haif_wire_handshakes_total", "Noise handshakes, by outcome.", _WIRED, (HANDSHAKE,))
NETWORK_REVOKED = Gauge("haif_network_revoked", "Peers that the lists of revocations in force name.", ROLES)
NETWORK_LISTS_STALE = Gauge("haif_network_lists_stale", "1 if the network's roots gave out no list for 30 days.", ROLES)
WIRE_MOVES = Counter("haif_wire_moves_total", "Sessions that went on over another path.", _WIRED)
RELAY_PLACES = Gauge("haif_relay_places", "Peers that can be met through this relay.", (RELAY,))
RELAY_CIRCUITS = Gauge("haif_relay_circuits_open", "Circuits that are open.", (RELAY,))
RELAY_CIRCUITS_TOTAL = Counter("haif_relay_circuits_total", "Circuits asked for, by outcome.", (RELAY,), (CIRCUIT,))
RELAY_BYTES = Counter("haif_relay_bytes_total", "Bytes passed on in circuits, both directions.", (RELAY,))
DHT_NODES = Gauge("haif_dht_nodes", "Contacts in the routing table.", ROLES)
DHT_NODES_ESTIMATED = Gauge("haif_dht_nodes_estimated", "Nodes the whole network seems to have.", ROLES)
DHT_ECLIPSES = Counter("haif_dht_eclipses_suspected_total", "Lookups in a far too dense neighbourhood.", ROLES)
DHT_RECORDS = Gauge("haif_dht_records", "Records kept for others.", ROLES)
DHT_STORE_BYTES = Gauge("haif_dht_store_bytes", "What they take, with the store's own share.", ROLES)
DHT_TICKETS = Counter("haif_dht_tickets_total", "Tickets to wait for a place in our store.", ROLES, (TICKET,))
DHT_WAITING = Gauge("haif_dht_waiting", "Places at other nodes that our records wait for.", ROLES)
DHT_ADMITTED = Counter("haif_dht_admitted_total", "Our records that got such a place.", ROLES)
DHT_CARRIED = Counter(
    "haif_dht_carried_total", "Records carried into the other family's directory, IPv4 or IPv6.", ROLES, (WHOSE,)
)
DHT_WATCHES = Gauge("haif_dht_watches", "Topics that are watched here.", ROLES)
DHT_WATCHERS = Gauge("haif_dht_watchers", "Registrations of others who are told what is stored here.", ROLES)
DHT_WATCHED = Counter("haif_dht_watched_records_total", "Records of watched topics, by how we learnt.", ROLES, (NEWS,))
DHT_LOOKUP_HOPS = Histogram(
    "haif_dht_lookup_hops", "Queries in a row that led to the closest peer; 1: our table had it.", ROLES, HOPS
)
DHT_LOOKUP_SECONDS = Histogram(
    "haif_dht_lookup_seconds", "A lookup with the reading or writing that followed it.", ROLES, REQUEST_DURATION
)
DHT_OPERATIONS = Gauge("haif_dht_operations", "Lookups and publications in progress.", ROLES)
DHT_QUERIES = Counter("haif_dht_queries_total", "Queries, by what became of them.", ROLES, (QUERY,))
DHT_DATAGRAMS = Counter("haif_dht_datagrams_total", "UDP datagrams of the DHT.", ROLES, (DIRECTION,))
DHT_BYTES = Counter("haif_dht_bytes_total", "Bytes in those datagrams.", ROLES, (DIRECTION,))
REACH_MAPPING = Gauge("haif_reach_mapping", "What peers see of the NAT before this node.", ROLES, (MAPPING, FAMILY))
REACH_PERSISTENT = Gauge("haif_reach_persistent", "1 if other nodes of the DHT may rely on this one.", ROLES, (FAMILY,))
REACH_SESSIONS = Counter("haif_reach_sessions_total", "Sessions dialled, by the way they took.", _WIRED, (WAY,))

ALL: Final[tuple[Metric, ...]] = tuple(
    value for value in list(globals().values()) if isinstance(value, Counter | Gauge | Histogram)
)
BY_NAME: Final[dict[str, Metric]] = {metric.name: metric for metric in ALL}

# --- spans ------------------------------------------------------------------------------------------------------------

CHAT: Final = "chat"  # gen_ai.operation.name; the gateway's root span is `inference_span(CHAT, model)`
TEXT_COMPLETION: Final = "text_completion"
EMBEDDINGS: Final = "embeddings"
RERANK: Final = "rerank"
SPAN_ADMIT: Final = "gateway.admit"  # token, tenant, bucket
SPAN_PLACE: Final = "gateway.place"  # ask the orchestrator for a worker
SPAN_STREAM: Final = "gateway.stream"  # redeem the reservation and receive the answer
SPAN_FINALISE: Final = "gateway.finalise"  # check, countersign, report
SPAN_SUBMIT: Final = "orchestrator.submit"
SPAN_RETRY: Final = "orchestrator.retry"
SPAN_JOB_FINAL: Final = "orchestrator.finalise"
SPAN_JOB_FAIL: Final = "orchestrator.fail"
SPAN_JOURNAL: Final = "orchestrator.journal"
SPAN_RUN: Final = "worker.run"
SPAN_RECEIPT: Final = "worker.receipt"
SPAN_ENGINE_QUEUE: Final = "engine.queue"  # the engine child's times, recorded by its parent
SPAN_ENGINE_PREFILL: Final = "engine.prefill"
SPAN_ENGINE_DECODE: Final = "engine.decode"


def inference_span(operation: str, model: str) -> str:
    """The name of the span around a whole request: "{operation} {model}" (GenAI semantic conventions)."""
    return f"{operation} {model}"


# --- span attributes --------------------------------------------------------------------------------------------------
# Only these may be set: no key stands for anything a tenant wrote or a model answered.

JOB: Final = "haif.job"  # JobId in hex
ATTEMPT: Final = "haif.attempt"
CORRELATION: Final = "haif.correlation"  # job.attempt
TENANT: Final = "haif.tenant"  # the tenant's id, never its key
PEER: Final = "haif.peer"  # whom this span is spent on, PeerId in hex
GATEWAY_PEER: Final = "haif.gateway"
ORCHESTRATOR_PEER: Final = "haif.orchestrator"
WORKER_PEER: Final = "haif.worker"
MODEL_DIGEST: Final = "haif.model_digest"
SANDBOX: Final = "haif.sandbox"
METHOD: Final = "rpc.method"
STATUS_CODE: Final = "http.response.status_code"
ERROR_TYPE: Final = "error.type"  # a `Reason`, or the name of an exception's class
OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
REQUEST_INPUTS: Final = "haif.request.inputs"  # texts to make vectors of
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_TOP_P: Final = "gen_ai.request.top_p"
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_FINISH_REASON: Final = "gen_ai.response.finish_reasons"
RESPONSE_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"  # seconds
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
QUEUE_DEPTH: Final = "haif.queue_depth"
ENTRIES: Final = "haif.journal.entries"

ATTRIBUTES: Final = frozenset({
    JOB, ATTEMPT, CORRELATION, TENANT, PEER, GATEWAY_PEER, ORCHESTRATOR_PEER, WORKER_PEER, MODEL_DIGEST, SANDBOX,
    METHOD, STATUS_CODE, ERROR_TYPE, OPERATION, PROVIDER, REQUEST_MODEL, REQUEST_STREAM, REQUEST_INPUTS,
    REQUEST_MAX_TOKENS, REQUEST_TEMPERATURE, REQUEST_TOP_P, RESPONSE_ID, RESPONSE_MODEL, RESPONSE_FINISH_REASON,
    RESPONSE_FIRST_CHUNK, INPUT_TOKENS, OUTPUT_TOKENS, QUEUE_DEPTH, ENTRIES,
})  # fmt: skip

SHOWN: Final = {  # what a person is shown of a span, and the word for it
    TENANT: "tenant",
    ATTEMPT: "attempt",
    WORKER_PEER: "worker",
    PEER: "for",
    MODEL_DIGEST: "model",
    INPUT_TOKENS: "tokens_in",
    OUTPUT_TOKENS: "tokens_out",
    RESPONSE_FIRST_CHUNK: "first_token_s",
    RESPONSE_FINISH_REASON: "finish",
    STATUS_CODE: "status",
    ENTRIES: "entries",
}


# --- the reference ----------------------------------------------------------------------------------------------------


def reference() -> str:
    """The text of docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "Printed from `haif/telemetry/names.py`; a test keeps the two equal. Each role serves these on `GET /metrics`.",
        "Series of closed labels exist at zero from the start. `roles` says who exposes a metric from its start.",
        "",
        "| metric | type | labels | roles | meaning |",
        "|---|---|---|---|---|",
        *(_row(metric) for metric in sorted(ALL, key=lambda metric: metric.name)),
        "",
        "## Labels",
        "",
        "| label | meaning | values |",
        "|---|---|---|",
        *(_label_row(label) for label in _labels()),
    ]
    return "\n".join(lines) + "\n"


def _row(metric: Metric) -> str:
    kind = type(metric).__name__.lower()
    labels = ", ".join(f"`{label.name}`" for label in metric.labels)
    return f"| `{metric.name}` | {kind} | {labels} | {', '.join(metric.roles)} | {metric.help} |"


def _label_row(label: Label) -> str:
    return f"| `{label.name}` | {label.help} | {', '.join(f'`{value}`' for value in label.values) or 'open'} |"


def _labels() -> list[Label]:
    found = {label for metric in ALL for label in metric.labels}
    return sorted(found, key=lambda label: (label.name, label.help))
