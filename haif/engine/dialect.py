"""How a model writes calls and thoughts, learnt from its own chat template by rendering, never from its name.

1. A function is offered: a template that does not show it to the model knows no tools.
2. A conversation is rendered in which the assistant said something, then one in which it called two functions instead
   (one, where two are refused). Where the two part, a call begins; between the names and arguments that we know stands
   the form. Names must come before arguments, and arguments as the text of a JSON object.
3. A tool's result must come out of the template too.

Templates differ in what they expect of a call in a conversation, so the manners are tried in turn. An id before the
arguments is any the model writes; one behind them is not asked of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from haif.base.conversation import Call, Tool, Turn
from haif.base.errors import Refusal
from haif.engine.scene import Manner, Scene, scene
from haif.engine.speech import HOLE, Form, Thought

Rendering = Callable[[Scene, bool], str]  # of a scene; as a prompt, or as it stands

_MANNERS: Final = tuple(Manner(objects, empty) for empty in ("", None) for objects in (True, False))
_NAMES: Final = ("haif_first", "haif_second")
_IDS: Final = ("haifcall1", "haifcall2")  # some templates want nine letters and digits
_RESULT: Final = "haif result"
_SAID: Final = "haif said"
_OBJECT: Final = re.compile(r'\{\s*"haif_key"\s*:\s*"haif value"\s*\}')
_ID: Final = re.compile(f'"{HOLE}"')
_ID_LAST: Final = re.compile(r'\s*,\s*"[^"]*"\s*:\s*"\0"')
_THOUGHTS: Final = (
    Thought("<think>", "</think>"), Thought("<thinking>", "</thinking>"), Thought("<thought>", "</thought>"),
    Thought("<reasoning>", "</reasoning>"), Thought("[THINK]", "[/THINK]"), Thought("<seed:think>", "</seed:think>"),
    Thought("<|START_THINKING|>", "<|END_THINKING|>"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Dialect:
    """What was learnt. Without a `form`, `why` says why the model can be offered no tools."""

    manner: Manner
    form: Form | None
    why: str
    results: bool  # whether a tool's result reaches the model


def learn(render: Rendering, ends: Collection[str]) -> Dialect:
    """The dialect of a template. `ends`: the texts of tokens that end an answer."""
    user, tools = Turn("user", "haif asks"), [Tool(name, "haif", '{"type":"object","properties":{}}', False)
                                              for name in _NAMES]  # fmt: skip

    def shown(turns: list[Turn], manner: Manner, *, prompt: bool = False) -> str | None:
        try:
            return render(scene(turns, tools, manner), prompt)
        except Refusal:
            return None

    asked = shown([user], Manner(), prompt=True)
    if asked is None or _NAMES[0] not in asked:
        return Dialect(Manner(), None, "its chat template shows a model no tools", results=False)
    calls = [Call(key, name, '{"haif_key": "haif value"}') for key, name in zip(_IDS, _NAMES, strict=True)]
    said = shown([user, Turn("assistant", _SAID)], Manner()) or ""
    for several in (calls, calls[:1]):
        for manner in _MANNERS:
            called = shown([user, Turn("assistant", "", calls=several)], manner)
            form = called and _form(called, said, len(several), ends)
            if form:
                result = Turn("tool", _RESULT, call_id=_IDS[0])
                answered = shown([user, Turn("assistant", "", calls=calls[:1]), result], manner, prompt=True)
                return Dialect(manner, form, "", results=answered is not None and _RESULT in answered)
    why = "its chat template does not write a call as a name and then a JSON object"
    return Dialect(Manner(), None, why, results=False)


def thought(source: str) -> Thought | None:
    """What stands around thoughts, if the template's source speaks of them."""
    return next((each for each in _THOUGHTS if each.closing in source), None)


def _form(called: str, said: str, count: int, ends: Collection[str]) -> Form | None:
    start = min(len(_common(called, said)), max(said.find(_SAID), 0))
    text = called[start:]
    for key in _IDS:
        text = text.replace(key, HOLE)
    cuts = _cuts(text, count)
    if cuts is None:
        return None
    (opening, middle), *others = [(text[begin:name], text[after:first]) for begin, name, after, first, _ in cuts]
    if any(each != middle for _, each in others):
        return None
    tail = _before_end(text[cuts[-1][4] :], ends)
    between = None
    closing = tail
    if others:
        closing = _whole(_common(others[0][0], tail))
        between = others[0][0][len(closing) :]
    form = Form(opening.strip(), middle, _ID_LAST.sub("", closing), between, tail[len(closing) :])
    return form if form.opening and not any(HOLE in _ID.sub("", each) for each in form.texts) else None


def _cuts(text: str, count: int) -> list[tuple[int, int, int, int, int]] | None:
    """Of each call: where what is before its name begins, the name, its end, the arguments, and their end."""
    cuts, at = [], 0
    for name in _NAMES[:count]:
        found = text.find(name, at)
        behind = found + len(name)
        arguments = _OBJECT.search(text, behind) if found >= 0 else None
        if arguments is None:
            return None
        cuts.append((at, found, behind, arguments.start(), arguments.end()))
        at = arguments.end()
    return cuts


def _before_end(tail: str, ends: Collection[str]) -> str:
    places = [place for place in (tail.find(end) for end in ends if end) if place >= 0]
    return tail[: min(places)] if places else tail.rstrip()


def _common(left: str, right: str) -> str:
    """What two texts begin with."""
    end = next((place for place, pair in enumerate(zip(left, right, strict=False)) if pair[0] != pair[1]), None)
    return min(left, right, key=len) if end is None else left[:end]


def _whole(text: str) -> str:
    """Without a marker's beginning: two different markers may begin alike."""
    for opening, closing in ("<>", "[]"):
        place = text.rfind(opening)
        if place > text.rfind(closing):
            return text[:place]
    return text
