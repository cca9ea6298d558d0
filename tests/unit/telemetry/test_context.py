"""The traceparent header is read strictly and written canonically."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.telemetry.context import Parent, parse_traceparent, write_traceparent

EXAMPLE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"  # W3C Trace Context, section 3.2.4


def test_the_example_of_the_recommendation_is_read() -> None:
    assert parse_traceparent(EXAMPLE) == Parent("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")


def test_an_unsampled_parent_is_still_a_parent() -> None:
    assert parse_traceparent(EXAMPLE[:-2] + "00") == parse_traceparent(EXAMPLE)


@pytest.mark.parametrize(
    "text",
    [
        None, "", "00", EXAMPLE.upper(), EXAMPLE + "-00", EXAMPLE + "\n", " " + EXAMPLE, "01" + EXAMPLE[2:],
        "00-" + "0" * 32 + "-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
        EXAMPLE.replace("0af7", "\u0660af7"), EXAMPLE.replace("-", "_"), "x" * 10_000,
    ],
)  # fmt: skip
def test_what_is_not_of_the_form_is_no_parent(text: str | None) -> None:
    assert parse_traceparent(text) is None


@given(st.integers(1, 2**128 - 1).map("{:032x}".format), st.integers(1, 2**64 - 1).map("{:016x}".format))
def test_what_is_written_is_read_back(trace: str, span: str) -> None:
    assert parse_traceparent(write_traceparent(trace, span)) == Parent(trace, span)


@given(st.text(max_size=80))
def test_no_text_upsets_the_reader(text: str) -> None:
    found = parse_traceparent(text)
    assert found is None or write_traceparent(found.trace, found.span)[:-2] == text[:-2]
