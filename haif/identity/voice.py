"""A peer's voice and ear for live messages: everything said is numbered, timed and signed; nothing is heard twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from haif.base import limits
from haif.base.clock import Clock, WallTime
from haif.base.codec import Message
from haif.base.ids import BootId, Digest, NetId, Nonce, PeerId
from haif.identity.keys import Identity
from haif.identity.replay import ReplayGuard
from haif.identity.signing import Header, Live, open_live, sign_live

T = TypeVar("T", bound=Message)


class Voice:
    """Signs what we say and checks what we are told, in one network.

    `entropy(n)` returns n random bytes. One per process: the sequence is the process's own.
    """

    def __init__(self, identity: Identity, net: NetId, clock: Clock, entropy: Callable[[int], bytes]) -> None:
        self._identity = identity
        self._net = net
        self._clock = clock
        self._entropy = entropy
        self._boot = BootId(entropy(BootId.size))
        self._sequence = 0
        self._guard = ReplayGuard()

    @property
    def net(self) -> NetId:
        """The network it speaks in."""
        return self._net

    def say(self, receiver: PeerId, scope: Digest, kind: int, body: Message) -> tuple[bytes, Nonce]:
        """A signed live message of type `kind`, and its nonce. `scope` is the session's handshake hash."""
        self._sequence += 1
        sent = self._clock.wall()
        header = Header(
            net=self._net, scope=scope, sender=self._identity.peer, receiver=receiver, boot=self._boot,
            sequence=self._sequence, sent=sent, expires=WallTime(sent + limits.LIVE_MESSAGE_TTL_MS),
            nonce=Nonce(self._entropy(Nonce.size)), kind=kind,
        )  # fmt: skip
        return sign_live(self._identity, header, body), header.nonce

    def hear(self, message: type[T], kind: int, data: bytes, scope: Digest) -> Live[T]:
        """What a signed live message says to us, the first time. Raises the faults of `open_live`, and `Replayed`."""
        live = open_live(
            message, kind, data, net=self._net, scope=scope, receiver=self._identity.peer, now=self._clock.wall()
        )
        self._guard.accept(live.header)
        return live
