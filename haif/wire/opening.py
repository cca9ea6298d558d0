r"""The first bytes of a connection, in the clear: what can be refused before any public-key work.

    initiator → responder   preamble ‖ mac1 16 ‖ ticket, if flagged ‖ length u16 ‖ Noise message 1
    responder → initiator   length u16 ‖ Noise message 2      or      0xFFFF ‖ length u16 ‖ ERR payload    refused
                                                              or      0xFFFE ‖ puzzle                      work first

    preamble = "HAIF" ‖ lowest version u8 ‖ highest version u8 ‖ pattern u8 ‖ flags u8 ‖ first 4 bytes of the network id
    mac1     = BLAKE2s-128(key = BLAKE2s("haif mac1 v1\0" ‖ network id ‖ responder), preamble ‖ ticket ‖ message 1)

mac1 proves that the dialler knows whom it dials (as WireGuard's mac1), so a scanner of addresses costs a hash. What a
refusal or a puzzle says is not authentic: it can delay a dialler, as whoever sits on the path can anyway.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import Final

from haif.base import limits
from haif.base.errors import (
    BadSignature,
    Expired,
    HaifError,
    Malformed,
    Oversize,
    PeerFault,
    Refusal,
    Unavailable,
    Unsupported,
    WrongState,
    from_reason,
)  # fmt: skip
from haif.base.ids import NetId, PeerId
from haif.wire.frames import failure, read_failure
from haif.wire.noise import HANDSHAKE_MESSAGE_BYTES_MAX, Pattern
from haif.wire.puzzle import PUZZLE_BYTES, TICKET_BYTES, Puzzle

VERSION_MIN: Final = 1
VERSION_MAX: Final = 1
PREAMBLE: Final = struct.Struct(">4s4B4s")
MAGIC: Final = b"HAIF"
FURTHER_PATH: Final = 2  # in the place of a pattern: no handshake follows, but a further path of an open session
CIRCUIT: Final = 3  # or, at a relay, the token of a circuit
TOKEN_BYTES: Final = 16
MAC_BYTES: Final = 16
LENGTH: Final = struct.Struct(">H")
_WITH_TICKET: Final = 1  # flag
_REJECT: Final = 0xFFFF
_RETRY: Final = 0xFFFE


@dataclass(frozen=True, slots=True)
class First:
    """What a connection begins with. `ticket` is empty where none is shown."""

    preamble: bytes
    mac: bytes
    ticket: bytes
    message: bytes

    @property
    def pattern(self) -> Pattern:
        """The handshake it asks for."""
        return Pattern(self.preamble[6])


def preamble(
    net: NetId,
    version_min: int = VERSION_MIN,
    version_max: int = VERSION_MAX,
    *,
    pattern: int = Pattern.XX,
    ticket: bool = False,
) -> bytes:
    """The twelve bytes a connection begins with."""
    return PREAMBLE.pack(MAGIC, version_min, version_max, pattern, _WITH_TICKET * ticket, net[:4])


def choose_version(received: bytes, net: NetId) -> int:
    """The highest version both speak. Raises `Malformed`, `Unsupported` or `WrongState` (another network)."""
    lowest: int
    highest: int
    magic, lowest, highest, pattern, flags, prefix = PREAMBLE.unpack(received)
    if magic != MAGIC:
        raise Malformed("the connection does not begin as HAIF's do; something else dials this port")
    if prefix != net[:4]:
        raise WrongState("the dialler belongs to another network")
    if pattern not in _PATTERNS or flags & ~_WITH_TICKET:
        raise Unsupported(f"handshake pattern {pattern} with flags {flags} is not spoken here")
    version = min(highest, VERSION_MAX)
    if not max(lowest, VERSION_MIN) <= version:
        raise Unsupported(f"the peer speaks versions {lowest} to {highest}, we {VERSION_MIN} to {VERSION_MAX}")
    return version


_PATTERNS: Final = frozenset(Pattern) | {FURTHER_PATH, CIRCUIT}


def mac_key(net: NetId, responder: PeerId) -> bytes:
    """What a dialler must know to be heard: whom it dials, and where."""
    return hashlib.blake2s(b"haif mac1 v1\0" + net + responder).digest()


def mac(key: bytes, opening: bytes, ticket: bytes, message: bytes) -> bytes:
    """The keyed check over everything else in the first bytes."""
    return hashlib.blake2s(opening + ticket + message, key=key, digest_size=MAC_BYTES).digest()


def write_first(key: bytes, opening: bytes, ticket: bytes, message: bytes) -> bytes:
    """The initiator's first bytes."""
    return opening + mac(key, opening, ticket, message) + ticket + LENGTH.pack(len(message)) + message


def read_first(opening: bytes, data: bytes, offset: int) -> tuple[First, int] | None:
    """What follows the preamble from `offset` on and how long it is; None while it is not whole. Raises `Oversize`."""
    ticket = offset + MAC_BYTES
    length = ticket + (TICKET_BYTES if opening[7] & _WITH_TICKET else 0)
    start = length + LENGTH.size
    if len(data) < start:
        return None
    size = message_length(data, length)
    if len(data) < start + size:
        return None
    first = First(opening, data[offset:ticket], data[ticket:length], data[start : start + size])
    return first, start + size - offset


def message_length(data: bytes, offset: int) -> int:
    """The length in front of a handshake message. Raises `Oversize`."""
    length: int = LENGTH.unpack_from(data, offset)[0]
    if length > HANDSHAKE_MESSAGE_BYTES_MAX:
        raise Oversize(f"a handshake message of {length} bytes is over {HANDSHAKE_MESSAGE_BYTES_MAX}")
    return length


def known(key: bytes, first: First) -> bool:
    """Whether whoever sent this knows whom it dialled."""
    return hmac.compare_digest(first.mac, mac(key, first.preamble, first.ticket, first.message))


# --- what the responder says instead of message 2 ---------------------------------------------------------------------


def retry(puzzle: Puzzle) -> bytes:
    """Solve this first, and dial again."""
    return LENGTH.pack(_RETRY) + puzzle.pack()


def rejection(error: HaifError) -> bytes:
    """Why there is no handshake, as far as a stranger is told."""
    reason = for_strangers(error)
    if reason is None:
        return b""
    payload = failure(reason)
    return LENGTH.pack(_REJECT) + LENGTH.pack(len(payload)) + payload


def for_strangers(error: HaifError) -> HaifError | None:
    """What somebody we have no session with is told.

    Nothing if it does not speak our protocol, and one answer for all from which a forger could learn how far it came.
    """
    if isinstance(error, Malformed | Oversize) or not isinstance(error, PeerFault | Refusal):
        return None
    return error if isinstance(error, Refusal | WrongState | Expired) else _REFUSED


_REFUSED: Final = BadSignature("this node does not answer to the key that was dialled, or the handshake does not hold")


def read_control(data: bytes, offset: int) -> HaifError | Puzzle | None:
    """What the responder says instead of a handshake message; None if it does not, or not whole yet.

    Raises `Malformed` or `Oversize`.
    """
    if len(data) - offset < 2 * LENGTH.size or not control_begins(data, offset):
        return None
    word, length = struct.unpack_from(">HH", data, offset)
    if word == _RETRY:
        start = offset + LENGTH.size
        return Puzzle.unpack(data[start : start + PUZZLE_BYTES]) if len(data) >= start + PUZZLE_BYTES else None
    if length > limits.REJECT_BYTES_MAX:
        raise Oversize("a refusal is over the limit")
    start = offset + 2 * LENGTH.size
    return told(data[start : start + length]) if len(data) >= start + length else None


def control_begins(data: bytes, offset: int) -> bool:
    """Whether what comes next, whole or not, is such a word and no handshake message."""
    return data[offset : offset + 2] >= b"\xff\xfe"


def told(payload: bytes) -> HaifError:
    """The error a peer refused us with. What only we could know of ourselves is not believed: `Malformed`."""
    error = read_failure(payload)
    if not isinstance(error, PeerFault | Refusal | Unavailable):
        return Malformed(f"the peer refused us with {error.reason}, which is not its to say")
    wait = error.retry_after if isinstance(error, Refusal | Unavailable) else None
    return from_reason(error.reason, f"the peer says: {error.message}", wait)
