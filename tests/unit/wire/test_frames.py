"""The bytes of each frame, and what is refused while reading them."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base import limits
from haif.base.errors import (
    ConnectionLost,
    HaifError,
    Malformed,
    Misuse,
    Overloaded,
    Oversize,
    Reason,
    Timeout,
    Unsupported,
)  # fmt: skip
from haif.wire.frames import (
    HEADER,
    REQUEST,
    Kind,
    Outbox,
    RequestHead,
    failure,
    frame,
    parse,
    read_failure,
    request_head,
)  # fmt: skip

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "wire_frames.json").read_text())
METADATA = {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01", "correlation": "c.1"}

GOLDEN = {
    "REQ": frame(Kind.REQ, 1, request_head(5, 1500, "jobs.show", {"correlation": "c.1"}) + b"hello"),
    "RES": frame(Kind.RES, 1, b"\x05\0\0\0hello"),
    "ERR": frame(Kind.ERR, 3, failure(Overloaded("no room", retry_after=0.5))),
    "CANCEL": frame(Kind.CANCEL, 5),
    "OPEN": frame(Kind.OPEN, 7, request_head(0, 600_000, "inference.run", None)),
    "DATA": frame(Kind.DATA, 7, b"\x03\0\0\0tok"),
    "FIN": frame(Kind.FIN, 7),
    "RST": frame(Kind.RST, 2**32 - 1),
    "CREDIT": frame(Kind.CREDIT, 0, b"\0\0\x80\0"),
    "PING": frame(Kind.PING, 0),
    "PONG": frame(Kind.PONG, 0),
    "GOAWAY": frame(Kind.GOAWAY, 0),
    "REKEY": frame(Kind.REKEY, 0),
    "PATH": frame(Kind.PATH, 0, b"\x07\0\0\0"),
    "REJECT": frame(Kind.REJECT, 0, failure(Overloaded("no room", retry_after=0.5))),
}


def read_head(payload: bytes) -> RequestHead:
    return RequestHead(payload, 0, len(payload))


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name)
def test_each_kind_has_its_golden_bytes(kind: Kind) -> None:
    assert GOLDEN[kind.name].hex() == VECTORS[kind.name]
    [(read, *_)] = parse(GOLDEN[kind.name])
    assert read == kind


frames = st.tuples(st.sampled_from(list(Kind)), st.integers(0, 2**32 - 1), st.binary(max_size=100))


@given(st.lists(frames, max_size=20))
def test_frames_come_out_as_they_went_in(written: list[tuple[Kind, int, bytes]]) -> None:
    data = b"".join(frame(*item) for item in written)
    assert [(kind, stream, data[start:end]) for kind, stream, start, end in parse(data)] == written


@given(st.lists(frames, min_size=1, max_size=5), st.data())
def test_a_plaintext_cut_anywhere_but_between_frames_is_malformed(
    written: list[tuple[Kind, int, bytes]], data: st.DataObject
) -> None:
    parts = [frame(*item) for item in written]
    whole = b"".join(parts)
    cut = data.draw(st.integers(0, len(whole) - 1))
    between = {sum(map(len, parts[:count])) for count in range(len(parts))}
    if cut in between:
        assert len(list(parse(whole[:cut]))) < len(parts)
    else:
        with pytest.raises(Malformed) as caught:
            list(parse(whole[:cut]))
        assert caught.value.reason is Reason.MALFORMED


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_malformed(data: bytes) -> None:
    try:
        for *_, start, end in parse(data):
            assert 0 <= start <= end <= len(data)
    except Malformed:
        pass


def test_a_request_head_comes_out_as_it_went_in() -> None:
    head = read_head(request_head(7, 1234, "a.method", METADATA) + b"1234567")
    assert (head.size, head.timeout_ms, head.method, head.metadata) == (7, 1234, "a.method", METADATA)


@given(st.binary(max_size=100))
def test_any_bytes_are_a_request_head_or_refused(data: bytes) -> None:
    try:
        head = read_head(data)
    except (Malformed, Oversize):
        return
    assert head.piece <= len(data)


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (b"", Malformed),
        (REQUEST.pack(0, 1, 5, 0) + b"four", Malformed),
        (REQUEST.pack(0, 1, 1, 9) + b"m", Malformed),
        (REQUEST.pack(0, 1, 2, 0) + b"\xc3\xa4", Malformed),
        (REQUEST.pack(0, 1, 65, 0) + b"m" * 65, Oversize),
        (REQUEST.pack(0, 1, 1, 1025) + b"m" + bytes(1025), Oversize),
        (REQUEST.pack(0, 1, 1, 1) + b"m" + b"\x90", Malformed),
        (REQUEST.pack(0, 1, 1, 4) + b"m" + b"\x81\xa1k\x01", Malformed),
        (REQUEST.pack(0, 1, 1, 9) + b"m" + b"\x82\xa1k\xa1a\xa1k\xa1b", Malformed),
        (REQUEST.pack(0, 1, 1, 37) + b"m" + b"\x89" + b"".join(b"\xa1%d\xa1v" % n for n in range(9)), Oversize),
    ],
    ids=["empty", "method cut", "metadata cut", "not ascii", "long method", "much metadata", "a list", "a number",
         "a key twice", "nine keys"],
)  # fmt: skip
def test_a_request_head_that_breaks_a_rule_is_refused(payload: bytes, error: type[HaifError]) -> None:
    with pytest.raises(error):
        read_head(payload)


@pytest.mark.parametrize("method", ["", "m" * 65])
def test_we_do_not_send_a_method_name_that_would_be_refused(method: str) -> None:
    with pytest.raises(Misuse):
        request_head(0, 1, method, None)


@pytest.mark.parametrize("metadata", [{str(n): "" for n in range(9)}, {"k": "v" * 1024}])
def test_we_do_not_send_metadata_that_would_be_refused(metadata: dict[str, str]) -> None:
    with pytest.raises(Misuse):
        request_head(0, 1, "m", metadata)


@pytest.mark.parametrize("error", [Overloaded("full", retry_after=2.5), Timeout("late"), Unsupported("no")])
def test_an_error_arrives_as_it_was_raised(error: HaifError) -> None:
    told = read_failure(failure(error))
    assert (type(told), told.message) == (type(error), error.message)
    assert told.retry_after == error.retry_after


def test_a_refusal_arrives_with_the_parameter_it_names() -> None:
    told = read_failure(failure(Unsupported("no", param="tools[0].type")))
    assert isinstance(told, Unsupported)
    assert told.param == "tools[0].type"
    assert len(str(getattr(read_failure(failure(Unsupported("no", param="x" * 999))), "param", None))) == 128
    with pytest.raises(Oversize, match="parameter"):
        read_failure(b"\x94\xabunsupported\xa1m\xc0\xd9\xc8" + b"x" * 200)


def test_our_own_mistakes_are_told_without_details() -> None:
    assert b"secret" not in failure(Misuse("the secret path /etc"))
    assert read_failure(failure(Misuse("x"))).reason is Reason.MISUSE


def test_a_long_error_message_is_cut_and_a_longer_one_refused() -> None:
    told = read_failure(failure(ConnectionLost("x" * 5000)))
    assert len(told.message) == limits.ERROR_MESSAGE_CHARACTERS_MAX
    with pytest.raises(Oversize):
        read_failure(b"\x93\xa7timeout\xda\x04\x01" + b"x" * 1025 + b"\xc0")


def test_an_unknown_error_code_means_malformed() -> None:
    assert isinstance(read_failure(b"\x93\xa3new\xa1m\xc0"), Malformed)


def test_the_outbox_gathers_whole_frames_up_to_its_size() -> None:
    out = Outbox()
    body = b"x" * 5000
    for stream in range(10):
        out.add(Kind.DATA, stream, b"head", body)
    plaintexts = out.take()
    assert all(len(plaintext) <= limits.NOISE_PLAINTEXT_BYTES_SENT for plaintext in plaintexts)
    assert len(plaintexts) == 4
    streams = [stream for plaintext in plaintexts for _, stream, *_ in parse(plaintext)]
    assert streams == list(range(10))
    assert out.take() == []


def test_the_largest_piece_fills_one_plaintext_and_leaves_room_for_rekey() -> None:
    out = Outbox()
    out.add(Kind.DATA, 1, b"", bytes(limits.FRAME_PAYLOAD_BYTES_SENT))
    [plaintext] = out.take()
    assert len(plaintext) == limits.NOISE_PLAINTEXT_BYTES_SENT
    assert len(plaintext) + HEADER.size <= limits.NOISE_PLAINTEXT_BYTES_MAX
