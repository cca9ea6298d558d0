"""Spans reach a real OTLP/HTTP endpoint, as protobuf, beside the local store."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from haif.base.errors import EngineDied, Misuse
from haif.telemetry import names
from haif.telemetry.service import Telemetry, read_trace

JOB = "0123456789abcdef0123456789abcdef"
CANARY = "the canary sings at midnight"


class Collector(ThreadingHTTPServer):
    """A small OTLP/HTTP sink: decodes what is posted, refuses what is not protobuf."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Post)
        self.paths: list[str] = []
        self.bodies: list[bytes] = []
        self.requests: list[ExportTraceServiceRequest] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Post(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        good = self.headers["Content-Type"] == "application/x-protobuf"
        self.server.paths.append(self.path)
        self.server.bodies.append(body)
        self.server.requests.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200 if good else 415)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def test_spans_reach_the_collector_and_the_store_alike(collector: Collector, tmp_path: Path) -> None:
    file = tmp_path / "spans.sqlite"
    async with Telemetry(role=names.GATEWAY, instance="g1", spans=file, otlp=collector.endpoint) as telemetry:
        with (
            telemetry.span("chat m", attributes={names.JOB: JOB, names.OUTPUT_TOKENS: 3}) as request,
            telemetry.span("gateway.place", parent=request.traceparent),
        ):
            pass
        assert telemetry.flush()
    exported = [each for request in collector.requests for each in request.resource_spans]
    resource = {each.key: each.value.string_value for each in exported[0].resource.attributes}
    found = {span.name: span for each in exported for scope in each.scope_spans for span in scope.spans}
    kept = {row.name: row for row in read_trace([file], JOB)}
    assert set(collector.paths) == {"/v1/traces"}
    assert (resource["service.name"], resource["service.instance.id"]) == ("haif-gateway", "g1")
    assert {name: span.span_id.hex() for name, span in found.items()} == {row.name: row.span for row in kept.values()}
    assert found["gateway.place"].parent_span_id == found["chat m"].span_id
    attributes = {each.key: each.value for each in found["chat m"].attributes}
    assert (attributes[names.JOB].string_value, attributes[names.OUTPUT_TOKENS].int_value) == (JOB, 3)
    assert found["chat m"].start_time_unix_nano == kept["chat m"].start_ns


async def test_what_an_exception_says_does_not_travel(collector: Collector) -> None:
    async with Telemetry(role=names.WORKER, instance="w", otlp=f"{collector.endpoint}/v1/traces") as telemetry:
        with pytest.raises(EngineDied), telemetry.span("worker.run"):
            raise EngineDied(CANARY)
        assert telemetry.flush()
    assert collector.paths == ["/v1/traces"]
    assert b"engine_died" in collector.bodies[0]
    assert CANARY.encode() not in collector.bodies[0]


async def test_a_collector_that_is_gone_costs_its_spans_and_nothing_else(collector: Collector, tmp_path: Path) -> None:
    file, endpoint = tmp_path / "spans.sqlite", collector.endpoint
    collector.server_close()
    async with Telemetry(role=names.WORKER, instance="w", spans=file, otlp=endpoint) as telemetry:
        with telemetry.span("worker.run", attributes={names.JOB: JOB}):
            pass
    assert len(read_trace([file], JOB)) == 1


@pytest.mark.parametrize("endpoint", ["", "127.0.0.1:4318", "file:///etc/passwd", "http://"])
def test_what_is_no_endpoint_is_refused_at_the_start(endpoint: str) -> None:
    with pytest.raises(Misuse, match="no OTLP endpoint"):
        Telemetry(role=names.WORKER, instance="w", otlp=endpoint).start()
