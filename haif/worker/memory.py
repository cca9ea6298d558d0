"""What a model will take of this machine's memory, told from its file's header before anything is loaded.

    file      all of it: the weights are mapped, and read in use
    cache     keys and values (f16) of every position of every slot, contexts padded as llama.cpp pads them
    buffers   the widest layers of one batch, its attention scores, the logits of its rows, and the child itself

An estimate, on the safe side of what was measured (docs/decisions/0020-models-of-a-worker.md). What a child really
takes is measured once it runs, and counts from then on if it is more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from haif.artifacts.gguf import Array, Value
from haif.base import limits

_PAD: Final = 256  # tokens to a multiple of which llama.cpp rounds a context up
_ROWS_PER_SLOT: Final = 16  # logits kept for each slot, for the self-test
_WIDE: Final = 6  # values of the widest layer that are alive at once


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes one loaded model takes, and the context its slots will have."""

    file: int
    cache: int
    buffers: int
    context_tokens: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.file + self.cache + self.buffers


def needs(header: Mapping[str, Value], size: int, *, slots: int, context_tokens: int, kv_tokens: int = 0) -> Needs:
    """What a model file of `size` bytes with this header needs.

    `context_tokens` 0: as trained, within the default. `kv_tokens` that all slots share, 0: a whole context for each.
    What a header leaves out is taken for what the format says it then is, or for nothing.
    """
    family = str(header.get("general.architecture", ""))

    def told(key: str, otherwise: int = 0) -> int:
        value = header.get(f"{family}.{key}", otherwise)
        return max(0, int(value)) if isinstance(value, int | float) else otherwise

    context = context_tokens or min(told("context_length"), limits.ENGINE_CONTEXT_TOKENS_DEFAULT)
    cells = -(-kv_tokens // _PAD) * _PAD if kv_tokens else slots * -(-context // _PAD) * _PAD
    width, heads = told("embedding_length"), max(1, told("attention.head_count", 1))
    sharing = told("attention.head_count_kv", heads)
    key, value = told("attention.key_length", width // heads), told("attention.value_length", width // heads)
    cache = 2 * cells * told("block_count") * sharing * (key + value)
    vocabulary = told("vocab_size", _number(header.get("tokenizer.ggml.tokens", 0)))
    batch = slots + limits.PREFILL_CHUNK_TOKENS
    widest = max(width, told("feed_forward_length"))
    values = batch * (_WIDE * widest + heads * context) + slots * _ROWS_PER_SLOT * vocabulary
    return Needs(size, cache, limits.ENGINE_BYTES_BASE + 4 * values, context)


def _number(value: Value) -> int:
    return value.count if isinstance(value, Array) else int(value) if isinstance(value, int | float) else 0
