"""What a worker offers, and where a peer is reached: the bodies of DHT records."""

from __future__ import annotations

from collections.abc import Iterable

from haif.base import codec
from haif.base.adapters import Adapted
from haif.base.codec import Message
from haif.base.errors import ConnectionLost
from haif.base.ids import ModelDigest, PeerId
from haif.identity.signing import Verified
from haif.protocol.reach import Place
from haif.protocol.records import Record
from haif.protocol.sandbox import Sandbox


class Offer(Message, frozen=True):
    """A worker's standing offer to run one model. Signed by the worker as the record that carries it."""

    model: ModelDigest
    place: Place
    context_tokens: int
    slots: int
    sandbox: Sandbox  # what confines its engine, as the worker says
    engine: str  # build and execution profile, as the engine reports it
    certificate: bytes  # of the worker's static key (`identity.certificate`), for a first handshake in one round trip
    verifiable: bool = True  # whether recomputing could show what it ran (`base.execution`)
    tasks: int = 3  # what the model can do there (`base.tasks`): chat and completion, unless it says otherwise
    dimensions: int = 0  # of its vectors
    adapted: Adapted | None = None  # the two files, where the model is one with an adapter on it


class Presence(Message, frozen=True):
    """Where a peer is reached, as what ("orchestrator", "worker", "relay", …), and its key's certificate."""

    role: str
    place: Place
    certificate: bytes


def whereabouts(records: Iterable[Verified[Record]], peer: PeerId) -> tuple[Place, bytes]:
    """Where a peer's own record at its presence topic puts it, and its key's certificate.

    Raises `ConnectionLost` or `Malformed`.
    """
    for record in records:
        if record.signer == peer:
            presence = codec.decode(Presence, record.payload.body)
            return presence.place, presence.certificate
    raise ConnectionLost(f"{peer.short}… has not announced itself in the DHT")
