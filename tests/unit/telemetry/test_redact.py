"""Only declared attributes and plain codes get into a span."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base import limits
from haif.base.errors import EngineDied, Misuse, Reason
from haif.telemetry import names, redact


def test_a_declared_attribute_passes_as_it_is() -> None:
    assert redact.attributes({names.JOB: "ab", names.ATTEMPT: 2}) == {names.JOB: "ab", names.ATTEMPT: 2}


def test_an_undeclared_attribute_is_our_own_bug() -> None:
    with pytest.raises(Misuse, match="declare it") as caught:
        redact.attributes({"gen_ai.input.messages": "tell me a secret"})
    assert caught.value.reason is Reason.MISUSE
    assert "secret" not in caught.value.message


@given(st.text(max_size=1000))
def test_text_fits_one_line_of_a_terminal(text: str) -> None:
    line = redact.line(text)
    assert len(line) <= limits.ATTRIBUTE_CHARS_MAX
    assert line.isprintable()


def test_an_escape_sequence_cannot_reach_the_terminal_of_the_reader() -> None:
    assert redact.attribute(names.REQUEST_MODEL, "\x1b[2Jm\n") == "\ufffd[2Jm\ufffd"


def test_an_error_is_recorded_by_its_reason_or_class() -> None:
    assert redact.error_code(EngineDied("the prompt was: open sesame")) == "engine_died"
    assert redact.error_code(ValueError("open sesame")) == "ValueError"


@pytest.mark.parametrize("text", ["", "open sesame", "a.b", "x" * 65, "schlüssel", "a\n"])
def test_a_sentence_is_no_error_code(text: str) -> None:
    assert redact.code(text) == "_OTHER"


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_an_error_code(reason: Reason) -> None:
    assert redact.code(reason) == reason.value
