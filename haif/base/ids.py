"""Identifiers of fixed size, each a type of its own, so that two kinds cannot be mistaken for one another."""

from __future__ import annotations

import re
from typing import ClassVar, Self


class FixedBytes(bytes):
    """A byte string of exactly `size` bytes, shown as lower-case hex.

    Raises `ValueError` for any other length. Instances are plain `bytes` to every library.
    """

    size: ClassVar[int] = 0

    def __new__(cls, raw: bytes) -> Self:
        """From the raw bytes."""
        if len(raw) != cls.size:
            raise ValueError(f"{cls.__name__} takes {cls.size} bytes, got {len(raw)}")
        return super().__new__(cls, raw)

    @classmethod
    def parse(cls, text: str) -> Self:
        """From its hex text. Raises `ValueError` with a sentence a person can act on."""
        try:
            return cls(bytes.fromhex(text.strip()))
        except ValueError:
            what = re.sub("(?<!^)(?=[A-Z])", " ", cls.__name__).lower()  # PeerId: peer id
            raise ValueError(f"{text!r} is not a {what}: it must be {2 * cls.size} hex digits") from None

    @property
    def short(self) -> str:
        """The first eight hex digits, for people and logs. Never compared."""
        return self[:4].hex()

    def __str__(self) -> str:
        return self.hex()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.short}…)"


class PeerId(FixedBytes):
    """A peer is its Ed25519 public key (RFC 8032)."""

    size = 32


class NetId(FixedBytes):
    """The network a message belongs to."""

    size = 32


class NetKey(FixedBytes):
    """The secret that the members of a closed network seal their datagrams with. Never shown."""

    size = 32

    def __str__(self) -> str:
        return "(secret)"

    def __repr__(self) -> str:
        return "NetKey(…)"


class NoisePublicKey(FixedBytes):
    """An X25519 public key (RFC 7748): the static key of a Noise handshake."""

    size = 32


class ModelDigest(FixedBytes):
    """BLAKE3-256 of a model file's bytes, or of a model with its adapter (`base.adapters`): its name everywhere."""

    size = 32


class Digest(FixedBytes):
    """BLAKE3-256 of anything else."""

    size = 32


class JobId(FixedBytes):
    """A job, and with it the correlation id of everything done for it."""

    size = 16


class Seed(FixedBytes):
    """The 32 bytes that, with the position, determine every sampled token of a job."""

    size = 32


class Nonce(FixedBytes):
    """A value used once."""

    size = 16


class BootId(FixedBytes):
    """Drawn once per start of a process, so that sequence numbers may begin again."""

    size = 8
