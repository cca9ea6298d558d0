"""A manifest: what a publisher signs about a model, whose name everywhere is the digest of its bytes.

A digest proves which bytes are stored, a signature who stands for them; neither proves what a worker executes.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from haif.base.adapters import Adapted
from haif.base.clock import WallTime
from haif.base.codec import Message
from haif.base.errors import BadSignature, Expired, Misuse
from haif.base.ids import Digest, ModelDigest, PeerId
from haif.identity.keys import Identity
from haif.identity.signing import Domain, Verified, open_sealed, seal

NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class Manifest(Message, frozen=True):
    """The publisher's statement about one GGUF file. Times in ms since the epoch.

    `model` (BLAKE3) names it in HAIF; `sha256` is how the rest of the world knows it; `size` in bytes. Where the file
    is an adapter, `base` is the model it belongs to, and both together are a model of their own (`base.adapters`).
    """

    name: str
    model: ModelDigest
    sha256: Digest
    size: int
    license: str
    published: int
    expires: int
    base: ModelDigest | None = None

    @property
    def adapted(self) -> Adapted | None:
        """The two files, where it takes two."""
        return None if self.base is None else Adapted(self.base, Digest(self.model))

    @property
    def served(self) -> ModelDigest:
        """What is asked for and answered under this name."""
        return self.adapted.model if self.adapted else self.model


def check_name(name: str) -> str:
    """The name, if a model may have it. Raises `Misuse`."""
    if not NAME.fullmatch(name):
        raise Misuse(f"{name!r} cannot name a model: use 1 to 64 of a-z 0-9 . _ - and begin with a letter or digit")
    return name


def publish(identity: Identity, manifest: Manifest) -> bytes:
    """The sealed manifest."""
    check_name(manifest.name)
    return seal(identity, Domain.MANIFEST, manifest)


def open_manifest(evidence: bytes, *, publishers: Collection[PeerId], now: WallTime) -> Verified[Manifest]:
    """A manifest that a trusted publisher signed and that has not expired.

    Raises `Malformed`, `Oversize`, `BadSignature` (also for a publisher who is not trusted) or `Expired`.
    """
    verified = open_sealed(Manifest, Domain.MANIFEST, evidence)
    if verified.signer not in publishers:
        raise BadSignature(f"the manifest is signed by {verified.signer}, who is not a trusted publisher here")
    if verified.payload.expires <= now:
        raise Expired(f"the manifest of {verified.payload.name} has expired; ask its publisher for a new one")
    return verified
