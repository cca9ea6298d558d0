"""What one process lets others see of itself."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

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
from haif.telemetry.spans import Ended


class Span:
    """A span around a block of code: `with telemetry.span(…) as span`.

    `traceparent` goes into the metadata of the calls made inside it. An exception that leaves the block marks the span
    failed with its `Reason`, or with the name of its class; what it says is not recorded.
    """

    __slots__ = ("_attributes", "_end", "_id", "_name", "_parent", "_start_ns", "_trace", "traceparent")

    def __init__(
        self, name: str, parent: str | None, attributes: dict[str, Value], end: Callable[[Ended], None]
    ) -> None:
        self._name, self._attributes, self._end = name, attributes, end
        above = parse_traceparent(parent)
        self._trace, self._parent = (above.trace, above.span) if above else (f"{_draw(128):032x}", "")
        self._id = f"{_draw(64):016x}"
        self.traceparent = write_traceparent(self._trace, self._id)
        self._start_ns = time.time_ns()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            cancelled = isinstance(error, asyncio.CancelledError | GeneratorExit)
            self.fail(redact.CANCELLED if cancelled else redact.error_code(error))
        self.end(time.time_ns())

    def set(self, key: str, value: Value) -> None:
        """Set an attribute. Raises `Misuse` if `names.ATTRIBUTES` does not declare it."""
        self._attributes[key] = redact.attribute(key, value)

    def fail(self, reason: str) -> None:
        """Mark the span failed for `reason`, a `Reason` or another single word; sentences become "_OTHER"."""
        self._attributes[names.ERROR_TYPE] = redact.code(reason)

    def end(self, end_ns: int, start_ns: int | None = None) -> None:
        """It is over. `start_ns`, where it began at another time than it was made."""
        start = self._start_ns if start_ns is None else start_ns
        self._end(Ended(self._name, self._trace, self._id, self._parent, start, end_ns, self._attributes))


def _draw(bits: int) -> int:
    """A random id that is not zero, which would mean none (W3C Trace Context, section 3.2.2)."""
    return random.getrandbits(bits) or 1


class Telemetry:
    """Metrics and spans of one process. Nothing here is global: several live side by side in one test.

    `spans` is the SQLite file that keeps finished spans, `otlp` an OTLP/HTTP endpoint; either, both or none. Entering
    the block opens them and raises `Misuse` if that fails; leaving it writes what is queued, for a collector within
    `limits.TELEMETRY_CLOSE_SECONDS`. Spans and metrics may be used before and after, and then are not kept.
    """

    def __init__(self, *, role: str, instance: str, spans: Path | None = None, otlp: str | None = None) -> None:
        self._role, self._instance, self._spans, self._otlp = role, instance, spans, otlp
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

            collector = Collector(self._otlp, role=self._role, instance=self._instance)
            sinks.append(("the OTLP collector", collector))
        if self._spans is not None:
            store = SpanStore(self._spans, role=self._role, instance=self._instance)
            sinks.append(("the span store", store))
        for name, sink in sinks:
            self.carry(Pump(name, sink))

    def carry(self, pump: Pump) -> None:
        """Have this pump carry every span that ends from now on."""
        self._pumps.append(pump)

    def close(self) -> None:
        """Write what is queued and close. Blocks, at most about a second; leaving the block does it on a thread."""
        for pump in self._pumps:
            pump.close(limits.TELEMETRY_CLOSE_SECONDS)

    def flush(self) -> bool:
        """Wait, on this thread, until every span that has ended is written; False if time ran out."""
        return all(pump.flush(limits.OTLP_SECONDS) for pump in self._pumps)

    # --- spans --------------------------------------------------------------------------------------------------------

    def span(self, name: str, *, parent: str | None = None, attributes: Mapping[str, Value] | None = None) -> Span:
        """A span around a block of code. `parent` is a traceparent; without a valid one a new trace begins.

        Raises `Misuse` for an attribute that is not declared.
        """
        return Span(redact.line(name), parent, redact.attributes(attributes or {}), self._ended)

    def record_span(
        self, name: str, *, parent: str, start_ns: int, end_ns: int, attributes: Mapping[str, Value] | None = None
    ) -> None:
        """A span that is already over, with its times in ns since the epoch. Raises `Misuse` if it ends too early."""
        if end_ns < start_ns:
            raise Misuse(f"the span {redact.line(name)!r} ends {start_ns - end_ns} ns before it starts")
        self.span(name, parent=parent, attributes=attributes).end(end_ns, start_ns)

    def _ended(self, span: Ended) -> None:
        for pump in self._pumps:
            pump.put(span)

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
