import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base import limits
from haif.base.conversation import Call, Tool, Toolbox, Turn
from haif.base.errors import Malformed, Oversize
from haif.base.ids import JobId, Seed
from haif.base.sampling import Sampling
from haif.engine.frames import (
    End,
    FrameReader,
    Load,
    Order,
    Output,
    Refused,
    Report,
    Step,
    Submit,
    decode_order,
    decode_report,
    frame,
)  # fmt: skip
from haif.engine.request import Generate

TURN = Turn("assistant", "é", calls=[Call("1", "f", "{}")])
TOOLS = Toolbox([Tool("f", None, "{}", strict=True)], only="f")
REQUEST = Generate(
    JobId(bytes(16)), [TURN], None, 5, Sampling(0.5), ["x"], Seed(bytes(32)), tools=TOOLS,
    settings=[("a", True), ("b", "x"), ("c", 0.5), ("d", 7)],
)  # fmt: skip
STEP = Report(step=Step([Output(3, [7], "hi", End("stop", 1, 1, 2, 3, 4, 0))], [], 9, 1, 0, 12))


@given(st.lists(st.binary(max_size=50), max_size=5), st.integers(1, 9))
def test_frames_come_out_whole_however_the_bytes_arrive(bodies, chunk):
    data = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    reader = FrameReader()
    found = [body for start in range(0, len(data), chunk) for body in reader.feed(data[start : start + chunk])]
    assert bodies == found
    assert 0 == reader.waiting


def test_an_oversize_length_is_refused_before_its_body_is_waited_for():
    with pytest.raises(Oversize):
        FrameReader().feed((limits.ENGINE_FRAME_BYTES_MAX + 1).to_bytes(4, "big"))


@pytest.mark.parametrize("order", [Order(load=Load(8, 512, 2)), Order(submit=Submit(7, REQUEST)), Order(cancel=7)])
def test_orders_survive_the_pipe(order):
    assert [order] == [decode_order(body) for body in FrameReader().feed(frame(order))]


@pytest.mark.parametrize("report", [STEP, Report(refused=Refused(1, "unsupported", "no", None))])
def test_reports_survive_the_pipe(report):
    assert [report] == [decode_report(body) for body in FrameReader().feed(frame(report))]


def test_a_step_has_golden_bytes():
    assert "97c0c0989197039107a2686999a473746f7001010203040000a0909090900901000c0090c0c0c0c0" == frame(STEP)[4:].hex()


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x91\x01", b"\x95\x01\xc0\xc0\xc0\xc0", frame(STEP)[4:-1]])
def test_anything_else_is_malformed(body):
    with pytest.raises(Malformed):
        decode_report(body)


@given(st.binary(max_size=200))
def test_noise_never_raises_anything_but_a_fault(body):
    with contextlib.suppress(Malformed, Oversize):
        decode_report(body)
