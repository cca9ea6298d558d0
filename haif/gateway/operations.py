"""Everything that is served, each once: the routes are made from this table, and so is the document of the API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from haif.gateway import fields, messages_fields, responses_fields
from haif.gateway.embeddings import INPUTS, Embeddings, Rerank
from haif.gateway.strict import Lenient


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A method of a path. `{name}` at the end of a path stands for whatever follows.

    `endpoint`: as metrics name it. `body`: the declaration that its body is parsed by, with `apart` the fields that are
    parsed one by one. `streams`: the answer may be a stream of events.
    """

    method: str
    path: str
    endpoint: str
    summary: str
    body: type[msgspec.Struct] | None = None
    apart: Mapping[str, tuple[type[msgspec.Struct], ...]] = field(default_factory=dict)
    streams: bool = False
    key: bool = True  # whether it is for tenants only


OPERATIONS: Final = (
    Operation(
        method="POST", path="/v1/chat/completions", endpoint="chat.completions", streams=True, body=fields.Chat,
        summary="Answer a conversation (OpenAI's chat completions)",
    ),
    Operation(
        method="POST", path="/v1/completions", endpoint="completions", streams=True, body=fields.Completion,
        summary="Go on with a text, or fill in between two (OpenAI's completions)",
    ),
    Operation(
        method="POST", path="/v1/responses", endpoint="responses", streams=True, body=responses_fields.Response,
        summary="Answer a conversation of items (OpenAI's Responses API); nothing is kept",
    ),
    Operation(
        method="POST", path="/v1/messages", endpoint="messages", streams=True, body=messages_fields.MessagesRequest,
        summary="Answer a conversation of blocks (Anthropic's Messages API)",
    ),
    Operation(
        method="POST", path="/v1/embeddings", endpoint="embeddings", body=Embeddings, apart={"input": INPUTS},
        summary="Make vectors of texts or tokens (OpenAI's embeddings)",
    ),
    Operation(
        method="POST", path="/v1/rerank", endpoint="rerank", body=Rerank,
        summary="Order documents by how well they answer a query",
    ),
    Operation(method="GET", path="/v1/models", endpoint="models", summary="The models that can be asked for"),
    Operation(method="GET", path="/v1/models/{model}", endpoint="models", summary="One of them"),
    Operation(
        method="GET", path="/haif/v1/jobs/{job}", endpoint="other",
        summary="What became of a job of the calling tenant, with its receipt and the verdicts on it",
    ),
    Operation(method="GET", path="/openapi.json", endpoint="other", key=False, summary="This document"),
    Operation(method="GET", path="/healthz", endpoint="health", key=False, summary="Whether the process answers"),
    Operation(
        method="GET", path="/readyz", endpoint="health", key=False,
        summary="Whether a model can be asked for; 503 until then",
    ),
)  # fmt: skip

LENIENCIES: Final[Mapping[type[msgspec.Struct], Lenient]] = {
    fields.Chat: fields.LENIENT, fields.Completion: fields.LENIENT, fields.Message: fields.LENIENT_IN_MESSAGE,
    fields.StreamOptions: fields.LENIENT_IN_STREAM,
    responses_fields.Response: responses_fields.LENIENT, responses_fields.Message: responses_fields.LENIENT_IN_ITEM,
    responses_fields.FunctionCall: responses_fields.LENIENT_IN_ITEM,
    responses_fields.FunctionCallOutput: responses_fields.LENIENT_IN_ITEM,
    responses_fields.Reasoning: responses_fields.LENIENT_IN_ITEM,
    responses_fields.Text: responses_fields.LENIENT_IN_PART,
    responses_fields.FunctionTool: responses_fields.LENIENT_IN_TOOL,
    responses_fields.TextOptions: responses_fields.LENIENT_IN_TEXT,
    responses_fields.Thinking: responses_fields.LENIENT_IN_REASONING,
    messages_fields.MessagesRequest: messages_fields.LENIENT, messages_fields.Text: messages_fields.LENIENT_IN_BLOCK,
    messages_fields.Thought: messages_fields.LENIENT_IN_BLOCK,
    messages_fields.ToolUse: messages_fields.LENIENT_IN_BLOCK,
    messages_fields.ToolResult: messages_fields.LENIENT_IN_BLOCK, messages_fields.Tool: messages_fields.LENIENT_IN_TOOL,
}  # fmt: skip
"""By declaration: the fields beside it that are known and not honoured."""
