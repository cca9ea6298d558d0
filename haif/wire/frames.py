r"""Frames: what travels inside a Noise message, and the bytes of each kind.

    Noise message  = length u16 big-endian ‖ ciphertext;  its plaintext is a row of whole frames
    frame          = kind u8 ‖ stream u32 ‖ length u16 ‖ payload                                    (little-endian)

    REQ OPEN       size u32 ‖ timeout ms u32 ‖ method length u8 ‖ metadata length u16 ‖ method ‖ metadata ‖ piece
    RES            size u32 ‖ piece                   the answer to a REQ
    DATA           size u32 ‖ piece                   a message of a stream, if none is under way on it;
                   piece                              otherwise the next piece of what is under way, RES or REQ included
    ERR            msgpack [reason, message, retry after seconds or nil, parameter refused or nil]
    CREDIT         bytes u32                          stream 0: for the session
    REJECT         as ERR, on stream 0                why the session ends: its last frame
    PATH           counter u32                        stream 0: this Noise message is the sender's last on this path
    CANCEL FIN RST PING PONG GOAWAY REKEY             empty

`size` is the length of the whole message, so that its memory is accounted for before it comes. Stream 0 is the session
itself; the initiator opens odd streams, the responder even ones, each in rising order. A kind with the high bit set is
an extension that may be ignored; any other unknown kind ends the session.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Final

from haif.base import codec, limits
from haif.base.codec import Message
from haif.base.errors import HaifError, Malformed, Misuse, Oversize, Refusal, Unavailable, from_reason

HEADER: Final = struct.Struct("<BIH")
HEADER_BYTES: Final = HEADER.size
SIZE: Final = struct.Struct("<I")
REQUEST: Final = struct.Struct("<IIBH")
IGNORABLE: Final = 0x80


class Kind(IntEnum):
    """What a frame is."""

    REQ = 1  # call: one message there, one back
    RES = 2  # its answer
    ERR = 3  # a call or stream ends with an error
    CANCEL = 4  # the caller wants no answer any more
    OPEN = 5  # call: one message there, a stream of messages back
    DATA = 6  # a message of a stream, or a further piece of a long message
    FIN = 7  # the stream ends well
    RST = 8  # the call ends without an answer: cancelled, or never begun
    CREDIT = 9  # so many more bytes may come
    PING = 10
    PONG = 11
    GOAWAY = 12  # no new calls, please; those under way go on
    REKEY = 13  # last frame under the old key
    REJECT = 14  # the session is over, and why
    PATH = 15  # the sender goes on over another path


SESSION_KINDS: Final = frozenset({Kind.PING, Kind.PONG, Kind.GOAWAY, Kind.REKEY, Kind.REJECT, Kind.PATH})


class Failure(Message, frozen=True):
    """The payload of an ERR frame."""

    reason: str
    message: str
    retry_after: float | None
    param: str | None = None


def parse(plaintext: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Each frame as (kind, stream, start, end): its payload is `plaintext[start:end]`. Raises `Malformed`."""
    offset, total = 0, len(plaintext)
    unpack = HEADER.unpack_from
    while offset < total:
        if total - offset < HEADER_BYTES:
            raise Malformed("a Noise message ends inside a frame's header")
        kind, stream, length = unpack(plaintext, offset)
        start = offset + HEADER_BYTES
        offset = start + length
        if offset > total:
            raise Malformed("a Noise message ends inside a frame")
        yield kind, stream, start, offset


def frame(kind: Kind, stream: int, payload: bytes = b"") -> bytes:
    """The bytes of one frame."""
    return HEADER.pack(kind, stream, len(payload)) + payload


def request_head(size: int, timeout_ms: int, method: str, metadata: Mapping[str, str] | None) -> bytes:
    """The front of a REQ or OPEN payload. Raises `Misuse` for what our own limits forbid."""
    name = method.encode("ascii", "replace")
    extra = codec.encode_any(dict(metadata)) if metadata else b""
    if not 0 < len(name) <= limits.METHOD_BYTES_MAX:
        raise Misuse(f"the method name {method!r} must have 1 to {limits.METHOD_BYTES_MAX} ASCII characters")
    if metadata and (len(metadata) > limits.METADATA_KEYS_MAX or len(extra) > limits.METADATA_BYTES_MAX):
        raise Misuse(f"metadata of {len(metadata)} keys and {len(extra)} bytes is over the limit")
    return REQUEST.pack(size, timeout_ms, len(name), len(extra)) + name + extra


class RequestHead:
    """The front of a REQ or OPEN, read: `piece` is where the argument begins."""

    __slots__ = ("metadata", "method", "piece", "size", "timeout_ms")

    def __init__(self, data: bytes, start: int, end: int) -> None:
        """From `data[start:end]`. Raises `Malformed` or `Oversize`."""
        if end - start < REQUEST.size:
            raise Malformed("a request frame is shorter than its head")
        self.size, self.timeout_ms, method, metadata = REQUEST.unpack_from(data, start)
        name = start + REQUEST.size
        extra = name + method
        self.piece = extra + metadata
        if self.piece > end:
            raise Malformed("a request frame ends inside its head")
        if method > limits.METHOD_BYTES_MAX or metadata > limits.METADATA_BYTES_MAX:
            raise Oversize("a request's method name or metadata is over the limit")
        self.method = _method(data[name:extra])
        self.metadata = _metadata(data[extra : self.piece]) if metadata else _NO_METADATA


_NO_METADATA: Final[Mapping[str, str]] = {}


def _method(name: bytes) -> str:
    try:
        return name.decode("ascii")
    except UnicodeDecodeError:
        raise Malformed("a method name is not ASCII") from None


def _metadata(data: bytes) -> Mapping[str, str]:
    value = codec.decode_any(data)
    if not isinstance(value, dict) or not all(isinstance(item, str) for pair in value.items() for item in pair):
        raise Malformed("metadata must be a map from text to text")
    if len(value) > limits.METADATA_KEYS_MAX:
        raise Oversize(f"metadata of {len(value)} keys is over the limit of {limits.METADATA_KEYS_MAX}")
    return value


def failure(error: HaifError) -> bytes:
    """The ERR payload for an error. What went wrong inside us (`Misuse`) is not told."""
    if isinstance(error, Misuse):
        return codec.encode(Failure(Misuse.reason, "the peer made a mistake of its own; ask its operator", None))
    wait = error.retry_after if isinstance(error, Refusal | Unavailable) else None
    param = error.param[: limits.PARAMETER_CHARACTERS_MAX] if isinstance(error, Refusal) and error.param else None
    return codec.encode(Failure(error.reason, error.message[: limits.ERROR_MESSAGE_CHARACTERS_MAX], wait, param))


def read_failure(payload: bytes) -> HaifError:
    """The error an ERR payload tells. Raises `Malformed` or `Oversize`."""
    told = codec.decode(Failure, payload)
    if len(told.message) > limits.ERROR_MESSAGE_CHARACTERS_MAX:
        raise Oversize("an error message is over the limit")
    if told.param is not None and len(told.param) > limits.PARAMETER_CHARACTERS_MAX:
        raise Oversize("the name of a parameter is over the limit")
    return from_reason(told.reason, told.message, told.retry_after, told.param)


class Outbox:
    """Frames waiting to leave, gathered into plaintexts of about `limits.NOISE_PLAINTEXT_BYTES_SENT`."""

    __slots__ = ("_full", "_parts", "_size", "size")

    def __init__(self) -> None:
        self._full: list[bytes] = []
        self._parts: list[bytes] = []
        self._size = 0
        self.size = 0

    def add(self, kind: Kind, stream: int, head: bytes = b"", body: bytes | memoryview = b"") -> None:
        """One more frame, its payload given in two parts to save a copy."""
        length = len(head) + len(body)
        size = HEADER_BYTES + length
        if self._size + size > limits.NOISE_PLAINTEXT_BYTES_SENT and self._parts:
            self._full.append(b"".join(self._parts))
            self._parts = []
            self._size = 0
        self._parts += (HEADER.pack(kind, stream, length), head, body)  # type: ignore[arg-type]  # join takes both
        self._size += size
        self.size += size

    def take(self) -> list[bytes]:
        """Everything gathered so far, as plaintexts of whole frames."""
        if self._parts:
            self._full.append(b"".join(self._parts))
            self._parts = []
            self._size = 0
        full, self._full = self._full, []
        self.size = 0
        return full
