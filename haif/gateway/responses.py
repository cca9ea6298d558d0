"""OpenAI's Responses API, heard: a body becomes the same `Ask` that a chat would, or a 400 that names the parameter.

Items are turns in pieces: what the model thought, said and called in one turn are three items in a row. Nothing is kept
between requests (`store` is false), so whatever names something that would be is refused.

Source: the OpenAI API reference (openai-openapi 2.3.0), `createResponse`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from haif.base import limits
from haif.base.conversation import Call, Toolbox, Turn, check_turns
from haif.base.errors import Refusal, Unsupported
from haif.base.ids import Nonce
from haif.gateway.ask import Ask, check_together, demands, in_words_of, sampling_of
from haif.gateway.dialogue import ROLES, settings_with, tool_of, toolbox_with
from haif.gateway.parts import only_functions, only_kinds, plain_stream, schema_text
from haif.gateway.responses_fields import (
    KINDS,
    LENIENT,
    LENIENT_IN_ITEM,
    LENIENT_IN_PART,
    LENIENT_IN_REASONING,
    LENIENT_IN_TEXT,
    LENIENT_IN_TOOL,
    ChosenFunction,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    Reasoning,
    Response,
    Text,
    TextFormat,
)
from haif.gateway.strict import object_of, sift, typed, wrong
from haif.protocol.inference import Request

_PARTS = {"user": ("input_text",), "system": ("input_text",), "developer": ("input_text",)}


def parse_response(body: bytes, nonce: Nonce) -> Ask:
    """The body of POST /v1/responses. Raises `Rejected` or `Unsupported`, naming the parameter."""
    fields, ignored = sift(object_of(body), LENIENT)
    _check_pieces(fields)
    wanted = typed(Response, fields)
    if wanted.stream_options is not None and not wanted.stream:
        wrong("stream_options", "stream_options is only allowed when stream is true")
    told = wanted.include is not None and "message.output_text.logprobs" in wanted.include
    if wanted.top_logprobs and not told:
        wrong("top_logprobs", "top_logprobs needs message.output_text.logprobs in include")
    if wanted.include and "reasoning.encrypted_content" in wanted.include:
        ignored += ("include",)  # reasoning comes in the clear, and goes back in the clear
    try:
        request = _request(wanted, nonce, logprobs=(wanted.top_logprobs or 0) if told else None)
    except Refusal as refusal:
        in_words_of("responses", refusal)
        raise
    return Ask(
        dialect="responses", model=wanted.model, request=request, seed=wanted.seed, stream=bool(wanted.stream),
        ignored=ignored, told=_told(wanted, request), **demands(wanted.haif),
    )  # fmt: skip


def _request(wanted: Response, nonce: Nonce, *, logprobs: int | None) -> Request:
    turns = [Turn("system", wanted.instructions)] if wanted.instructions else []
    turns += [Turn("user", wanted.input)] if isinstance(wanted.input, str) else _turns(wanted.input)
    check_turns(turns)
    request = Request(
        nonce=nonce, chat=turns, text=None, stop=[], sampling=sampling_of(wanted), logprobs=logprobs,
        tokens_max=wanted.max_output_tokens or limits.COMPLETION_TOKENS_UNSAID_MAX,
        fit=wanted.max_output_tokens is None,
        json_schema=_schema(wanted.text.format if wanted.text else None), tools=_toolbox(wanted),
        settings=settings_with(
            wanted.chat_template_kwargs, wanted.reasoning.effort if wanted.reasoning else None, "reasoning.effort"
        ),
    )  # fmt: skip
    check_together(request)
    return request


# --- what is refused by its path --------------------------------------------------------------------------------------


def _check_pieces(fields: dict[str, Any]) -> None:
    """Drop what asks for nothing within the fields; refuse kinds that cannot be honoured, by their path."""
    plain_stream(fields)
    for name, lenient in (("text", LENIENT_IN_TEXT), ("reasoning", LENIENT_IN_REASONING)):
        if isinstance(fields.get(name), dict):
            fields[name], _ = sift(fields[name], lenient, name)
    only_functions(fields.get("tool_choice"), "tool_choice")
    if isinstance(fields.get("tools"), list):
        for index, tool in enumerate(fields["tools"]):
            only_functions(tool, f"tools[{index}]")
        fields["tools"] = [
            sift(tool, LENIENT_IN_TOOL, f"tools[{index}]")[0] if isinstance(tool, dict) else tool
            for index, tool in enumerate(fields["tools"])
        ]
    if isinstance(fields.get("input"), list):
        fields["input"] = [
            _item(item, f"input[{index}]") if isinstance(item, dict) else item
            for index, item in enumerate(fields["input"])
        ]


def _item(item: dict[str, Any], path: str) -> dict[str, Any]:
    item = {"type": "message", **item} if "role" in item else item
    if isinstance(item.get("type"), str) and item["type"] not in KINDS:
        raise Unsupported(
            f"items of type {item['type'][:40]!r} cannot be honoured here, only {', '.join(KINDS)}",
            param=f"{path}.type",
        )
    kept, _ = sift(item, LENIENT_IN_ITEM, path)
    for name in ("content", "output"):
        if item.get("type") != "reasoning" and isinstance(kept.get(name), list):
            role = kept.get("role")
            kinds = _PARTS.get(role if isinstance(role, str) else "user", ("output_text", "input_text"))
            only_kinds(kept[name], kinds, f"{path}.{name}")
            kept[name] = [
                sift(part, LENIENT_IN_PART, f"{path}.{name}[{place}]")[0] if isinstance(part, dict) else part
                for place, part in enumerate(kept[name])
            ]
    return kept


# --- items and turns --------------------------------------------------------------------------------------------------


def _turns(items: Sequence[Item]) -> list[Turn]:
    """The conversation that the items are. Raises `Rejected`: an output answers a call that was made before it."""
    turns: list[Turn] = []
    now = _Assistant()
    made: set[str] = set()
    for index, item in enumerate(items):
        if isinstance(item, Message) and item.role == "assistant":
            now = now.begun(turns, unless=not now.text and not now.calls)
            now.text = _text_of(item.content)
        elif isinstance(item, Reasoning):
            now = now.begun(turns, unless=not now.text and not now.calls)
            now.reasoning += "".join(thought.text for thought in item.content or ())
        elif isinstance(item, FunctionCall):
            now.calls.append(Call(item.call_id, item.name, item.arguments))
            made.add(item.call_id)
        else:
            now = now.begun(turns)
            if isinstance(item, FunctionCallOutput):
                if item.call_id not in made:
                    wrong(f"input[{index}].call_id", "call_id must be that of a function_call before this output")
                turns.append(Turn("tool", _text_of(item.output), call_id=item.call_id))
            else:
                turns.append(Turn(ROLES[item.role], _text_of(item.content)))
    now.begun(turns)
    return turns


class _Assistant:
    """What the assistant says in one turn, while its items are read."""

    def __init__(self) -> None:
        self.text = ""
        self.reasoning = ""
        self.calls: list[Call] = []

    def begun(self, turns: list[Turn], *, unless: bool = False) -> _Assistant:
        """The next turn of the assistant, and this one among the turns; or, `unless` it has room for more, this one."""
        if unless:
            return self
        if self.text or self.reasoning or self.calls:
            turns.append(Turn("assistant", self.text, calls=self.calls, reasoning=self.reasoning))
        return _Assistant()


def _text_of(content: str | list[Text]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


# --- tools and formats ------------------------------------------------------------------------------------------------


def _toolbox(wanted: Response) -> Toolbox | None:
    choice = wanted.tool_choice
    return toolbox_with(
        [tool_of(tool.name, tool.description, tool.parameters, strict=tool.strict) for tool in wanted.tools or ()],
        None if isinstance(choice, ChosenFunction) else choice,
        only=choice.name if isinstance(choice, ChosenFunction) else "",
        parallel=wanted.parallel_tool_calls is not False,
    )


def _schema(wanted: TextFormat | None) -> str | None:
    if wanted is None or wanted.type != "json_schema":
        if wanted is not None and wanted.schema is not None:
            wrong("text.format.schema", f"a format of type {wanted.type} has no schema")
        return schema_text({"type": "object"}, "text.format") if wanted and wanted.type == "json_object" else None
    if wanted.schema is None or wanted.name is None:
        missing = "schema" if wanted.schema is None else "name"
        wrong(f"text.format.{missing}", f"a format of type json_schema needs a {missing}")
    return schema_text(wanted.schema, "text.format.schema")


def _told(wanted: Response, request: Request) -> dict[str, Any]:
    """What the response says of the request again."""
    format_ = wanted.text.format if wanted.text and wanted.text.format else TextFormat("text")
    return {
        "instructions": wanted.instructions, "max_output_tokens": wanted.max_output_tokens,
        "metadata": wanted.metadata or {}, "parallel_tool_calls": wanted.parallel_tool_calls is not False,
        "temperature": request.sampling.temperature, "top_p": request.sampling.top_p,
        "top_logprobs": wanted.top_logprobs or 0,
        "reasoning": {"effort": wanted.reasoning.effort if wanted.reasoning else None, "summary": None},
        "text": {"format": {key: value for key, value in msgspec.to_builtins(format_).items() if value is not None}},
        "tools": msgspec.to_builtins(wanted.tools or []),
        "tool_choice": msgspec.to_builtins(wanted.tool_choice) or "auto",
    }  # fmt: skip
