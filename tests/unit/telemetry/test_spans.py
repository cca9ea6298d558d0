"""Spans are kept in SQLite, tie processes together, and never hold what was said."""

import asyncio
import sqlite3
import stat
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from haif.base import limits
from haif.base.errors import EngineDied, Misuse, Reason
from haif.telemetry import names, spans
from haif.telemetry.context import parse_traceparent
from haif.telemetry.service import Telemetry, read_trace
from haif.telemetry.service.pump import Pump
from haif.telemetry.service.store import SpanStore

JOB = "0123456789abcdef0123456789abcdef"
CANARY = "the canary sings at midnight"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "spans.sqlite"


async def test_a_span_can_be_read_while_its_process_lives_on(file: Path) -> None:
    async with Telemetry(role=names.GATEWAY, instance="g1", spans=file) as telemetry:
        with telemetry.span("chat m", attributes={names.JOB: JOB}) as span:
            span.set(names.OUTPUT_TOKENS, 3)
        assert telemetry.flush()
        (row,) = read_trace([file], JOB)
    assert (row.role, row.instance, row.name, row.reason, row.parent) == ("gateway", "g1", "chat m", "", "")
    assert row.attributes == {names.JOB: JOB, names.OUTPUT_TOKENS: 3}
    assert row.start_ns <= row.end_ns


async def test_one_trace_crosses_three_processes_and_the_engine_child(tmp_path: Path) -> None:
    files = {role: tmp_path / f"{role}.sqlite" for role in (names.GATEWAY, names.ORCHESTRATOR, names.WORKER)}
    async with (
        Telemetry(role=names.GATEWAY, instance="g", spans=files[names.GATEWAY]) as gateway,
        Telemetry(role=names.ORCHESTRATOR, instance="o", spans=files[names.ORCHESTRATOR]) as orchestrator,
        Telemetry(role=names.WORKER, instance="w", spans=files[names.WORKER]) as worker,
    ):
        with gateway.span("chat m", attributes={names.JOB: JOB}) as request:
            with orchestrator.span(names.SPAN_SUBMIT, parent=request.traceparent):
                pass
            with worker.span(names.SPAN_RUN, parent=request.traceparent) as run:
                worker.record_span(
                    names.SPAN_ENGINE_PREFILL, parent=run.traceparent, start_ns=10**18, end_ns=10**18 + 5
                )
    rows = read_trace(list(files.values()), JOB)
    parents = {row.name: row.parent for row in rows}
    ids = {row.name: row.span for row in rows}
    assert len({row.trace for row in rows}) == 1
    assert parents == {
        "chat m": "", names.SPAN_SUBMIT: ids["chat m"], names.SPAN_RUN: ids["chat m"],
        names.SPAN_ENGINE_PREFILL: ids[names.SPAN_RUN],
    }  # fmt: skip
    assert rows[0].name == names.SPAN_ENGINE_PREFILL  # oldest first: its times were given
    assert rows[0].end_ns - rows[0].start_ns == 5


async def test_leaving_the_block_writes_what_was_queued(file: Path) -> None:
    async with Telemetry(role=names.WORKER, instance="w", spans=file) as telemetry:
        for _ in range(100):
            with telemetry.span("chat m", attributes={names.JOB: JOB}):
                pass
    assert present(file) == [file.name]  # nothing is left in a write-ahead log
    assert sqlite3.connect(file).execute("SELECT count(*) FROM span").fetchone() == (100,)


async def test_a_failure_is_recorded_by_its_reason_and_never_by_what_it_says(file: Path) -> None:
    async with Telemetry(role=names.WORKER, instance="w", spans=file) as telemetry:
        with telemetry.span("chat m", attributes={names.JOB: JOB}) as request:
            for error in (EngineDied(CANARY), ValueError(CANARY), asyncio.CancelledError(CANARY)):
                with pytest.raises(type(error)), telemetry.span("worker.run", parent=request.traceparent):
                    raise error
            request.fail(CANARY)
    assert [row.reason for row in read_trace([file], JOB)] == ["_OTHER", "engine_died", "ValueError", "cancelled"]
    assert CANARY.encode() not in content(file)


async def test_an_undeclared_attribute_never_gets_in(file: Path) -> None:
    async with Telemetry(role=names.GATEWAY, instance="g", spans=file) as telemetry:
        with pytest.raises(Misuse), telemetry.span("chat m", attributes={"gen_ai.input.messages": CANARY}):
            pass
        with pytest.raises(Misuse), telemetry.span("chat m") as span:
            span.set("prompt", CANARY)
        with pytest.raises(Misuse):
            telemetry.record_span("x", parent="", start_ns=0, end_ns=1, attributes={"prompt": CANARY})
    assert CANARY.encode() not in content(file)


def test_without_store_or_collector_the_context_still_travels() -> None:
    telemetry = Telemetry(role=names.GATEWAY, instance="g")
    with telemetry.span("outer") as outer, telemetry.span("inner", parent=outer.traceparent) as inner:
        above, below = parse_traceparent(outer.traceparent), parse_traceparent(inner.traceparent)
    assert above is not None
    assert below is not None
    assert (above.trace, above.span != below.span) == (below.trace, True)


def test_a_parent_that_is_none_begins_a_new_trace() -> None:
    telemetry = Telemetry(role=names.GATEWAY, instance="g")
    with telemetry.span("a", parent="00-nonsense") as a, telemetry.span("b") as b:
        assert a.traceparent[:35] != b.traceparent[:35]


def test_a_span_cannot_end_before_it_starts() -> None:
    with pytest.raises(Misuse, match="ends 5 ns before"):
        Telemetry(role=names.WORKER, instance="w").record_span("x", parent="", start_ns=5, end_ns=0)


async def test_other_traces_stay_out_and_all_traces_of_a_job_come_in(file: Path) -> None:
    async with Telemetry(role=names.GATEWAY, instance="g", spans=file) as telemetry:
        for job in (JOB, "f" * 32, JOB):
            with (
                telemetry.span("chat m", attributes={names.JOB: job}) as request,
                telemetry.span("gateway.place", parent=request.traceparent),
            ):
                pass
    rows = read_trace([file], JOB)
    assert [row.name for row in rows] == ["chat m", "gateway.place"] * 2
    assert len({row.trace for row in rows}) == 2


async def test_a_store_is_opened_again_and_added_to(file: Path) -> None:
    for _ in range(2):
        async with Telemetry(role=names.GATEWAY, instance="g", spans=file) as telemetry:
            with telemetry.span("chat m", attributes={names.JOB: JOB}):
                pass
    assert len(read_trace([file], JOB)) == 2


async def test_the_store_is_readable_by_its_owner_only(file: Path) -> None:
    async with Telemetry(role=names.GATEWAY, instance="g", spans=file):
        assert modes(file) == {0o600}


def test_a_store_that_does_not_exist_holds_nothing(file: Path) -> None:
    assert read_trace([file], JOB) == []
    assert not file.exists()


def test_a_store_that_is_being_created_holds_nothing(file: Path) -> None:
    file.touch()
    assert read_trace([file], JOB) == []


async def test_a_damaged_store_is_named(file: Path) -> None:
    async with Telemetry(role=names.GATEWAY, instance="g", spans=file) as telemetry:
        for _ in range(100):
            with telemetry.span("chat m", attributes={names.JOB: JOB}):
                pass
    damage(file)
    with pytest.raises(Misuse, match=f"{file} is damaged"):
        read_trace([file], JOB)


def test_a_collector_is_not_bothered_when_the_store_cannot_be_opened(tmp_path: Path) -> None:
    threads = set(threading.enumerate())
    telemetry = Telemetry(role="worker", instance="w", spans=tmp_path / "no" / "spans.sqlite", otlp="http://[::1]:9")
    with pytest.raises(Misuse):
        telemetry.start()
    assert set(threading.enumerate()) == threads


def test_a_file_that_is_no_span_store_is_refused_to_the_reader(file: Path) -> None:
    file.write_bytes(b"not a database at all, but long enough to be looked at" * 99)
    with pytest.raises(Misuse, match="no span store"):
        read_trace([file], JOB)


def test_a_damaged_store_keeps_no_role_from_starting(file: Path) -> None:
    damaged = b"once a database, but long enough to be looked at" * 99
    file.write_bytes(damaged)
    SpanStore(file, role=names.GATEWAY, instance="g").close()
    assert read_trace([file], JOB) == []
    assert file.with_name("spans.sqlite.damaged").read_bytes() == damaged


def test_a_file_that_is_no_span_store_is_never_written_over(file: Path) -> None:
    other = sqlite3.connect(file)
    other.execute("CREATE TABLE ledger (amount)")
    other.close()
    before = file.read_bytes()
    with pytest.raises(Misuse, match="no span store"):
        Telemetry(role=names.GATEWAY, instance="g", spans=file).start()
    assert file.read_bytes() == before


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="missing"):
        Telemetry(role=names.GATEWAY, instance="g", spans=tmp_path / "missing" / "spans.sqlite").start()


class Names:
    """A sink that keeps names, and can be made to wait or to fail."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.entered, self.open, self.closed = threading.Event(), threading.Event(), False
        self.error: Exception | None = None

    def write(self, spans: Sequence[spans.Ended]) -> None:
        self.entered.set()
        assert self.open.wait(30)
        if self.error:
            raise self.error
        self.names += [span.name for span in spans]

    def close(self) -> None:
        self.closed = True


def test_the_store_forgets_the_oldest_beyond_its_bound(file: Path) -> None:
    store = SpanStore(file, role="worker", instance="w", stored_max=10)
    pump = Pump("the span store", store)
    for span in ended(25):
        pump.put(span)
        assert pump.flush()
    pump.close(5)
    assert sqlite3.connect(file).execute("SELECT name FROM span").fetchall() == [(f"s{n}",) for n in range(15, 25)]


def test_a_full_queue_loses_the_newest_counts_them_and_never_waits() -> None:
    sink = Names()
    pump = Pump("a sink that is stuck", sink, queue_max=4, gather_seconds=0)
    first, *others = ended(10)
    pump.put(first)
    assert sink.entered.wait(30)
    for span in others:
        pump.put(span)
    assert pump.lost == 5
    sink.open.set()
    pump.close(30)
    assert sink.names == ["s0", "s1", "s2", "s3", "s4"]
    assert sink.closed


def test_a_sink_that_fails_costs_its_batch_and_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    sink = Names()
    sink.open.set()
    pump = Pump("a sink", sink, gather_seconds=0)
    sink.error = OSError("disk full")
    a, b = ended(2)
    pump.put(a)
    assert pump.flush()
    sink.error = None
    pump.put(b)
    assert pump.flush()
    pump.close(30)
    assert (sink.names, pump.lost) == (["s1"], 1)
    assert "1 spans could not be written to a sink: disk full" in caplog.text


def test_after_closing_spans_are_lost_and_counted() -> None:
    sink = Names()
    sink.open.set()
    pump = Pump("a sink", sink)
    pump.close(30)
    pump.put(ended(1)[0])
    pump.close(30)
    assert (pump.lost, sink.names) == (1, [])


async def test_lost_spans_are_counted_in_the_metrics(file: Path) -> None:
    async with Telemetry(role=names.WORKER, instance="w", spans=file) as telemetry:
        assert b"haif_spans_lost_total 0.0" in telemetry.exposition()
    with telemetry.span("too late"):
        pass
    assert b"haif_spans_lost_total 1.0" in telemetry.exposition()


def test_attributes_are_bounded_in_length(file: Path) -> None:
    telemetry = Telemetry(role=names.GATEWAY, instance="g", spans=file)
    telemetry.start()
    with telemetry.span("n" * 9999, attributes={names.JOB: JOB, names.REQUEST_MODEL: "m" * 9999}):
        pass
    telemetry.close()
    (row,) = read_trace([file], JOB)
    assert len(row.name) == len(str(row.attributes[names.REQUEST_MODEL])) == limits.ATTRIBUTE_CHARS_MAX


def test_a_reason_marks_the_span_failed(file: Path) -> None:
    telemetry = Telemetry(role=names.GATEWAY, instance="g", spans=file)
    telemetry.start()
    with telemetry.span("gateway.admit", attributes={names.JOB: JOB}) as span:
        span.fail(Reason.OVER_QUOTA)
    telemetry.close()
    assert read_trace([file], JOB)[0].reason == "over_quota"


def content(file: Path) -> bytes:
    return file.read_bytes()


def damage(file: Path) -> None:
    """Overwrite everything after the first page, which holds the schema."""
    raw = file.read_bytes()
    file.write_bytes(raw[:4096] + b"\xff" * (len(raw) - 4096))


def present(file: Path) -> list[str]:
    return [path.name for path in file.parent.iterdir()]


def modes(file: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()}


def ended(count: int) -> list[spans.Ended]:
    """Spans s0, s1, …"""
    return [spans.Ended(f"s{number}", "1" * 32, f"{number + 1:016x}", "", 1, 2, {}) for number in range(count)]
