"""A chat becomes a prompt, and the way its answer is heard: by the model's own template, or it is refused.

What the template cannot do is refused by name: tools it does not show or whose calls it does not write as JSON, results
of tools it leaves out, names it does not show, settings it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

from haif.base.conversation import Toolbox, Turn
from haif.base.errors import InvalidRequest, Unsupported
from haif.engine import prompt
from haif.engine.answer import Voice
from haif.engine.dialect import Dialect, learn, thought
from haif.engine.enforce import calls_answer, json_answer, literals
from haif.engine.prompt import chat_prompt
from haif.engine.request import Generate
from haif.engine.scene import Manner, Scene, scene
from haif.engine.speech import HOLE, Speech
from haif.engine.template import ChatTemplate


class Vocabulary(prompt.Vocabulary, Protocol):
    """What this module needs of a model."""

    @property
    def ending(self) -> frozenset[int]:
        """Ids of tokens that end an answer."""

    def text_of(self, token: int) -> str:
        """How the vocabulary writes a token."""


class Chats:
    """The chats of one model. `limited` bounds the time of what is done inside it."""

    def __init__(
        self,
        template: ChatTemplate | Unsupported | None,
        vocabulary: Vocabulary,
        limited: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._source = template
        self._vocabulary = vocabulary
        self._limited = limited
        self._controls = {vocabulary.text_of(token): token for token in vocabulary.controls | vocabulary.ending}
        self._thought = thought(template.source) if isinstance(template, ChatTemplate) else None
        self._learnt: Dialect | None = None

    def prepared(self, request: Generate) -> tuple[list[int], Voice | None]:
        """The prompt of a request, and the voice of its answer if that may have parts.

        Raises `Unsupported` for what the template cannot do, `InvalidRequest` for what it or the prompt refuses.
        """
        template = self._template
        turns, box = request.chat or [], request.tools
        self._check_settings(template, request)
        dialect = self._dialect(turns, box)
        view = scene(turns, box.tools if box else (), dialect.manner if dialect else Manner())
        settings = dict(request.settings)

        def render(shown: Scene) -> str:
            with self._limited():
                return template.render(shown.messages, shown.tools, settings)

        self._check_names(turns, view, render)
        tokens, text = chat_prompt(view, render, self._vocabulary)
        return tokens, self._voice(request, dialect, text)

    @property
    def _template(self) -> ChatTemplate:
        if self._source is None:
            raise Unsupported("this model has no chat template: use a text completion instead", param="messages")
        if isinstance(self._source, Unsupported):
            raise self._source
        return self._source

    # --- what the template can do -------------------------------------------------------------------------------------

    def _dialect(self, turns: Sequence[Turn], box: Toolbox | None) -> Dialect | None:
        """What the template teaches about tools; None where the chat has nothing to do with any."""
        results = any(turn.role == "tool" for turn in turns)
        if box is None and not results and not any(turn.calls for turn in turns):
            return None
        if self._learnt is None:
            ends = [self._vocabulary.text_of(each) for each in self._vocabulary.ending]
            self._learnt = learn(self._rendered, ends, self._thought)
        dialect = self._learnt
        if dialect.form is None:
            param = "tools" if box is not None else "messages"
            raise Unsupported(f"this model cannot be offered tools: {dialect.why}", param=param)
        if results and not dialect.results:
            raise Unsupported("this model's chat template leaves out the results of tools", param="messages")
        return dialect

    def _rendered(self, shown: Scene, as_prompt: bool) -> str:
        with self._limited():
            return self._template.render(shown.messages, shown.tools, prompt=as_prompt)

    def _check_settings(self, template: ChatTemplate, request: Generate) -> None:
        pattern = self._vocabulary.control_text
        for name, value in request.settings:
            param = name if name == "reasoning_effort" else f"chat_template_kwargs.{name}"
            if name not in template.settings:
                raise Unsupported(f"this model's chat template knows no {name}", param=param)
            if pattern is not None and isinstance(value, str) and pattern.search(value):
                raise InvalidRequest("a setting has the text of a control token", param=param)

    def _check_names(self, turns: Sequence[Turn], view: Scene, render: Callable[[Scene], str]) -> None:
        """A participant's name is honoured where the template shows it. A tool's is known from its call anyway."""
        named = [place for place, turn in enumerate(turns) if turn.name and turn.role != "tool"]
        if named and render(view) == render(_nameless(view)):
            raise Unsupported("this model's chat template shows no names", param=f"messages[{named[0]}].name")

    # --- how the answer is heard --------------------------------------------------------------------------------------

    def _voice(self, request: Generate, dialect: Dialect | None, text: str) -> Voice | None:
        box, mark = request.tools, self._thought
        if mark is not None and text.rstrip().endswith(mark.closing):  # the template said that there is none
            mark = None
        form = dialect.form if dialect is not None and box is not None else None
        if form is None and mark is None:
            return None
        if request.logprobs is not None:
            raise Unsupported("logprobs of answers with parts (reasoning, calls) cannot be told", param="logprobs")
        thinking = mark is not None and text.rstrip().endswith(mark.opening)
        speech = Speech(
            form=form, names=[tool.name for tool in box.tools if box.only in {"", tool.name}] if box else (),
            single=box is not None and box.single, thought=mark, thinking=thinking, stop=request.stop,
        )  # fmt: skip
        said = [*(form.texts if form else ()), *((mark.opening, mark.closing) if mark else ())]
        markers = {
            each: name.encode() for name, each in self._controls.items() if name and any(name in s for s in said)
        }
        voice = Voice(speech, markers)
        try:
            if box is not None and form is not None:
                return replace(voice, lark=calls_answer(box, form, mark, thinking=thinking, literal=self._literal))
            if request.json_schema is not None and mark is not None:
                lark = json_answer(request.json_schema, mark, thinking=thinking, literal=self._literal)
                return replace(voice, lark=lark, param="response_format")
        except ValueError as error:
            param = "tools" if box is not None else "response_format"
            raise InvalidRequest(f"this JSON schema cannot be honoured: {error}", param=param) from None
        return voice

    def _literal(self, text: str) -> list[str]:
        pattern = self._vocabulary.control_text
        edges = HOLE if pattern is None else f"{HOLE}|{pattern.pattern}"
        return literals(re.split(f"({edges})", text), self._controls)


def _nameless(view: Scene) -> Scene:
    def unnamed(message: dict[str, object]) -> dict[str, object]:
        return {key: value for key, value in message.items() if key != "name" or message["role"] == "tool"}

    return Scene([unnamed(message) for message in view.messages], view.tools)
