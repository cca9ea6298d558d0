"""From an input to tokens: a text within the frame its model wants, or the very tokens that were given.

Only the model's file speaks in control tokens; a tenant's text never becomes one (`engine.prompt`). Tokens given as ids
are the tenant's own choice, and reach nobody's vector but its own.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from haif.base.errors import InvalidRequest
from haif.engine.embed import Embed, unpack_tokens
from haif.engine.prompt import Turns, Vocabulary, chat_tokens

_HOLES: Final = re.compile(r"\{(query|document)\}")


class Framing(Vocabulary, Protocol):
    """What this module needs of a model."""

    def framed(self, text: str) -> list[int]:
        """The tokens of a text to make a vector of, between those that the model wants around it."""

    def framed_pair(self, query: str, document: str) -> list[int]:
        """The tokens of a document to rank, where the model has no template."""


def input_tokens(request: Embed, model: Framing, template: str | None) -> list[list[int]]:
    """The tokens of each input; of a document, with the query. `template` has {query} and {document} in it.

    Raises `InvalidRequest` for a text that forms a control token together with the template.
    """
    if request.tokens is not None:
        return [unpack_tokens(each) for each in request.tokens]
    texts, query = request.texts or [], request.query
    return [model.framed(text) if query is None else _pair(query, text, model, template) for text in texts]


def _pair(query: str, document: str, model: Framing, template: str | None) -> list[int]:
    if template is None:
        return model.framed_pair(query, document)

    def render(turns: Turns) -> str:
        texts = dict(turns)
        return _HOLES.sub(lambda hole: texts[hole[1]], template)

    try:
        return chat_tokens([("query", query), ("document", document)], render, model)
    except InvalidRequest as refusal:
        raise InvalidRequest(refusal.message, param="documents") from None
