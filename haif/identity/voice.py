"""A peer's voice and ear for live messages: everything said is numbered, timed and signed; nothing is heard twice."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, TypeVar

from haif.base import limits
from haif.base.clock import Clock, WallTime
from haif.base.codec import Message
from haif.base.errors import Malformed
from haif.base.ids import BootId, Digest, NetId, Nonce, PeerId
from haif.identity.keys import Identity
from haif.identity.replay import ReplayGuard
from haif.identity.signing import Header, Live, open_live, sign_live

T = TypeVar("T", bound=Message)


class Voice:
    """Signs what we say and checks what we are told, in one network.

    `entropy(n)` returns n random bytes. One per process: the sequence is the process's own. `remembered` is what the
    last process said at its very end (`remember`): with it boot id and sequence go on, so that even a clock set back
    meanwhile makes nobody refuse us, and nothing heard then is heard again. Raises `Malformed` if it is not that.
    """

    def __init__(
        self,
        identity: Identity,
        net: NetId,
        clock: Clock,
        entropy: Callable[[int], bytes],
        remembered: bytes | None = None,
    ) -> None:
        self._identity = identity
        self._net = net
        self._clock = clock
        self._entropy = entropy
        if remembered is None:
            self._boot, self._sequence = BootId(entropy(BootId.size)), 0
            self._guard = ReplayGuard(floor=clock.wall())
        else:
            self._boot, self._sequence, self._guard = _recall(remembered)

    @property
    def net(self) -> NetId:
        """The network it speaks in."""
        return self._net

    def remember(self) -> bytes:
        """What the next process needs to know, to be stored when nothing is said or heard any more.

        It serves once: whoever loads it deletes it first, so that after a crash nothing stale is believed.
        """
        return _STATE.pack(self._boot, self._sequence) + self._guard.export()

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


_STATE: Final = struct.Struct(">8sQ")


def _recall(remembered: bytes) -> tuple[BootId, int, ReplayGuard]:
    if len(remembered) < _STATE.size:
        raise Malformed("the memory of what was said is cut")
    boot, sequence = _STATE.unpack_from(remembered)
    return BootId(boot), sequence, ReplayGuard.restored(remembered[_STATE.size :])
