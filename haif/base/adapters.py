"""A model with a LoRA adapter on it (Hu et al. 2021): a model of its own to whoever asks, named by the digests of both.

The adapter counts in full: its own `alpha` is all that scales it.
"""

from __future__ import annotations

from haif.base.codec import Message
from haif.base.hashing import digest
from haif.base.ids import Digest, ModelDigest


class Adapted(Message, frozen=True):
    """The base model's file and the adapter's, each by BLAKE3."""

    base: ModelDigest
    adapter: Digest

    @property
    def model(self) -> ModelDigest:
        """What both together are called, wherever a model is named."""
        return ModelDigest(digest("haif v1 adapted model", self.base, self.adapter))
