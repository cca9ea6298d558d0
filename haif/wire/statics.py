"""Our static keys: the one we show, and the one before it, to which we answer while anybody may still know it.

    0               a key is made, certified for `limits.CERTIFICATE_TTL_MS`, and shown wherever we announce ourselves
    half of that    the next key takes its place; who dials with the old one (Noise IK) is answered under the old one
    all of that     the old certificate is over: nobody dials with it any more, and its key is forgotten

So what was recorded of handshakes older than that stays closed to whoever takes the keys of a running node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.ids import NetId
from haif.identity.certificate import certify
from haif.identity.keys import SEED_BYTES, Identity, NoiseKey

_KEPT_MAX: Final = 2  # so many live at once unless the clock jumps


@dataclass(frozen=True, slots=True)
class Static:
    """A static key of ours, its certificate, and when they were made."""

    key: NoiseKey
    certificate: bytes
    made: WallTime


class Statics:
    """The first key is given, those that follow come of `entropy`."""

    def __init__(self, identity: Identity, net: NetId, first: NoiseKey, entropy: Callable[[int], bytes]) -> None:
        self._identity = identity
        self._net = net
        self._first: NoiseKey | None = first
        self._entropy = entropy
        self._kept: tuple[Static, ...] = ()

    def at(self, wall: WallTime) -> tuple[Static, ...]:
        """The key to show now, and behind it the one before if its certificate holds.

        A clock that was set back finds a certificate of the future, which nobody would take: a new key is made.
        """
        kept = tuple(each for each in self._kept if wall - each.made < limits.CERTIFICATE_TTL_MS)
        if not kept or not -limits.CLOCK_SKEW_MS <= wall - kept[0].made <= limits.CERTIFICATE_TTL_MS // 2:
            key, self._first = self._first or NoiseKey(self._entropy(SEED_BYTES)), None
            kept = (Static(key, certify(self._identity, self._net, key.public, wall), wall), *kept)[:_KEPT_MAX]
        self._kept = kept
        return kept
