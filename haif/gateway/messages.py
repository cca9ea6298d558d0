"""Anthropic's Messages API, heard: a body becomes the same `Ask` that a chat would, or a 400 that names the parameter.

A message's blocks become turns: a user's results of tools are turns of their own, an assistant's thoughts, text and
calls are one. Source: Anthropic's API reference, `POST /v1/messages`, versions 2023-06-01 and 2026-10-21.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from haif.base.conversation import Call, Toolbox, Turn, check_turns
from haif.base.errors import Refusal, Unsupported
from haif.base.ids import Nonce
from haif.gateway.admission import Headers
from haif.gateway.ask import Ask, check_together, demands, in_words_of, sampling_of
from haif.gateway.dialogue import settings_with, tool_of, toolbox_with
from haif.gateway.messages_fields import (
    BLOCKS,
    LENIENT,
    LENIENT_IN_BLOCK,
    LENIENT_IN_TOOL,
    Message,
    MessagesRequest,
    Text,
    Thought,
    ToolResult,
    ToolUse,
)
from haif.gateway.parts import only_functions, only_kinds, schema_text, stop_strings
from haif.gateway.strict import object_of, sift, typed, wrong
from haif.protocol.inference import Request

VERSIONS: Final = (b"2023-06-01", b"2026-10-21")
"""The later has no `temperature`, `top_p` and `top_k`; here they are heard in both, as `seed` is, which neither has."""


def check_version(headers: Headers) -> None:
    """Return unless the request says that it speaks another version. Raises `Unsupported`."""
    if headers.get(b"anthropic-version", VERSIONS[-1]) not in VERSIONS:
        spoken = " and ".join(version.decode() for version in VERSIONS)
        raise Unsupported(f"anthropic-version: only {spoken} are spoken here", param="anthropic-version")


def parse_message(body: bytes, nonce: Nonce) -> Ask:
    """The body of POST /v1/messages. Raises `Rejected` or `Unsupported`, naming the parameter."""
    fields, ignored = sift(object_of(body), LENIENT)
    ignored += _check_pieces(fields)
    wanted = typed(MessagesRequest, fields)
    if wanted.messages[-1].role == "assistant":
        raise Unsupported(
            "an answer cannot be begun for the model (prefill): end the messages with a user's",
            param=f"messages[{len(wanted.messages) - 1}].role",
        )
    try:
        request = _request(wanted, nonce)
    except Refusal as refusal:
        in_words_of("messages", refusal)
        raise
    return Ask(
        dialect="messages", model=wanted.model, request=request, seed=wanted.seed, stream=bool(wanted.stream),
        ignored=tuple(dict.fromkeys(ignored)), **demands(wanted.haif),
    )  # fmt: skip


def _request(wanted: MessagesRequest, nonce: Nonce) -> Request:
    turns = [Turn("system", _text_of(wanted.system))] if wanted.system else []
    turns += _turns(wanted.messages)
    check_turns(turns)
    config = wanted.output_config
    request = Request(
        nonce=nonce, chat=turns, text=None, tokens_max=wanted.max_tokens, sampling=sampling_of(wanted),
        fit=True,  # an answer may end where the context does: this dialect has a word for it
        stop=stop_strings(wanted.stop_sequences or (), "stop_sequences"),
        json_schema=schema_text(config.format.schema, "output_config.format") if config and config.format else None,
        tools=_toolbox(wanted),
        settings=settings_with(wanted.chat_template_kwargs, config.effort if config else None, "output_config.effort"),
    )  # fmt: skip
    check_together(request)
    return request


# --- what is refused by its path --------------------------------------------------------------------------------------


def _check_pieces(fields: dict[str, Any]) -> tuple[str, ...]:
    """Drop what asks for nothing within the fields, refuse kinds that cannot be honoured; the hints among them."""
    ignored: tuple[str, ...] = ()
    if isinstance(fields.get("tools"), list):
        for index, tool in enumerate(fields["tools"]):
            only_functions(tool, f"tools[{index}]", "custom")
        fields["tools"], ignored = _sifted(fields["tools"], LENIENT_IN_TOOL, "tools")
    if isinstance(fields.get("system"), list):
        only_kinds(fields["system"], BLOCKS["system"], "system")
        fields["system"], more = _sifted(fields["system"], LENIENT_IN_BLOCK, "system")
        ignored += more
    if isinstance(fields.get("messages"), list):
        fields["messages"] = list(fields["messages"])
        for index, message in enumerate(fields["messages"]):
            if isinstance(message, dict) and isinstance(message.get("content"), list):
                content, more = _blocks(message, f"messages[{index}].content")
                fields["messages"][index] = {**message, "content": content}
                ignored += more
    return ignored


def _blocks(message: dict[str, Any], path: str) -> tuple[list[Any], tuple[str, ...]]:
    role = message.get("role")
    only_kinds(message["content"], BLOCKS.get(role if isinstance(role, str) else "user", BLOCKS["user"]), path)
    content, ignored = _sifted(message["content"], LENIENT_IN_BLOCK, path)
    for place, block in enumerate(content):
        if isinstance(block, dict) and isinstance(block.get("content"), list):
            only_kinds(block["content"], ("text",), f"{path}[{place}].content")
            inner, more = _sifted(block["content"], LENIENT_IN_BLOCK, f"{path}[{place}].content")
            content[place] = {**block, "content": inner}
            ignored += more
    return content, ignored


def _sifted(pieces: list[Any], lenient: Any, path: str) -> tuple[list[Any], tuple[str, ...]]:
    kept: list[Any] = []
    ignored: tuple[str, ...] = ()
    for index, piece in enumerate(pieces):
        if isinstance(piece, dict):
            left, more = sift(piece, lenient, f"{path}[{index}]")
            kept.append(left)
            ignored += tuple(name for name in more if name in _WORTH_SAYING)
        else:
            kept.append(piece)
    return kept, ignored


_WORTH_SAYING: Final = frozenset({"cache_control", "is_error", "eager_input_streaming"})


# --- what the fields mean ---------------------------------------------------------------------------------------------


def _turns(messages: Sequence[Message]) -> list[Turn]:
    """The conversation. Raises `Rejected`: a result is that of a call that was made before it."""
    turns: list[Turn] = []
    made: set[str] = set()
    for index, message in enumerate(messages):
        if isinstance(message.content, str):
            turns.append(Turn(message.role, message.content))
            continue
        results = [block for block in message.content if isinstance(block, ToolResult)]
        for place, block in enumerate(message.content):
            if isinstance(block, ToolResult) and block.tool_use_id not in made:
                wrong(
                    f"messages[{index}].content[{place}].tool_use_id",
                    "tool_use_id must be that of a tool_use in an assistant's message before",
                )
        turns += [Turn("tool", _text_of(result.content or ""), call_id=result.tool_use_id) for result in results]
        calls = [
            Call(block.id, block.name, msgspec.json.encode(block.input).decode())
            for block in message.content if isinstance(block, ToolUse)
        ]  # fmt: skip
        made.update(call.id for call in calls)
        if len(results) < len(message.content) or not message.content:
            turns.append(Turn(
                message.role, "".join(block.text for block in message.content if isinstance(block, Text)), calls=calls,
                reasoning="".join(block.thinking for block in message.content if isinstance(block, Thought)),
            ))  # fmt: skip
    return turns


def _text_of(content: str | list[Text]) -> str:
    return content if isinstance(content, str) else "".join(block.text for block in content)


def _toolbox(wanted: MessagesRequest) -> Toolbox | None:
    choice = wanted.tool_choice
    if choice is not None and (choice.name is not None) != (choice.type == "tool"):
        wrong("tool_choice.name", "a tool_choice of type tool, and no other, has a name")
    return toolbox_with(
        [tool_of(tool.name, tool.description, tool.input_schema, strict=tool.strict) for tool in wanted.tools or ()],
        _WORD[choice.type] if choice else None,
        only=(choice.name if choice else None) or "",
        parallel=not (choice and choice.disable_parallel_tool_use),
    )


_WORD: Final = {"auto": "auto", "any": "required", "tool": None, "none": "none"}
