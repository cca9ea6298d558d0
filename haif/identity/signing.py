r"""Two kinds of signature, and the one place where `Signed` becomes `Verified`.

*Portable evidence* (receipts, manifests, reservations, certificates) is COSE_Sign1 (RFC 9052 §4.2) with EdDSA over
deterministic CBOR, so that any COSE library can check it. The protected header names algorithm (1: -8), what the
payload is (3: content type, our domain) and who signed (4: key id, the peer). The unprotected header is empty, and the
whole must be the deterministic encoding: no bit of it can change unnoticed.

*Live messages* (RPC bodies that must be provable, heartbeats) are signed bare:

    header (178 bytes) ‖ signature (64) ‖ body
    header    = network 32 ‖ scope 32 ‖ sender 32 ‖ receiver 32 ‖ boot id 8 ‖ sequence u64
                ‖ sent ms u64 ‖ expires ms u64 ‖ nonce 16 ‖ type u16                                      (big-endian)
    signature = Ed25519("haif/msg/v1\0" ‖ header ‖ BLAKE3 of body)

Both verify the bytes received before anything in them is parsed; a signature says what it is for, whom it is for and
until when.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Final, Generic, NoReturn, TypeVar

from haif.base import codec, limits
from haif.base.clock import WallTime
from haif.base.codec import Message
from haif.base.errors import BadSignature, Expired, Malformed, Oversize, WrongState
from haif.base.hashing import digest
from haif.base.ids import BootId, Digest, NetId, Nonce, PeerId
from haif.identity import keys
from haif.identity.keys import SIGNATURE_BYTES, Identity

T = TypeVar("T", bound=Message)


class Domain(StrEnum):
    """What a piece of evidence is. The value travels in the protected header as its content type."""

    STATIC_KEY = "application/haif-static-key-v1+cbor"
    ADMISSION = "application/haif-admission-v1+cbor"
    DELEGATION = "application/haif-delegation-v1+cbor"
    REVOCATIONS = "application/haif-revocations-v1+cbor"
    MANIFEST = "application/haif-manifest-v1+cbor"
    RESERVATION = "application/haif-reservation-v1+cbor"
    RECEIPT = "application/haif-receipt-v1+cbor"
    COUNTERSIGNATURE = "application/haif-countersignature-v1+cbor"
    VERDICT = "application/haif-verdict-v1+cbor"
    RULING = "application/haif-ruling-v1+cbor"
    SIGHTING = "application/haif-sighting-v1+cbor"
    VOUCHER = "application/haif-relay-voucher-v1+cbor"


@dataclass(frozen=True, slots=True)
class Verified(Generic[T]):
    """A payload whose signature was checked, with who signed it and the bytes that prove it."""

    payload: T
    signer: PeerId
    evidence: bytes

    @property
    def digest(self) -> Digest:
        """The name of this piece of evidence."""
        return evidence_digest(self.evidence)


def evidence_digest(evidence: bytes) -> Digest:
    """BLAKE3 over the signed bytes: how one piece of evidence refers to another."""
    return digest("haif v1 evidence", evidence)


# --- portable evidence ------------------------------------------------------------------------------------------------

_COSE_SIGN1_TAG: Final = b"\xd2"  # tag 18, RFC 9052 §4.2
_ALGORITHM, _CONTENT_TYPE, _KEY_ID, _EDDSA = 1, 3, 4, -8
_SEALED: Final = _COSE_SIGN1_TAG + b"\x84"  # an array of protected header, unprotected header, payload, signature
_NO_HEADER: Final = b"\xa0"
_SIGNATURE: Final = b"\x58\x40"
_SIG_STRUCTURE: Final = b"\x84\x6aSignature1"  # RFC 9052 §4.4, up to the protected header


def seal(identity: Identity, domain: Domain, payload: Message) -> bytes:
    """The payload as COSE_Sign1, signed by `identity`."""
    protected = _protected(domain) + identity.peer
    body = codec.encode_evidence(payload)
    signature = identity.sign(_to_be_signed(protected, body))
    return b"".join((_SEALED, _text(protected), _NO_HEADER, _text(body), _text(signature)))


def open_sealed(kind: type[T], domain: Domain, evidence: bytes, signer: PeerId | None = None) -> Verified[T]:
    """What a piece of evidence says, once its signature holds.

    The signature is checked before the payload is parsed. `signer`, when given, is who must have signed.
    Times inside the payload are the caller's to check. Raises `Malformed`, `Oversize` or `BadSignature`.
    """
    if len(evidence) > limits.EVIDENCE_BYTES_MAX:
        raise Oversize(f"evidence of {len(evidence)} bytes is over the limit of {limits.EVIDENCE_BYTES_MAX}", signer)
    claimed, protected, body, signature = _parts(domain, evidence) or _parts_told(domain, evidence, signer)
    if signer is not None and claimed != signer:
        raise BadSignature(f"signed by {claimed.short}…, wanted {signer.short}…", claimed)
    keys.verify(claimed, _to_be_signed(protected, body), signature)
    return Verified(codec.decode_evidence(kind, body), claimed, evidence)


_Parts = tuple[PeerId, bytes, bytes, bytes]
"""Of a piece of evidence: who says to have signed it, protected header, payload, signature."""


def _parts(domain: Domain, evidence: bytes) -> _Parts | None:
    """The parts of what `seal` makes for this domain; there is one byte string for each, and for others None."""
    header = _protected(domain)
    size = len(header) + PeerId.size
    opening = _SEALED + _text(bytes(size))[:-size] + header
    body_at = len(opening) + PeerId.size + len(_NO_HEADER)
    signature_at = len(evidence) - SIGNATURE_BYTES
    if not evidence.startswith(opening) or signature_at < body_at:
        return None
    for head in (3, 2, 1):  # bytes that say how long the payload is: below 64 KiB, as evidence is
        body = evidence[body_at + head : signature_at - len(_SIGNATURE)]
        if evidence[body_at - len(_NO_HEADER) : signature_at] == b"".join((_NO_HEADER, _text(body), _SIGNATURE)):
            claimed = PeerId(evidence[len(opening) : len(opening) + PeerId.size])
            return claimed, header + claimed, body, evidence[signature_at:]
    return None


def _parts_told(domain: Domain, evidence: bytes, signer: PeerId | None) -> _Parts:
    """The same the long way, for whatever is COSE; it says what is wrong. Raises as `open_sealed`."""
    if not evidence.startswith(_COSE_SIGN1_TAG):
        raise Malformed("not a COSE_Sign1 (tag 18)", signer)
    outer = codec.decode_cbor(evidence[1:])
    match outer:
        case [bytes() as protected, dict() as unprotected, bytes() as body, bytes() as signature] if not unprotected:
            pass
        case _:
            raise Malformed("not a COSE_Sign1 with an empty unprotected header", signer)
    header = codec.decode_cbor(protected)
    if not isinstance(header, dict) or list(header) != [_ALGORITHM, _CONTENT_TYPE, _KEY_ID]:
        raise Malformed("the protected header must hold algorithm, content type and key id", signer)
    if header[_ALGORITHM] != _EDDSA:
        raise Malformed("the signature algorithm must be EdDSA", signer)
    if header[_CONTENT_TYPE] != domain.value:
        raise BadSignature(f"signed as {header[_CONTENT_TYPE]!r}, wanted {domain.value!r}", signer)
    if not isinstance(header[_KEY_ID], bytes) or len(header[_KEY_ID]) != PeerId.size:
        raise Malformed("the key id must be the signer's 32-byte public key", signer)
    return PeerId(header[_KEY_ID]), protected, body, signature


def _to_be_signed(protected: bytes, body: bytes) -> bytes:
    return b"".join((_SIG_STRUCTURE, _text(protected), b"\x40", _text(body)))


@cache
def _protected(domain: Domain) -> bytes:
    """The protected header of evidence of this domain, but for the key id that ends it."""
    whole = codec.cbor({_ALGORITHM: _EDDSA, _CONTENT_TYPE: domain.value, _KEY_ID: bytes(PeerId.size)})
    return whole[: -PeerId.size]


def _text(data: bytes) -> bytes:
    """A CBOR byte string (RFC 8949 §3.1, major type 2) with the shortest head."""
    size = len(data)
    if size < 24:
        return bytes((0x40 | size,)) + data
    if size < 1 << 16:
        return (b"\x58" + size.to_bytes(1, "big") if size < 256 else b"\x59" + size.to_bytes(2, "big")) + data
    return b"\x5a" + size.to_bytes(4, "big") + data


# --- live messages ----------------------------------------------------------------------------------------------------

_HEADER = struct.Struct(">32s32s32s32s8sQQQ16sH")
_LIVE_DOMAIN: Final = b"haif/msg/v1\0"
NO_SCOPE: Final = Digest(bytes(32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Everything a live signature covers besides the body. `scope` is the Noise handshake hash, or `NO_SCOPE`."""

    net: NetId
    scope: Digest
    sender: PeerId
    receiver: PeerId
    boot: BootId
    sequence: int
    sent: WallTime
    expires: WallTime
    nonce: Nonce
    kind: int

    def pack(self) -> bytes:
        """The 178 bytes that travel and are signed."""
        return _HEADER.pack(
            self.net, self.scope, self.sender, self.receiver, self.boot,
            self.sequence, self.sent, self.expires, self.nonce, self.kind,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Live(Generic[T]):
    """A live message whose signature, addressee and time were checked. Replay is checked by `replay.ReplayGuard`."""

    header: Header
    body: T


def sign_live(identity: Identity, header: Header, body: Message) -> bytes:
    """The bytes of a signed live message. `header.sender` must be the identity's peer."""
    assert header.sender == identity.peer, "a peer signs only in its own name"
    packed, encoded = header.pack(), codec.encode(body)
    return packed + identity.sign(_live_signed(packed, encoded)) + encoded


def open_live(
    kind: type[T], live_type: int, data: bytes, *, net: NetId, scope: Digest, receiver: PeerId, now: WallTime
) -> Live[T]:
    """What a live message says, once length, network, scope, addressee, type, time and signature hold.

    Raises `Oversize`, `Malformed`, `WrongState` (not for us, or not for this session), `Expired` or `BadSignature`.
    The caller then asks its `ReplayGuard`.
    """
    if len(data) > limits.MESSAGE_BYTES_MAX:
        raise Oversize(f"a signed message of {len(data)} bytes is over the limit of {limits.MESSAGE_BYTES_MAX}")
    if len(data) < _HEADER.size + SIGNATURE_BYTES:
        raise Malformed(f"a signed message has at least {_HEADER.size + SIGNATURE_BYTES} bytes, got {len(data)}")
    packed = data[: _HEADER.size]
    signature = data[_HEADER.size : _HEADER.size + SIGNATURE_BYTES]
    encoded = data[_HEADER.size + SIGNATURE_BYTES :]
    raw = _HEADER.unpack(packed)
    header = Header(
        net=NetId(raw[0]), scope=Digest(raw[1]), sender=PeerId(raw[2]), receiver=PeerId(raw[3]), boot=BootId(raw[4]),
        sequence=raw[5], sent=WallTime(raw[6]), expires=WallTime(raw[7]), nonce=Nonce(raw[8]), kind=raw[9],
    )  # fmt: skip
    keys.verify(header.sender, _live_signed(packed, encoded), signature)
    _check_header(header, live_type, net, scope, receiver, now)
    return Live(header, codec.decode(kind, encoded))


def _check_header(header: Header, live_type: int, net: NetId, scope: Digest, receiver: PeerId, now: WallTime) -> None:
    def wrong(what: str) -> NoReturn:
        raise WrongState(f"the signed message is for another {what}", header.sender)

    if header.net != net:
        wrong("network")
    if header.receiver != receiver:
        wrong("receiver")
    if header.scope != scope:
        wrong("session")
    if header.kind != live_type:
        wrong("purpose")
    if abs(header.sent - now) > limits.CLOCK_SKEW_MS or header.expires <= now:
        raise Expired("the signed message is outside its time; check both clocks", header.sender)
    if header.expires - header.sent > limits.LIVE_MESSAGE_TTL_MS:
        raise Expired("the signed message claims to live too long", header.sender)


def _live_signed(packed: bytes, encoded: bytes) -> bytes:
    return _LIVE_DOMAIN + packed + digest("haif v1 live body", encoded)
