"""Answers that fit a JSON schema: which tokens may come next, by llguidance.

1. choose as always; if the schema allows that token, it is the token
2. else choose again among the tokens that it allows

So most steps cost one check of one token, and whoever has the request and the tokens can replay every choice. What the
compiler does not know in a schema is refused, and its work is bounded (`llguidance.LLParserLimits`, its defaults).
"""

from __future__ import annotations

import json
from typing import Protocol

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from haif.base.errors import InvalidRequest
from haif.engine.multiples import check_multiples
from haif.engine.noise import Floats
from haif.engine.sampler import Logits


class Grammar:
    """What one answer may still say. `param` is what asked for it."""

    def __init__(self, tokenizer: LLTokenizer, compiled: str, size: int, param: str) -> None:
        """Raises `InvalidRequest` for a grammar that cannot be honoured, saying why."""
        self._matcher = LLMatcher(tokenizer, compiled, log_level=0)
        self._size = size
        self._param = param
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise _refusal(self._matcher.get_error(), self._param)

    def allows(self, token: int) -> bool:
        """Whether the token may come next."""
        return bool(self._matcher.validate_tokens([token]))

    def masked(self, z: Logits) -> Floats:
        """The logits with minus infinity where a token may not come next. Raises `InvalidRequest` if none may."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        allowed = np.unpackbits(bits, bitorder="little", count=self._size).astype(bool)
        if not allowed.any():
            raise _refusal("no token of this model's vocabulary can continue the answer", self._param)
        return np.where(allowed, z, -np.inf)

    def accept(self, token: int) -> None:
        """The token came. Raises `InvalidRequest` where the answer became too involved to follow."""
        if not self._matcher.consume_token(token):
            self._check()


class Vocabulary(Protocol):
    """What this module needs of a model."""

    size: int
    controls: frozenset[int]
    ending: frozenset[int]

    def spelled(self, token: int) -> bytes:
        """The bytes of a token, a control token's name included."""

    def tokenise(self, text: str, *, special: bool) -> list[int]:
        """Tokens of `text`."""


class Grammars:
    """Makes grammars over one vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._size = vocabulary.size
        self._tokenizer = LLTokenizer(TokenizerWrapper(_Words(vocabulary)), eos_token=sorted(vocabulary.ending))

    def compile(self, schema: str) -> Grammar:
        """Of a JSON schema. Raises `InvalidRequest`."""
        try:
            check_multiples(json.loads(schema))
        except (ValueError, RecursionError) as error:
            raise _refusal(str(error), "response_format") from None
        try:  # one space, or a new line and its indent: no model writes spaces for ever
            compiled = LLMatcher.grammar_from_json_schema(
                schema, defaults={"whitespace_pattern": r"( |\n[ \t]{0,16})?"}
            )
        except ValueError as error:
            raise _refusal(str(error), "response_format") from None
        return Grammar(self._tokenizer, compiled, self._size, "response_format")

    def parse(self, lark: str, param: str) -> Grammar:
        """Of llguidance's Lark syntax, in which `param` was written down. Raises `InvalidRequest`."""
        try:
            compiled = LLMatcher.grammar_from_lark(lark)
        except ValueError as error:
            raise _refusal(str(error), param) from None
        return Grammar(self._tokenizer, compiled, self._size, param)


class _Words:
    """A vocabulary as llguidance asks for it."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.tokens = [vocabulary.spelled(token) for token in range(vocabulary.size)]
        self.special_token_ids = sorted(vocabulary.controls)
        self.eos_token_id = min(vocabulary.ending)
        self.bos_token_id = None
        self._vocabulary = vocabulary

    def __call__(self, text: bytes) -> list[int]:
        return self._vocabulary.tokenise(text.decode(errors="replace"), special=False)


def _refusal(why: str, param: str) -> InvalidRequest:
    first = (why.strip().splitlines() or ["the compiler does not say why"])[0][:300]
    return InvalidRequest(f"this JSON schema cannot be honoured: {first}", param=param)
