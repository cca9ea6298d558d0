"""Datagrams of a closed network: sealed whole, so that whoever lacks the network's key reads nothing and is not heard.

    sealed = AES-SIV (RFC 5297) of the datagram under a key derived from the network's; 16 bytes longer

SIV needs no nonce that many senders under one key would have to keep apart: equal datagrams look equal, and that is all
it gives away; queries differ in their random tid, and replies in the query they are for. A sealed datagram says nothing
about who sealed it: replies and records are signed inside. The key outlives the membership of whoever was given it;
what a revoked member can do with it is listen, and ask.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from haif.base.errors import Unauthenticated
from haif.base.hashing import digest
from haif.base.ids import NetKey

OVERHEAD_BYTES: Final = 16


class Envelope:
    """Seals and opens the datagrams of one network."""

    def __init__(self, key: NetKey) -> None:
        self._cipher = AESSIV(digest("haif v1 datagram mac key", key) + digest("haif v1 datagram cipher key", key))

    def seal(self, datagram: bytes) -> bytes:
        """What leaves."""
        return self._cipher.encrypt(datagram, None)

    def open(self, sealed: bytes) -> bytes:
        """What a member sealed. Raises `Unauthenticated` for everything else."""
        try:
            return self._cipher.decrypt(sealed, None)
        except (InvalidTag, ValueError):
            raise Unauthenticated("a datagram that no member of this network sealed") from None
