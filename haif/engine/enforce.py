"""Grammars for answers with parts, in llguidance's Lark syntax: an optional thought, then calls, text or JSON.

Where a call is due, nothing else can come (but the thought a template marks). Where it is not, text is free until
something opens a call, and from there on it is one. Arguments fit the function's schema where a call is due or the
function is strict, and are some object otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from haif.base import limits
from haif.base.conversation import Tool, Toolbox, json_object
from haif.engine.multiples import check_multiples
from haif.engine.speech import HOLE, Form, Thought

Literal = Callable[[str], list[str]]  # a text as a row of terminals, control tokens among them

_SPACE: Final = r"( |\n[ \t]{0,16})?"  # one space, or a new line and its indent: no model writes spaces for ever
_TERMINALS: Final = (
    "TEXT: /(.|\\n)*/",
    "SPACE: /[ \\n]{1,4}/",
    r"OTHER: /\s*([^{\[\s](.|\n)*)?/",
    "ID: /[a-zA-Z0-9]{1,32}/",
)


def json_answer(schema: str, thought: Thought, *, thinking: bool, literal: Literal) -> str:
    """JSON that fits a schema, behind the thought of a model that has some. Raises `ValueError` for what is no JSON."""
    return _lark("answer", [f"answer: {_json(json_object(schema))}"], thought, thinking, literal)


def calls_answer(box: Toolbox, form: Form, thought: Thought | None, *, thinking: bool, literal: Literal) -> str | None:
    """What an answer with these functions may say; None where it may say anything. Raises `ValueError` as above."""
    if not (box.must or any(tool.strict for tool in box.tools)):
        return None
    offered = [tool for tool in box.tools if box.only in {"", tool.name}]
    several = ["call"]
    if form.between is not None and not box.single:
        several.append(f"({' '.join(literal(form.between))} call){{0,{limits.TOOL_CALLS_MAX - 1}}}")
    rules = [
        f"call: {' | '.join(f'call_{place}' for place in range(len(offered)))}",
        *(_call(place, tool, form, literal, fits=box.must or tool.strict) for place, tool in enumerate(offered)),
        f"calls: {' '.join([*several, *literal(form.ending)])}",
    ]
    opening = literal(form.opening)
    if box.must:
        answer = " ".join([*opening, "calls"])
    elif form.bare:
        answer = f"{' '.join(opening)} calls | OTHER"
    elif opening[0].startswith("<["):
        answer = f"(TEXT {' '.join(opening)} calls)* text"
    else:
        marker = form.opening.partition("{")[0].rstrip()
        rules.append(f"trigger[lazy]: TEXT {_quoted(marker)}")
        answer = f"(trigger {' '.join(literal(form.opening[len(marker) :]))} calls)* text"
    return _lark("answer", [f"answer: {answer}", "text: TEXT", *rules], thought, thinking, literal)


def _call(place: int, tool: Tool, form: Form, literal: Literal, *, fits: bool) -> str:
    schema = json_object(tool.parameters) if fits else {}
    parts = [_quoted(tool.name), *literal(form.middle), _json({**schema, "type": "object"}), *literal(form.closing)]
    return f"call_{place}: {' '.join(parts)}"


def _lark(start: str, rules: list[str], thought: Thought | None, thinking: bool, literal: Literal) -> str:
    before: list[str] = []
    if thought is not None:
        closing = literal(thought.closing)
        if closing[0].startswith("<["):
            before = [f"thought: TEXT {closing[0]} SPACE?"]
        else:
            before = ["thought: thinking SPACE?", f"thinking[lazy]: TEXT {' '.join(closing)}"]
        begins = "thought" if thinking else f"(SPACE? {' '.join(literal(thought.opening))} thought)?"
        start = f"{begins} {start}"
    return "\n".join(["%llguidance {}", f"start: {start}", *rules, *before, *_TERMINALS])


def _json(schema: dict[str, Any]) -> str:
    check_multiples(schema)
    return f"%json {json.dumps({**schema, 'x-guidance': {'whitespace_pattern': _SPACE}})}"


def _quoted(text: str) -> str:
    return json.dumps(text)


def literals(parts: Iterable[str], controls: Mapping[str, int]) -> list[str]:
    """The parts of a text as terminals, where control tokens are parts of their own."""
    known = {text: f"<[{token}]>" for text, token in controls.items()} | {HOLE: "ID"}
    return [known.get(part) or _quoted(part) for part in parts if part]
