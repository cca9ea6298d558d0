"""Whatever peers of a simulation sign with, nobody signs for another: the keyed hash refuses what Ed25519 refuses."""

import pytest

from haif.base.errors import BadSignature
from haif.testing.signatures import Ed25519, KeyedHashes, Signatures

SEEDS = bytes([1]) * 32, bytes([2]) * 32
SCHEMES = pytest.mark.parametrize("signatures", [Ed25519(), KeyedHashes()], ids=["ed25519", "keyed-hashes"])


@SCHEMES
def test_what_a_peer_signed_verifies_as_its_own(signatures: Signatures) -> None:
    alice, again = signatures.identity(SEEDS[0]), signatures.identity(SEEDS[0])
    assert again.peer == alice.peer
    assert len(alice.sign(b"hello")) == 64
    signatures.verify(alice.peer, b"hello", alice.sign(b"hello"))


@SCHEMES
def test_no_peer_signs_for_another_and_no_bit_may_change(signatures: Signatures) -> None:
    alice, mallory = (signatures.identity(seed) for seed in SEEDS)
    assert alice.peer != mallory.peer
    good = alice.sign(b"hello")
    for peer, data, signature in (
        (alice.peer, b"hello", mallory.sign(b"hello")),
        (mallory.peer, b"hello", good),
        (alice.peer, b"hellO", good),
        (alice.peer, b"hello", good[:-1] + bytes([good[-1] ^ 1])),
        (alice.peer, b"hello", good[:-1]),
        (alice.peer, b"hello", b""),
        (alice.peer, b"hello", bytes(64)),
    ):
        with pytest.raises(BadSignature):
            signatures.verify(peer, data, signature)


def test_a_peer_that_was_never_made_has_signed_nothing() -> None:
    stranger = KeyedHashes().identity(SEEDS[0])
    with pytest.raises(BadSignature):
        KeyedHashes().verify(stranger.peer, b"hello", stranger.sign(b"hello"))
