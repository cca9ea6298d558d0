import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.engine.text import TextStream


def read(pieces, stop=()):
    stream = TextStream(stop)
    out = []
    for piece in pieces:
        out.append(stream.feed(piece))
        if stream.stopped:
            return out
    return [*out, stream.finish()]


def test_a_character_split_over_tokens_comes_out_whole():
    assert ["a", "", "é", "b", ""] == read([b"a", b"\xc3", b"\xa9", b"b"])


def test_bytes_that_are_no_utf8_become_the_replacement_character():
    assert "a\ufffdb\ufffd" == "".join(read([b"a\xff", b"b", b"\xe2\x82"]))


@pytest.mark.parametrize(
    ("pieces", "stop", "expected"),
    [
        ([b"one ST", b"OP two"], ["STOP"], "one "),
        ([b"one S", b"T", b"O", b"P"], ["STOP"], "one "),
        ([b"one STO", b"NE"], ["STOP"], "one STONE"),
        ([b"aab", b"aac"], ["aac"], "aab"),
        ([b"x\n", b"\ny"], ["\n\n"], "x"),
        ([b"abcd"], ["cd", "b"], "a"),
        ([b"STOP"], ["STOP"], ""),
        ([b"ends ST"], ["STOP"], "ends ST"),
        ([b"caf", b"\xc3", b"\xa9!"], ["é"], "caf"),
    ],
)
def test_a_stop_string_is_cut_wherever_tokens_split_it(pieces, stop, expected):
    assert expected == "".join(read(pieces, stop))


def test_the_earliest_stop_string_is_named():
    stream = TextStream(["cd", "b", "bc"])
    assert ("a", "b") == (stream.feed(b"abcd"), stream.stopped_by)
    assert TextStream(["x"]).stopped_by == ""


def test_nothing_that_may_begin_a_stop_string_leaves_before_it_is_known():
    assert ["one ", "", "STONE", ""] == read([b"one S", b"TO", b"NE"], ["STOP"])


@given(
    st.text(alphabet="abé€", max_size=40),
    st.lists(st.text(alphabet="abé", min_size=1, max_size=4), max_size=3),
    st.data(),
)
def test_however_the_text_is_cut_no_stop_string_leaves_and_nothing_is_lost_without_one(text, stop, data):
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=10)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    stream = TextStream(stop)
    out = ""
    for piece in pieces:
        out += stream.feed(piece)
        if stream.stopped:
            break
    else:
        out += stream.finish()
    found = any(s in text for s in stop)
    assert stream.stopped == found
    assert (stream.stopped_by in stop) == found
    assert not any(s in out for s in stop)
    assert text.startswith(out)
    if not found:
        assert text == out
