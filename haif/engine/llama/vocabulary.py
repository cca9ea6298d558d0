"""What a model's file says besides its weights: its metadata and templates, and texts to tokens and back."""

from __future__ import annotations

import ctypes
import re
from typing import Any, Final

import llama_cpp as api

from haif.base import limits

_TOKEN_CONTROL: Final = api.LLAMA_TOKEN_ATTR_CONTROL | api.LLAMA_TOKEN_ATTR_UNKNOWN


class Vocabulary:
    """Of a model that is loaded. `size` tokens, of which `controls` mark something and `ending` end a generation."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._vocabulary = vocabulary = api.llama_model_get_vocab(model)
        self.size = int(api.llama_vocab_n_tokens(vocabulary))
        self._buffer = ctypes.create_string_buffer(4096)
        self._pieces: list[bytes | None] = [None] * self.size
        everything = range(self.size)
        self.controls = frozenset(t for t in everything if api.llama_vocab_get_attr(vocabulary, t) & _TOKEN_CONTROL)
        self.ending = frozenset(t for t in everything if api.llama_vocab_is_eog(vocabulary, t))
        texts = {self.text_of(token) for token in self.controls | self.ending} - {""}
        ordered = sorted(texts, key=lambda text: (-len(text), text))
        self.control_text = re.compile("|".join(map(re.escape, ordered))) if ordered else None
        bos = int(api.llama_vocab_bos(vocabulary))
        self.bos = self.text_of(bos) if bos >= 0 else ""
        eos = int(api.llama_vocab_eos(vocabulary))
        self.eos = self.text_of(eos) if eos >= 0 else ""
        fim = [
            int(ask(vocabulary)) for ask in (api.llama_vocab_fim_pre, api.llama_vocab_fim_suf, api.llama_vocab_fim_mid)
        ]
        self.infill = (fim[0], fim[1], fim[2]) if min(fim) >= 0 else None
        self.opening = bos if bos >= 0 and api.llama_vocab_get_add_bos(vocabulary) else None

    def text_of(self, token: int) -> str:
        """How the vocabulary writes a token."""
        return (api.llama_vocab_get_text(self._vocabulary, token) or b"").decode(errors="replace")

    def metadata(self, key: str, size_max: int = limits.MODEL_TEXT_BYTES_MAX) -> str:
        """A text from the model's metadata, cut to `size_max` bytes, or ""."""
        buffer = ctypes.create_string_buffer(size_max + 1)
        length = api.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))
        return buffer.value.decode(errors="ignore") if length > 0 else ""

    def chat_template(self, name: bytes | None = None) -> str | None:
        """The source of the model's chat template of this name, or of its default one."""
        source = api.llama_model_chat_template(self._model, name)
        return source.decode(errors="replace") if source else None

    def tokenise(self, text: str, *, special: bool) -> list[int]:
        """Tokens of `text`, without an opening token. Texts of control tokens become them only with `special`."""
        return self._tokenise(text, framed=False, special=special)

    def _tokenise(self, text: str, *, framed: bool, special: bool) -> list[int]:
        raw = text.encode()
        room = len(raw) + 8
        while True:
            found = (ctypes.c_int32 * room)()
            count = int(api.llama_tokenize(self._vocabulary, raw, len(raw), found, room, framed, special))
            if count >= 0:
                return found[:count]
            room = -count

    def framed(self, text: str) -> list[int]:
        """The tokens of a text to make a vector of, between those that the model wants around it."""
        return self._tokenise(text, framed=True, special=False)

    def framed_pair(self, query: str, document: str) -> list[int]:
        """The tokens of a document to rank, without a template (as llama.cpp's server puts them)."""
        vocabulary = self._vocabulary
        eos = api.llama_vocab_eos(vocabulary)
        closing = (
            [eos if eos >= 0 else api.llama_vocab_sep(vocabulary)] if api.llama_vocab_get_add_eos(vocabulary) else []
        )
        between = [api.llama_vocab_sep(vocabulary)] if api.llama_vocab_get_add_sep(vocabulary) else []
        opening = [api.llama_vocab_bos(vocabulary)] if api.llama_vocab_get_add_bos(vocabulary) else []
        texts = [self.tokenise(text, special=False) for text in (query, document)]
        return [*opening, *texts[0], *closing, *between, *texts[1], *closing]

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for; none for a control token."""
        known = self._pieces[token]
        if known is None:
            known = self._pieces[token] = self._piece(token, special=False)
        return known

    def spelled(self, token: int) -> bytes:
        """The bytes of a token, a control token's name included."""
        return self._piece(token, special=True)

    def _piece(self, token: int, *, special: bool) -> bytes:
        size = api.llama_token_to_piece(self._vocabulary, token, self._buffer, len(self._buffer), 0, special)
        return self._buffer.raw[: max(0, size)]

    def ends(self, token: int) -> bool:
        """Whether the token ends a generation."""
        return token in self.ending
