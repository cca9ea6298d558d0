"""From an input to tokens: a text within the frame its model wants, or the very tokens that were given.

Only the model's file speaks in control tokens; a tenant's text never becomes one (`engine.prompt`). Tokens given as ids
are the tenant's own choice, and reach nobody's vector but its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Protocol

from haif.engine.embed import Embed, unpack_tokens

_HOLES: Final = re.compile(r"\{(query|document)\}")


class Framing(Protocol):
    """What this module needs of a model."""

    @property
    def controls(self) -> frozenset[int]:
        """Ids of control tokens."""

    def tokenise(self, text: str, *, special: bool) -> list[int]:
        """Tokens of `text`. Control tokens are recognised only with `special`."""

    def framed(self, text: str) -> list[int]:
        """The tokens of a text to make a vector of, between those that the model wants around it."""

    def framed_pair(self, query: str, document: str) -> list[int]:
        """The tokens of a document to rank, where the model has no template."""


def input_tokens(request: Embed, model: Framing, template: str | None) -> list[list[int]]:
    """The tokens of each input; of a document, with the query. `template` has {query} and {document} in it."""
    if request.tokens is not None:
        return [unpack_tokens(each) for each in request.tokens]
    texts, query = request.texts or [], request.query
    return [model.framed(text) if query is None else _pair(query, text, model, template) for text in texts]


def _pair(query: str, document: str, model: Framing, template: str | None) -> list[int]:
    """In one go as llama.cpp's server does, unless a text then speaks in control tokens: then piece by piece."""
    if template is None:
        return model.framed_pair(query, document)
    texts = {"query": query, "document": document}
    parts = [(texts[part], False) if place % 2 else (part, True) for place, part in enumerate(_HOLES.split(template))]
    whole = model.tokenise("".join(part for part, _ in parts), special=True)
    pieces = [token for part, special in parts if part for token in model.tokenise(part, special=special)]
    return whole if _controls(whole, model) == _controls(pieces, model) else pieces


def _controls(tokens: Sequence[int], model: Framing) -> list[int]:
    return [token for token in tokens if token in model.controls]
