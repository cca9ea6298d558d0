"""Spans to a collector, over OTLP/HTTP with protobuf. Imported only where one is configured: it costs 60 ms."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

from haif.base import limits
from haif.base.errors import ConnectionLost, Misuse


class Collector:
    """An OTLP/HTTP endpoint: a base URL, to which `/v1/traces` is added, or the whole URL of the traces path.

    Headers come from `OTEL_EXPORTER_OTLP_HEADERS`, as everywhere. Raises `Misuse` for what is no http(s) URL.
    """

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise Misuse(f"{endpoint!r} is no OTLP endpoint: it must be like http://127.0.0.1:4318")
        path = parts.path.rstrip("/")
        whole = parts._replace(path=path if path.endswith("/v1/traces") else f"{path}/v1/traces").geturl()
        self._exporter = OTLPSpanExporter(endpoint=whole, timeout=limits.OTLP_SECONDS)

    def write(self, spans: Sequence[ReadableSpan]) -> None:
        """Deliver the spans, trying again for `limits.OTLP_SECONDS`. Raises `ConnectionLost`."""
        if self._exporter.export(spans) is not SpanExportResult.SUCCESS:
            raise ConnectionLost("the OTLP collector did not take them; check its address and that it runs")

    def close(self) -> None:
        """Stop trying."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]
