"""What computes, as the core sees it: llama.cpp behind `engine/llama`, or something that counts in a test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from haif.base.ids import Digest
from haif.engine.cache import Memory
from haif.engine.passes import Span
from haif.engine.sampler import Rules

Rows = npt.NDArray[np.float32]


class Model(Memory, Protocol):
    """What the core needs of a model."""

    @property
    def size(self) -> int:
        """How many tokens the vocabulary has."""

    @property
    def apart(self) -> bool:
        """Whether a batch of sequences costs each of them what the longest costs, so that prompts go by themselves."""

    def decode(self, spans: Sequence[Span], adapter: Digest | None = None) -> Rows:
        """Compute one batch with an adapter on the model, or none; the logits that are due, one row each, in order.

        Valid until the next call.
        """

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for; none for a control token."""

    def ends(self, token: int) -> bool:
        """Whether the token ends a generation."""

    def grammar(self, schema: str) -> Rules:
        """What an answer that fits a JSON schema may say. Raises `InvalidRequest`."""

    def rules(self, lark: str, param: str, scope: bytes) -> Rules:
        """What an answer may say by a grammar that `param` made necessary. Raises `InvalidRequest`."""
