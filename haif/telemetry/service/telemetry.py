"""What one process lets others see of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags

import haif
from haif.base import limits
from haif.base.errors import Dropped, Misuse
from haif.base.machine import Address
from haif.telemetry import names, redact
from haif.telemetry.context import parse_traceparent, write_traceparent
from haif.telemetry.names import Counter, Gauge, Histogram
from haif.telemetry.redact import Value
from haif.telemetry.service.meters import Meters
from haif.telemetry.service.pump import Pump, Sink
from haif.telemetry.service.scrape import MetricsServer
from haif.telemetry.service.store import SpanStore


class Span:
    """A span that is still open. `traceparent` goes into the metadata of the calls made inside it."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.traceparent = write_traceparent(context.trace_id, context.span_id)

    def set(self, key: str, value: Value) -> None:
        """Set an attribute. Raises `Misuse` if `names.ATTRIBUTES` does not declare it."""
        self._span.set_attribute(key, redact.attribute(key, value))

    def fail(self, reason: str) -> None:
        """Mark the span failed for `reason`, a `Reason` or another single word; sentences become "_OTHER"."""
        code = redact.code(reason)
        self._span.set_attribute(names.ERROR_TYPE, code)
        self._span.set_status(Status(StatusCode.ERROR, code))


class Telemetry:
    """Metrics and spans of one process. Nothing here is global: several live side by side in one test.

    `spans` is the SQLite file that keeps finished spans, `otlp` an OTLP/HTTP endpoint; either, both or none. Entering
    the block opens them and raises `Misuse` if that fails; leaving it writes what is queued, for a collector within
    `limits.TELEMETRY_CLOSE_SECONDS`. Spans and metrics may be used before and after, and then are not kept.
    """

    def __init__(self, *, role: str, instance: str, spans: Path | None = None, otlp: str | None = None) -> None:
        self._role, self._instance, self._spans, self._otlp = role, instance, spans, otlp
        self._provider = _provider(role, instance)
        self._tracer = self._provider.get_tracer("haif", haif.__version__)
        self._meters = Meters(role)
        self._pumps: list[Pump] = []
        self._servers: list[MetricsServer] = []
        self.gauge(names.BUILD_INFO, 1.0, version=haif.__version__, role=role)
        self.watch(lambda: self.total(names.SPANS_LOST, sum(pump.lost for pump in self._pumps)))

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for server in self._servers:
            await server.close()
        await asyncio.to_thread(self.close)

    def start(self) -> None:
        """Open the exporter and the span store. Raises `Misuse`."""
        sinks: list[tuple[str, Sink]] = []
        if self._otlp is not None:
            from haif.telemetry.service.otlp import Collector  # noqa: PLC0415 -- 60 ms that few need

            sinks.append(("the OTLP collector", Collector(self._otlp)))
        if self._spans is not None:
            store = SpanStore(self._spans, role=self._role, instance=self._instance)
            sinks.append(("the span store", store))
        for name, sink in sinks:
            pump = Pump(name, sink)
            self._pumps.append(pump)
            self._provider.add_span_processor(pump)

    def close(self) -> None:
        """Write what is queued and close. Blocks, at most about a second; leaving the block does it on a thread."""
        for pump in self._pumps:
            pump.close(limits.TELEMETRY_CLOSE_SECONDS)

    def flush(self) -> bool:
        """Wait, on this thread, until every span that has ended is written; False if time ran out."""
        milliseconds = int(limits.OTLP_SECONDS * 1000)
        return all(pump.force_flush(milliseconds) for pump in self._pumps)

    # --- spans --------------------------------------------------------------------------------------------------------

    @contextmanager
    def span(
        self, name: str, *, parent: str | None = None, attributes: Mapping[str, Value] | None = None
    ) -> Iterator[Span]:
        """A span around a block of code. `parent` is a traceparent; without a valid one a new trace begins.

        An exception that leaves the block marks the span failed with its `Reason`, or with the name of its class; what
        it says is not recorded. Raises `Misuse` for an attribute that is not declared.
        """
        opened = self._tracer.start_span(
            redact.line(name), _under(parent), attributes=redact.attributes(attributes or {}), record_exception=False
        )
        span = Span(opened)
        try:
            yield span
        except (asyncio.CancelledError, GeneratorExit):
            span.fail(redact.CANCELLED)
            raise
        except BaseException as error:
            span.fail(redact.error_code(error))
            raise
        finally:
            opened.end()

    def record_span(
        self, name: str, *, parent: str, start_ns: int, end_ns: int, attributes: Mapping[str, Value] | None = None
    ) -> None:
        """A span that is already over, with its times in ns since the epoch. Raises `Misuse` if it ends too early."""
        if end_ns < start_ns:
            raise Misuse(f"the span {redact.line(name)!r} ends {start_ns - end_ns} ns before it starts")
        allowed = redact.attributes(attributes or {})
        span = self._tracer.start_span(redact.line(name), _under(parent), attributes=allowed, start_time=start_ns)
        span.end(end_ns)

    # --- metrics ------------------------------------------------------------------------------------------------------

    def count(self, metric: Counter, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter. Raises `Misuse` for labels the metric does not have."""
        self._meters.count(metric, amount, labels)

    def total(self, metric: Counter, value: float, **labels: str) -> None:
        """Bring a counter up to a total that a `statistics()` keeps. Raises `Misuse` as `count`."""
        self._meters.total(metric, value, labels)

    def gauge(self, metric: Gauge, value: float, **labels: str) -> None:
        """Set a gauge. Raises `Misuse` as `count`."""
        self._meters.gauge(metric, value, labels)

    def observe(self, metric: Histogram, value: float, **labels: str) -> None:
        """Add one measurement, in the metric's unit. Raises `Misuse` as `count`."""
        self._meters.observe(metric, value, labels)

    def dropped(self, event: Dropped) -> None:
        """Count what a machine refused, by reason."""
        self.count(names.DROPPED, reason=event.reason)

    def watch(self, refresh: Callable[[], None]) -> None:
        """Call `refresh` before each exposition, on the thread that asks for it: the place to read `statistics()`."""
        self._meters.watch(refresh)

    def exposition(self) -> bytes:
        """Every metric, in the Prometheus text format 0.0.4."""
        return self._meters.exposition()

    async def serve_metrics(self, host: str = "127.0.0.1", port: int = 0) -> Address:
        """Answer `GET /metrics` until the block is left; returns where. Raises `OSError` if the address is taken.

        It asks for no credential and encrypts nothing: give it another host than loopback only where that is wanted.
        """
        server = MetricsServer(self.exposition)
        address = await server.start(host, port)
        self._servers.append(server)
        return address


def _provider(role: str, instance: str) -> TracerProvider:
    resource = {"service.name": f"haif-{role}", "service.instance.id": instance, "service.version": haif.__version__}
    return TracerProvider(
        sampler=ALWAYS_ON,
        resource=Resource(resource),
        shutdown_on_exit=False,
        span_limits=SpanLimits(max_span_attributes=limits.SPAN_ATTRIBUTES_MAX, max_events=0, max_links=0),
    )


def _under(parent: str | None) -> Context:
    """The context of a remote parent; always explicit, so that nothing ambient decides where a span belongs."""
    found = parse_traceparent(parent)
    if found is None:
        return Context()
    remote = SpanContext(found.trace, found.span, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return trace.set_span_in_context(NonRecordingSpan(remote), Context())
