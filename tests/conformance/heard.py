"""An answer of either server in one shape: what the model said, why it ended, what was counted; or a refusal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import httpx

Heard = dict[str, Any]


def ask(client: httpx.Client, path: str, body: Mapping[str, Any]) -> Heard:
    """Send one request and read its answer, streamed or whole."""
    reply = client.post(path, json=dict(body))
    if reply.status_code != 200:
        return {"refused": reply.status_code}
    events = _events(reply.text.splitlines()) if body.get("stream") else [reply.json()]
    return _heard(events)


def _events(lines: Iterable[str]) -> list[dict[str, Any]]:
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [json.loads(each) for each in data[:-1]]


def _heard(events: list[dict[str, Any]]) -> Heard:
    choices = [choice for event in events for choice in event["choices"]]
    usage = next(event["usage"] for event in reversed(events) if event.get("usage"))
    heard: Heard = {
        "text": "".join(_text(choice) for choice in choices),
        "finish_reason": next(choice["finish_reason"] for choice in reversed(choices) if choice["finish_reason"]),
        "prompt_tokens": usage["prompt_tokens"],
        "completion_tokens": usage["completion_tokens"],
    }
    if choices[0].get("logprobs"):
        heard["logprobs"] = _logprobs(choices[0]["logprobs"])
    return heard


def _text(choice: dict[str, Any]) -> str:
    said = choice.get("message") or choice.get("delta") or choice
    return said.get("content") or said.get("text") or ""


def _logprobs(told: dict[str, Any]) -> list[list[Any]]:
    """By token: its text, its logprob, and the logprobs of the likeliest by their text."""
    if "content" in told:
        return [
            [each["token"], each["logprob"], {top["token"]: top["logprob"] for top in each["top_logprobs"]}]
            for each in told["content"]
            if each["token"]
        ]
    return [list(each) for each in zip(told["tokens"], told["token_logprobs"], told["top_logprobs"], strict=True)]
