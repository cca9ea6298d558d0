"""An answer's text, reasoning and calls are found in every dialect's JSON."""

from typing import Any

import pytest

from haif.base.errors import Malformed
from haif.cli.parts import parts_of

CHAT: dict[str, Any] = {
    "role": "assistant", "content": "I look.", "reasoning_content": "hm",
    "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}],
}  # fmt: skip
RESPONSE: dict[str, Any] = {"output": [
    {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "h"}]},
    {"type": "message", "content": [{"type": "output_text", "text": "I "}]},
    {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "m"}]},
    {"type": "message", "content": [{"type": "output_text", "text": "look."}]},
    {"type": "function_call", "call_id": "a", "name": "f", "arguments": '{"a": 1}'},
]}  # fmt: skip
MESSAGE: dict[str, Any] = {"type": "message", "content": [
    {"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "text", "text": "I look."},
    {"type": "tool_use", "id": "a", "name": "f", "input": {"a": 1}, "partial_json": '{"a": 1}'},
]}  # fmt: skip


@pytest.mark.parametrize("kept", [CHAT, RESPONSE, MESSAGE])
def test_the_parts_of_an_answer_are_found_in_every_dialect(kept: dict[str, Any]) -> None:
    assert parts_of(kept) == ("I look.", "hm", [("f", '{"a": 1}')])


def test_an_answer_of_text_alone_has_no_other_parts() -> None:
    assert parts_of({"role": "assistant", "content": None}) == ("", "", [])
    assert parts_of({"output": []}) == parts_of({"content": []}) == ("", "", [])


@pytest.mark.parametrize(
    "kept", [{"output": 5}, {"output": [5]}, {"output": [{}]}, {"content": [{"type": "tool_use", "name": "f"}]},
             {"tool_calls": [{}]}, {"content": [{"type": "text"}]}],
)  # fmt: skip
def test_what_no_gateway_writes_is_malformed(kept: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        parts_of(kept)
