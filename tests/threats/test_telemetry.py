"""H-R2 and H-I2 at telemetry: the course of a request can be reconstructed, and what it said cannot."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource

from haif.base.errors import Dropped, EngineDied, InvalidRequest, Misuse, Reason
from haif.telemetry import names
from haif.telemetry.rows import tree
from haif.telemetry.service import Telemetry, read_trace
from haif.telemetry.service.otlp import readable
from haif.telemetry.service.pump import Pump
from haif.telemetry.spans import Ended

CANARY = "the canary sings at midnight"
JOB = "0123456789abcdef0123456789abcdef"
ROLES = (names.GATEWAY, names.ORCHESTRATOR, names.WORKER)


async def test_h_r2_an_auditor_reconstructs_one_request_among_many(tmp_path: Path) -> None:
    stores = {role: tmp_path / f"{role}.sqlite" for role in ROLES}
    async with (
        Telemetry(role=names.GATEWAY, instance="g", spans=stores[names.GATEWAY]) as gateway,
        Telemetry(role=names.ORCHESTRATOR, instance="o", spans=stores[names.ORCHESTRATOR]) as orchestrator,
        Telemetry(role=names.WORKER, instance="w", spans=stores[names.WORKER]) as worker,
    ):
        for job in ("a" * 32, JOB, "b" * 32):
            with gateway.span("chat m", attributes={names.JOB: job}) as request:
                with orchestrator.span(names.SPAN_SUBMIT, parent=request.traceparent, attributes={names.JOB: job}):
                    pass
                with worker.span(names.SPAN_RUN, parent=request.traceparent) as run:
                    run.set(names.JOB, job)
    shown = [(depth, row.role, row.name) for depth, row in tree(read_trace(list(stores.values()), JOB))]
    assert shown == [(0, "gateway", "chat m"), (1, "orchestrator", names.SPAN_SUBMIT), (1, "worker", names.SPAN_RUN)]


async def test_h_i2_no_way_into_telemetry_lets_content_through(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exported = Wire()
    async with Telemetry(role=names.WORKER, instance="w", spans=tmp_path / "spans.sqlite") as telemetry:
        pump = Pump("a collector", exported, gather_seconds=0)
        telemetry.carry(pump)
        for error in (EngineDied(CANARY), InvalidRequest(CANARY, param=CANARY), RuntimeError(CANARY), KeyError(CANARY)):
            with pytest.raises(type(error)), telemetry.span("worker.run", attributes={names.JOB: JOB}):
                raise error
        with telemetry.span("worker.run", attributes={names.JOB: JOB}) as span:
            span.fail(CANARY)
            with pytest.raises(Misuse):
                span.set(CANARY, 1)
            with pytest.raises(Misuse):
                span.set("gen_ai.output.messages", CANARY)
        telemetry.dropped(Dropped(Reason.MALFORMED, detail=CANARY))
        with pytest.raises(Misuse):
            telemetry.count(names.DROPPED, reason=CANARY)
        assert telemetry.flush()
        kept = content(tmp_path)
        exposition = telemetry.exposition()
        await asyncio.to_thread(pump.close, 30)
    for place in (kept, content(tmp_path), exposition, exported.data, caplog.text.encode()):
        assert CANARY.encode() not in place
    assert b"engine_died" in kept
    assert b"engine_died" in exported.data


class Wire:
    """A sink that keeps what would travel to a collector."""

    data = b""

    def write(self, spans: Sequence[Ended]) -> None:
        self.data += encode_spans([readable(span, Resource({})) for span in spans]).SerializeToString()

    def close(self) -> None:
        pass


def content(folder: Path) -> bytes:
    """Everything on disk, write-ahead log included."""
    return b"".join(path.read_bytes() for path in folder.iterdir())
