"""Whether a GGUF header describes a text model that can be: its numbers within reason, its vocabulary consistent.

llama.cpp trusts many of these and ends its process, or asks for absurd memory, where they do not hold. A refusal here
costs nothing and has a sentence; the jail is for what this lets through.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from haif.artifacts.gguf import Array, Header, Value
from haif.base import limits
from haif.base.errors import Malformed

_STRING: Final = 8
_INTEGERS: Final[Mapping[str, int]] = {
    "block_count": limits.GGUF_LAYERS_MAX, "context_length": limits.GGUF_CONTEXT_MAX,
    "embedding_length": limits.GGUF_WIDTH_MAX, "feed_forward_length": limits.GGUF_WIDTH_MAX,
    "attention.head_count": limits.GGUF_HEADS_MAX, "attention.head_count_kv": limits.GGUF_HEADS_MAX,
    "attention.key_length": limits.GGUF_WIDTH_MAX, "attention.value_length": limits.GGUF_WIDTH_MAX,
    "rope.dimension_count": limits.GGUF_WIDTH_MAX, "vocab_size": limits.VOCABULARY_MAX,
    "expert_count": limits.GGUF_EXPERTS_MAX, "expert_used_count": limits.GGUF_EXPERTS_MAX,
    "attention.sliding_window": limits.GGUF_CONTEXT_MAX,
}  # fmt: skip
_ONE_A_TOKEN: Final = ("tokenizer.ggml.scores", "tokenizer.ggml.token_type")
_REQUIRED: Final = ("block_count", "context_length", "embedding_length")
_MAY_BE_0: Final = frozenset({
    "expert_count", "expert_used_count", "attention.sliding_window", "feed_forward_length",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shape:
    """What a model is, by its header. `parameters` counts the elements of all tensors."""

    architecture: str
    name: str
    parameters: int
    context_trained: int
    vocabulary: int


def shape_of(header: Header) -> Shape:
    """The model's shape. Raises `Malformed` for numbers that no model has."""
    metadata = header.metadata
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or not architecture.isascii() or not architecture.replace("-", "").isalnum():
        _refuse("general.architecture is missing or no name")
    numbers = {key: _integer(metadata, f"{architecture}.{key}", most) for key, most in _INTEGERS.items()}
    for key in _REQUIRED:
        if numbers[key] is None:
            _refuse(f"{architecture}.{key} is missing")
    for key, number in numbers.items():
        if number == 0 and key not in _MAY_BE_0:
            _refuse(f"{architecture}.{key} is 0")
    _check_floats(metadata)
    vocabulary = _vocabulary(metadata)
    template = metadata.get("tokenizer.chat_template", "")
    if not isinstance(template, str):
        _refuse("tokenizer.chat_template is no text")
    if not header.tensors:
        _refuse("it has no tensors")
    name = metadata.get("general.name", "")
    parameters = sum(math.prod(tensor.shape) for tensor in header.tensors.values())
    context = numbers["context_length"] or 0
    text = name[: limits.MODEL_TEXT_BYTES_MAX] if isinstance(name, str) else ""
    return Shape(architecture, text, parameters, context, vocabulary)


def _integer(metadata: Mapping[str, Value], key: str, most: int) -> int | None:
    """The number, or the largest of one number a layer; None if it is not there."""
    found = metadata.get(key)
    several = found.numbers if isinstance(found, Array) else (found,)
    if found is None:
        return None
    if not several or not all(type(each) is int and 0 <= each <= most for each in several):
        _refuse(f"{key} is no number from 0 to {most}")
    return max(int(each) for each in several if each is not None)


def _check_floats(metadata: Mapping[str, Value]) -> None:
    for key, value in metadata.items():
        if isinstance(value, float) and not math.isfinite(value):
            _refuse(f"{key} is no number")


def _vocabulary(metadata: Mapping[str, Value]) -> int:
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(metadata.get("tokenizer.ggml.model"), str) or not isinstance(tokens, Array):
        _refuse("it has no vocabulary")
    if tokens.kind != _STRING or not 1 <= tokens.count <= limits.VOCABULARY_MAX:
        _refuse(f"its vocabulary does not have 1 to {limits.VOCABULARY_MAX} texts")
    for key in _ONE_A_TOKEN:
        other = metadata.get(key)
        if other is not None and (not isinstance(other, Array) or other.count != tokens.count):
            _refuse(f"{key} does not have one number for each of {tokens.count} tokens")
    ids = [key for key in metadata if key.startswith("tokenizer.ggml.") and key.endswith("_token_id")]
    for key in ids:
        found = metadata[key]
        if type(found) is not int or not 0 <= found < tokens.count:
            _refuse(f"{key} names no token")
    return tokens.count


def _refuse(why: str) -> NoReturn:
    raise Malformed(f"not a model that can be served: {why}")
