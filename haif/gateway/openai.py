"""OpenAI's dialect, heard strictly: a body becomes an `Ask`, or a 400 that names what cannot be honoured.

1. JSON: well-formed, no key twice, no NaN, an object.
2. Each field: honoured (typed in `gateway.fields`), neutral (a value that asks for nothing), a hint (ignored and said
   so), or refused by its name. Unknown means no.
3. Types and ranges.

Source: the OpenAI API reference (openai-openapi 2.3.0), `createChatCompletion` and `createCompletion`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from haif.base import limits
from haif.base.conversation import Setting, Toolbox, Turn
from haif.base.errors import Unsupported
from haif.base.ids import Nonce
from haif.gateway.ask import Ask, Dialect, check_together, demands, sampling_of
from haif.gateway.dialogue import ROLES, settings_of, toolbox_of, turns_of
from haif.gateway.errors import Rejected
from haif.gateway.fields import LENIENT, LENIENT_IN_MESSAGE, Chat, Common, Completion, Format
from haif.gateway.line import Service
from haif.gateway.parts import only_functions, only_kinds, plain_stream, schema_text, stop_strings
from haif.gateway.strict import object_of, sift, typed, wrong
from haif.protocol.inference import Request


def parse_chat(body: bytes, nonce: Nonce) -> Ask:
    """The body of POST /v1/chat/completions. Raises `Rejected` or `Unsupported`, naming the parameter."""
    fields, ignored = _sift(object_of(body))
    _check_messages(fields)
    _check_kinds(fields)
    chat = typed(Chat, fields)
    if chat.max_tokens and chat.max_completion_tokens and chat.max_tokens != chat.max_completion_tokens:
        wrong("max_tokens", "max_tokens and max_completion_tokens disagree; give max_completion_tokens only")
    if chat.top_logprobs is not None and not chat.logprobs:
        wrong("top_logprobs", "top_logprobs is only allowed when logprobs is true")
    request = _request(
        chat, nonce, chat=turns_of(chat.messages), tokens_max=chat.max_completion_tokens or chat.max_tokens,
        logprobs=(chat.top_logprobs or 0) if chat.logprobs else None, json_schema=_schema(chat.response_format),
        tools=toolbox_of(chat), settings=settings_of(chat),
    )  # fmt: skip
    check_together(request)
    return _ask("chat", chat, ignored, request)


def parse_completion(body: bytes, nonce: Nonce) -> Ask:
    """The body of POST /v1/completions. Raises `Rejected` or `Unsupported`, naming the parameter."""
    fields, ignored = _sift(object_of(body))
    if isinstance(fields.get("prompt"), list) and (len(fields["prompt"]) > 1 or _has_numbers(fields["prompt"])):
        raise Unsupported("prompt must be one text: batches and token ids cannot be honoured", param="prompt")
    completion = typed(Completion, fields)
    prompt = completion.prompt if isinstance(completion.prompt, str) else completion.prompt[0]
    if completion.best_of not in {None, completion.n or 1}:
        raise Unsupported("best_of other than n cannot be honoured: ask for n and choose among them", param="best_of")
    if completion.echo and completion.logprobs is not None:
        raise Unsupported("logprobs of an echoed prompt cannot be honoured: leave out echo", param="logprobs")
    request = _request(
        completion, nonce, text=prompt, suffix=completion.suffix or None, tokens_max=completion.max_tokens,
        logprobs=completion.logprobs,
    )  # fmt: skip
    return _ask("text", completion, ignored, request, echo=prompt if completion.echo else "")


def _ask(dialect: Dialect, common: Common, ignored: tuple[str, ...], request: Request, *, echo: str = "") -> Ask:
    options = common.stream_options
    if options is not None and not common.stream:
        wrong("stream_options", "stream_options is only allowed when stream is true")
    flex = common.service_tier == "flex"
    return Ask(
        dialect=dialect, model=common.model, request=request, seed=common.seed, stream=bool(common.stream),
        include_usage=options is not None and bool(options.include_usage), ignored=ignored, echo=echo,
        choices=common.n or 1, service=Service.BATCH if flex else Service.INTERACTIVE,
        told={"service_tier": "flex" if flex else "default"} if common.service_tier else {}, **demands(common.haif),
    )  # fmt: skip


def _request(
    common: Common, nonce: Nonce, *, chat: list[Turn] | None = None, text: str | None = None,
    suffix: str | None = None, tokens_max: int | None, logprobs: int | None, json_schema: str | None = None,
    tools: Toolbox | None = None, settings: Sequence[tuple[str, Setting]] = (),
) -> Request:  # fmt: skip
    return Request(
        nonce=nonce, chat=chat, text=text, tokens_max=tokens_max or limits.COMPLETION_TOKENS_UNSAID_MAX,
        fit=tokens_max is None, suffix=suffix, logprobs=logprobs, stop=_stop(common.stop),
        sampling=sampling_of(common, _bias(common.logit_bias or {})),
        json_schema=json_schema, tools=tools, settings=list(settings),
    )  # fmt: skip


# --- 2. each field ----------------------------------------------------------------------------------------------------


def _sift(fields: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What is to be honoured, and the hints that are ignored. Null means not given, for every known field."""
    kept, ignored = sift(fields, LENIENT)
    plain_stream(kept)
    return kept, ignored


def _check_messages(fields: dict[str, Any]) -> None:
    """Drop what asks for nothing; refuse roles, parts and fields that cannot be honoured, by their path."""
    messages = fields.get("messages")
    if not isinstance(messages, list):
        return
    fields["messages"] = [
        _check_message(message, f"messages[{index}]") if isinstance(message, dict) else message
        for index, message in enumerate(messages)
    ]


def _check_message(message: dict[str, Any], path: str) -> dict[str, Any]:
    role = message.get("role")
    if isinstance(role, str) and role not in ROLES:
        raise Unsupported(f"the role {role[:40]!r} cannot be honoured", param=f"{path}.role")
    if not (role == "assistant" and message.get("tool_calls")) and message.get("content") is None:
        code = "invalid_type" if "content" in message else "missing_required_parameter"
        raise Rejected(f"{path}.content is missing", code=code, param=f"{path}.content")
    kept, _ = sift(message, LENIENT_IN_MESSAGE, path)
    only_kinds(message.get("content"), ("text",), f"{path}.content")
    return kept


def _check_kinds(fields: dict[str, Any]) -> None:
    """Refuse tools and choices of kinds that cannot be honoured, by their path."""
    tools = fields.get("tools")
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        only_functions(tool, f"tools[{index}]")
    only_functions(fields.get("tool_choice"), "tool_choice")


# --- 3. what the fields mean ------------------------------------------------------------------------------------------


def _bias(biases: dict[str, float]) -> list[tuple[int, float]]:
    """Biases by token id, ascending. The ids are this model's own."""
    if len(biases) > limits.LOGIT_BIASES_MAX:
        wrong("logit_bias", f"at most {limits.LOGIT_BIASES_MAX} tokens can have a bias")
    if not all(token.isascii() and token.isdecimal() and str(int(token)) == token for token in biases):
        wrong("logit_bias", 'logit_bias maps token ids to biases; an id is a number such as "50256"')
    if any(len(token) > len(str(limits.VOCABULARY_MAX)) or int(token) >= limits.VOCABULARY_MAX for token in biases):
        wrong("logit_bias", "no vocabulary has a token with such an id")
    return sorted((int(token), bias) for token, bias in biases.items())


def _schema(wanted: Format | None) -> str | None:
    """The JSON schema an answer must fit; any object's for `json_object`."""
    if wanted is None or wanted.type == "text":
        schema: dict[str, Any] | None = None
    elif wanted.type == "json_object":
        schema = {"type": "object"}
    elif wanted.json_schema is None:
        wrong("response_format.json_schema", "a response format of type json_schema needs a json_schema")
    else:
        schema = wanted.json_schema.schema
    if wanted is not None and wanted.json_schema is not None and wanted.type != "json_schema":
        wrong("response_format.json_schema", f"a response format of type {wanted.type} has no json_schema")
    return None if schema is None else schema_text(schema, "response_format")


def _stop(stop: str | list[str] | None) -> list[str]:
    return stop_strings([stop] if isinstance(stop, str) else stop or [], "stop")


def _has_numbers(prompt: list[Any]) -> bool:
    return any(isinstance(item, int | list) for item in prompt)
