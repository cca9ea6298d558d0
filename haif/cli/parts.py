"""What an answer says, read out of the JSON that a tenant kept of it, in whichever dialect that was."""

from __future__ import annotations

from typing import Any

from haif.base.errors import Malformed

Parts = tuple[str, str, list[tuple[str, str]]]


def parts_of(kept: dict[str, Any]) -> Parts:
    """Text, reasoning and calls (name, arguments) of a chat's message, a response or an Anthropic message.

    Raises `Malformed`.
    """
    try:
        if "output" in kept:
            return _of_items(kept["output"])
        return _of_blocks(kept["content"]) if isinstance(kept.get("content"), list) else _of_message(kept)
    except (TypeError, KeyError, AttributeError):
        raise Malformed("the parts of this message are not as the gateway writes them") from None


def _of_message(message: dict[str, Any]) -> Parts:
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    return (
        str(message.get("content") or ""), str(message.get("reasoning_content") or ""),
        [(str(call["name"]), str(call["arguments"])) for call in calls],
    )  # fmt: skip


def _of_items(items: list[dict[str, Any]]) -> Parts:
    def said(kind: str) -> str:
        return "".join(part["text"] for item in items if item["type"] == kind for part in item["content"])

    calls = [(item["name"], item["arguments"]) for item in items if item["type"] == "function_call"]
    return said("message"), said("reasoning"), calls


def _of_blocks(blocks: list[dict[str, Any]]) -> Parts:
    """A call's arguments are looked for as they were written: `input` would be written in many ways."""
    calls = [(block["name"], block["partial_json"]) for block in blocks if block["type"] == "tool_use"]
    return (
        "".join(block["text"] for block in blocks if block["type"] == "text"),
        "".join(block["thinking"] for block in blocks if block["type"] == "thinking"), calls,
    )  # fmt: skip
