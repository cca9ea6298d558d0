"""Spans to a collector, over OTLP/HTTP with protobuf. Imported only where one is configured: it costs 60 ms."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

import haif
from haif.base import limits
from haif.base.errors import ConnectionLost, Misuse
from haif.telemetry.spans import Ended


class Collector:
    """An OTLP/HTTP endpoint: a base URL, to which `/v1/traces` is added, or the whole URL of the traces path.

    Headers come from `OTEL_EXPORTER_OTLP_HEADERS`, as everywhere. Raises `Misuse` for what is no http(s) URL.
    """

    def __init__(self, endpoint: str, *, role: str, instance: str) -> None:
        parts = urlsplit(endpoint)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise Misuse(f"{endpoint!r} is no OTLP endpoint: it must be like http://127.0.0.1:4318")
        path = parts.path.rstrip("/")
        whole = parts._replace(path=path if path.endswith("/v1/traces") else f"{path}/v1/traces").geturl()
        self._resource = Resource(
            {"service.name": f"haif-{role}", "service.instance.id": instance, "service.version": haif.__version__}
        )
        self._exporter = OTLPSpanExporter(endpoint=whole, timeout=limits.OTLP_SECONDS)

    def write(self, spans: Sequence[Ended]) -> None:
        """Deliver the spans, trying again for `limits.OTLP_SECONDS`. Raises `ConnectionLost`."""
        if self._exporter.export([readable(span, self._resource) for span in spans]) is not SpanExportResult.SUCCESS:
            raise ConnectionLost("the OTLP collector did not take them; check its address and that it runs")

    def close(self) -> None:
        """Stop trying."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


def readable(span: Ended, resource: Resource) -> ReadableSpan:
    """A span as the SDK exports it."""
    status = Status(StatusCode.ERROR, span.reason) if span.reason else Status()
    return ReadableSpan(
        span.name, _context(span.trace, span.span), _context(span.trace, span.parent) if span.parent else None,
        resource, span.attributes, status=status, start_time=span.start_ns, end_time=span.end_ns,
        instrumentation_scope=InstrumentationScope("haif", haif.__version__),
    )  # fmt: skip


def _context(trace: str, span: str) -> SpanContext:
    return SpanContext(int(trace, 16), int(span, 16), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
