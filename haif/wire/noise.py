"""Noise XX and IK (Noise specification, revision 34) for the handshake, and our own transport after it.

The package `noiseprotocol` runs the handshake; this adapter makes it safe to use against strangers. What it closes,
numbered as in its tests: the two protocol names are constants of bytes, so pattern names, pre-shared keys and fallback
modifiers never come in (1, 7, 8, 9, 10); lengths are checked on both sides of each message (2, 6); the remote static
key is kept (3); every failure is a `PeerFault` and the first one ends the handshake for good (4, 5); any bytes-like
message is taken (11); the library's objects, static key included, are let go with the last message (12). Transport
messages never pass the library: `Sealer` and `Opener` own their nonces, limits and rekeying (2, 13).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from noise.backends.default.keypairs import KeyPair25519
from noise.connection import Keypair, NoiseConnection
from noise.exceptions import NoiseValueError

from haif.base import limits
from haif.base.clock import Instant
from haif.base.errors import BadSignature, Malformed, Misuse, Oversize, WrongState
from haif.base.ids import Digest, NoisePublicKey
from haif.identity.keys import NoiseKey
from haif.wire.primitives import BACKEND, static_pair


class Pattern(IntEnum):
    """Which handshake: XX for first contact, IK where the responder's static key is known. The value travels."""

    XX = 0
    IK = 1


PROTOCOLS: Final = {
    Pattern.XX: b"Noise_XX_25519_ChaChaPoly_BLAKE2s",
    Pattern.IK: b"Noise_IK_25519_ChaChaPoly_BLAKE2s",
}
KEY_BYTES: Final = 32
TAG_BYTES: Final = 16
# Everything in a handshake message that is not payload: ephemeral key, encrypted static key, the payload's tag.
HANDSHAKE_MESSAGE_BYTES_MAX: Final = 3 * KEY_BYTES + 2 * TAG_BYTES + limits.HANDSHAKE_PAYLOAD_BYTES_MAX

_nonce = struct.Struct("<4xQ").pack  # Noise specification, section 12.3
_REKEY_NONCE: Final = _nonce(2**64 - 1)


@dataclass(frozen=True, slots=True)
class Split:
    """What a finished handshake leaves: two keys (never shown) and the channel's name."""

    sending: bytes = field(repr=False)
    receiving: bytes = field(repr=False)
    hash: Digest


class NoiseHandshake:
    """One side of a handshake: XX has three messages, IK two; the initiator writes the first.

    `remote` is the responder's static key, which the initiator of IK knows beforehand. `entropy(32)` makes the
    ephemeral key. After any failure, and after the last message, it refuses to do more.
    """

    def __init__(
        self,
        pattern: Pattern,
        *,
        initiator: bool,
        static: NoiseKey,
        prologue: bytes,
        entropy: Callable[[int], bytes],
        remote: NoisePublicKey | None = None,
    ) -> None:
        assert (remote is not None) == (pattern is Pattern.IK and initiator), (
            "only IK's initiator knows the other's key"
        )
        connection: Any = NoiseConnection.from_name(PROTOCOLS[pattern], BACKEND)
        connection.set_as_initiator() if initiator else connection.set_as_responder()
        connection.set_prologue(prologue)
        connection.noise_protocol.keypairs["s"] = static_pair(static)
        if remote is not None:
            connection.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, remote)
        connection.start_handshake()
        # The library forgets this object with the last message, and with it the remote static key.
        self._state: Any = connection.noise_protocol.handshake_state
        self._state.e = KeyPair25519.from_private_bytes(entropy(KEY_BYTES))
        self._connection: Any = connection
        self._writing = initiator
        self._over = "was refused earlier"
        self._remote = remote
        self.split: Split | None = None

    @property
    def remote(self) -> NoisePublicKey:
        """The other side's static key, once a message has carried it."""
        assert self._remote is not None, "the remote static key has not come yet"
        return self._remote

    def write(self, payload: bytes = b"") -> bytes:
        """Our next message. Raises `Misuse` out of turn or for a payload over the limit."""
        connection = self._turn(writing=True)
        if len(payload) > limits.HANDSHAKE_PAYLOAD_BYTES_MAX:
            raise Misuse(f"a handshake payload of {len(payload)} bytes is over our own limit")
        return bytes(self._step(connection.write_message, payload))

    def read(self, message: bytes | bytearray | memoryview) -> bytes:
        """The payload of their next message. Raises `Oversize`, `Malformed` or `BadSignature`, and is then dead."""
        connection = self._turn(writing=False)
        if len(message) > HANDSHAKE_MESSAGE_BYTES_MAX:
            self._forget()
            raise Oversize(f"a handshake message of {len(message)} bytes is over {HANDSHAKE_MESSAGE_BYTES_MAX}")
        return bytes(self._step(connection.read_message, bytes(message)))

    def _turn(self, *, writing: bool) -> Any:
        if self._connection is None:
            raise Misuse(f"this handshake {self._over}; begin a new one")
        if writing != self._writing:
            raise Misuse("it is the other side's turn in the handshake")
        return self._connection

    def _step(self, act: Callable[[bytes], bytearray], argument: bytes) -> bytearray:
        """Do one message; whatever goes wrong comes out as one of ours and ends the handshake."""
        try:
            result = act(argument)
        except InvalidTag:
            self._forget()
            raise BadSignature("a handshake message is not authentic: altered, or from another network") from None
        except (NoiseValueError, ValueError):  # a short message, or a public key that leads to no shared secret
            self._forget()
            raise Malformed("a handshake message is too short or holds an invalid public key") from None
        self._writing = not self._writing
        if isinstance(self._state.rs, KeyPair25519):
            self._remote = NoisePublicKey(self._state.rs.public_bytes)
        if self._connection.handshake_finished:
            self._finish()
        return result

    def _finish(self) -> None:
        protocol = self._connection.noise_protocol
        self.split = Split(
            sending=protocol.cipher_state_encrypt.k,
            receiving=protocol.cipher_state_decrypt.k,
            hash=Digest(protocol.handshake_hash),
        )
        self._over = "is finished"
        self._forget()

    def _forget(self) -> None:
        """Let go of the library's objects, which refer to one another, and of the keys in them, at once."""
        self._connection._next_fn = None  # noqa: SLF001  # a method of its own
        self._state.noise_protocol = self._state.symmetric_state = None
        self._connection = self._state = None


def rekeyed(key: bytes) -> bytes:
    """REKEY(k) of the Noise specification, section 4.2: 32 zero bytes sealed under the last nonce, without the tag."""
    return ChaCha20Poly1305(key).encrypt(_REKEY_NONCE, bytes(KEY_BYTES), None)[:KEY_BYTES]


class _Direction:
    """The key of one direction, the number of the next message, and how much the key was used."""

    __slots__ = ("_aead", "_key", "bytes_used", "messages_used", "nonce")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._aead = ChaCha20Poly1305(key)
        self.nonce = 0  # goes on counting through a rekey, so no pair of key and nonce can come again
        self.messages_used = 0
        self.bytes_used = 0

    def rekey(self) -> None:
        """Forget the key for the next one, so that what was sent before cannot be read with what is held now."""
        self._key = rekeyed(self._key)
        self._aead = ChaCha20Poly1305(self._key)
        self.messages_used = 0
        self.bytes_used = 0


class Sealer(_Direction):
    """Encrypts what we send."""

    __slots__ = ("_since",)

    def __init__(self, key: bytes, now: Instant) -> None:
        super().__init__(key)
        self._since = now

    def seal(self, plaintext: bytes) -> bytes:
        """The next transport message. Raises `Misuse` for more than `limits.NOISE_PLAINTEXT_BYTES_MAX`."""
        if len(plaintext) > limits.NOISE_PLAINTEXT_BYTES_MAX:
            raise Misuse(f"a plaintext of {len(plaintext)} bytes does not fit into a Noise message")
        sealed = self._aead.encrypt(_nonce(self.nonce), plaintext, None)
        self.nonce += 1
        self.messages_used += 1
        self.bytes_used += len(plaintext)
        return sealed

    def due(self, now: Instant) -> bool:
        """Whether the key has served long enough and the next message should be its last."""
        return (
            self.messages_used + 1 >= limits.REKEY_MESSAGES
            or self.bytes_used >= limits.REKEY_BYTES
            or now - self._since >= limits.REKEY_SECONDS
        )

    def rekey_at(self, now: Instant) -> None:
        """`rekey`, and count the time from now."""
        self.rekey()
        self._since = now


class Opener(_Direction):
    """Decrypts what we receive."""

    __slots__ = ()

    def open(self, message: bytes | memoryview) -> bytes:
        """The plaintext of the next transport message.

        Raises `Malformed` (too short), `BadSignature` (altered, replayed or out of order: the nonce stays) or
        `WrongState` (the sender overuses its key).
        """
        if len(message) < TAG_BYTES:
            raise Malformed("a transport message is shorter than its tag")
        if self.messages_used >= 2 * limits.REKEY_MESSAGES or self.bytes_used >= 2 * limits.REKEY_BYTES:
            raise WrongState("the peer has used one key for too long without a rekey")
        try:
            plaintext = self._aead.decrypt(_nonce(self.nonce), message, None)
        except InvalidTag:
            raise BadSignature("a transport message is not authentic: altered, replayed or out of order") from None
        self.nonce += 1
        self.messages_used += 1
        self.bytes_used += len(plaintext)
        return plaintext
