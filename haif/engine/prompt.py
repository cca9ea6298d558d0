"""From a chat or a text to tokens, such that only the model's template can speak in control tokens.

A tenant's "<|end|>" is seven characters, never the token that ends a turn. 1. Each control token's text that occurs in
a message, a tool or a call is replaced by a mark none of them can contain (it is made of their digest). 2. The template
renders. 3. What stands between the marks is tokenised with control tokens, what the marks stand for without. 4. The
control tokens that came out must be exactly those the template puts around harmless messages: so text that forms one
only together with the template's own is refused too. A chat without such text takes one pass and gives the very tokens
of the plain rendering. Raw text for completion never yields a control token, but the one that opens every text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from haif.base.errors import InvalidRequest, Unsupported
from haif.base.hashing import digest
from haif.engine.scene import Scene

Render = Callable[[Scene], str]


class Prompt(NamedTuple):
    """The tokens of a chat, and the text they were made of (what was hidden in it is marks)."""

    tokens: list[int]
    text: str


class Vocabulary(Protocol):
    """What this module needs of a model."""

    @property
    def opening(self) -> int | None:
        """The token every text begins with, if the model has one."""

    @property
    def infill(self) -> tuple[int, int, int] | None:
        """The tokens before a prefix, before a suffix and before what belongs between, if the model was taught them."""

    @property
    def controls(self) -> frozenset[int]:
        """Ids of control tokens."""

    @property
    def control_text(self) -> re.Pattern[str] | None:
        """Finds the text of any control token."""

    def tokenise(self, text: str, *, special: bool) -> list[int]:
        """Tokens of `text`. Control tokens are recognised only with `special`."""


def text_tokens(text: str, vocabulary: Vocabulary) -> list[int]:
    """The tokens of a text to continue."""
    return _opened(vocabulary.tokenise(text, special=False), vocabulary)


def infill_tokens(prefix: str, suffix: str, vocabulary: Vocabulary) -> list[int]:
    """The tokens that ask for what belongs between two texts (Bavarian et al. 2022, "PSM"). Raises `Unsupported`."""
    if vocabulary.infill is None:
        raise Unsupported("this model was not taught to fill in between two texts", param="suffix")
    before, after, middle = vocabulary.infill
    texts = (vocabulary.tokenise(text, special=False) for text in (prefix, suffix))
    return _opened([before, *next(texts), after, *next(texts), middle], vocabulary)


def chat_prompt(scene: Scene, render: Render, vocabulary: Vocabulary) -> Prompt:
    """The tokens of a chat. Raises what `render` raises, and `InvalidRequest` where text poses as control."""
    tokens, text = _rendered(scene, render, vocabulary)
    expected = vocabulary.tokenise(render(scene.harmless()), special=True)
    if _controls(tokens, vocabulary) != _controls(expected, vocabulary):
        raise InvalidRequest(
            "a message or tool forms a control token together with the chat template", param="messages"
        )
    return Prompt(_opened(tokens, vocabulary), text)


def _rendered(scene: Scene, render: Render, vocabulary: Vocabulary) -> Prompt:
    mark = digest("haif v1 template mark", *(text.encode() for text in scene.texts())).hex()
    hidden: list[str] = []

    def hide(found: re.Match[str]) -> str:
        hidden.append(found[0])
        return f"\ue000{mark}:{len(hidden) - 1}\ue001"

    pattern = vocabulary.control_text
    text = render(scene.changed(lambda each: pattern.sub(hide, each)) if pattern else scene)
    if not hidden:
        return Prompt(vocabulary.tokenise(text, special=True), text)
    tokens: list[int] = []
    for place, part in enumerate(re.split(f"\ue000{mark}:([0-9]+)\ue001", text)):
        if place % 2:
            tokens += vocabulary.tokenise(hidden[int(part)], special=False)
        elif part:
            tokens += vocabulary.tokenise(part, special=True)
    return Prompt(tokens, text)


def _controls(tokens: Sequence[int], vocabulary: Vocabulary) -> list[int]:
    return [token for token in tokens if token in vocabulary.controls]


def _opened(tokens: list[int], vocabulary: Vocabulary) -> list[int]:
    opening = vocabulary.opening
    return tokens if opening is None or tokens[:1] == [opening] else [opening, *tokens]
