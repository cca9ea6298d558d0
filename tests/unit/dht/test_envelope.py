"""Sealed datagrams: whole or not at all, and only for those who have the network's key."""

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from hypothesis import given
from hypothesis import strategies as st

from haif.base import limits
from haif.base.errors import Reason, Unauthenticated
from haif.base.ids import NetKey
from haif.dht import messages
from haif.dht.envelope import OVERHEAD_BYTES, Envelope

ENVELOPE = Envelope(NetKey(b"k" * 32))


def test_the_cipher_is_that_of_rfc_5297() -> None:
    """Appendix A.1: one associated string, deterministic."""
    key = bytes.fromhex("fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    associated = bytes.fromhex("101112131415161718191a1b1c1d1e1f2021222324252627")
    sealed = AESSIV(key).encrypt(bytes.fromhex("112233445566778899aabbccddee"), [associated])
    assert sealed.hex() == "85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c"


def test_a_sealed_datagram_has_these_bytes() -> None:
    assert ENVELOPE.seal(b"\xa1\x00hello").hex() == "7f56c5b73afd5ea2f815871c27de97771fa2d9cdd1fbac"


@given(st.binary(min_size=1, max_size=messages.BYTES_MAX))
def test_what_a_member_sealed_opens_and_is_16_bytes_longer_and_within_the_limit(data: bytes) -> None:
    sealed = ENVELOPE.seal(data)
    assert ENVELOPE.open(sealed) == data
    assert len(sealed) == len(data) + OVERHEAD_BYTES <= limits.DATAGRAM_BYTES_MAX


def test_no_bit_of_it_can_change_and_another_network_cannot_open_it() -> None:
    sealed = ENVELOPE.seal(b"hello")
    for bit in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Unauthenticated):
            ENVELOPE.open(bytes(changed))
    with pytest.raises(Unauthenticated) as caught:
        Envelope(NetKey(b"o" * 32)).open(sealed)
    assert caught.value.reason is Reason.UNAUTHENTICATED


@given(st.binary(max_size=1300))
def test_arbitrary_bytes_are_a_strangers(data: bytes) -> None:
    with pytest.raises(Unauthenticated):
        ENVELOPE.open(data)
