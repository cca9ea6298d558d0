"""NAT-PMP as bytes (RFC 6886): ask the router for our address outside, and for a port there.

    request   version 0 ‖ opcode ‖ (to map:) reserved 2 ‖ port inside u16 ‖ port outside u16 ‖ lifetime u32
    response  version 0 ‖ 128 + opcode ‖ result u16 ‖ seconds since the router began u32 ‖ address 4
                                                                  or: port inside u16 ‖ port outside u16 ‖ lifetime u32

Opcode 0 asks for the address, 1 maps UDP, 2 maps TCP; a lifetime of 0 ends a mapping.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address
from typing import Final

from haif.base.errors import Malformed, Unsupported

PORT: Final = 5351
RESPONSE_BYTES_MAX: Final = 16
ADDRESS_REQUEST: Final = b"\0\0"
_MAP: Final = struct.Struct(">BBHHHI")
_HEAD: Final = struct.Struct(">BBHI")
_MAPPED: Final = struct.Struct(">HHI")
_RESPONSE: Final = 128
_RESULTS: Final = ("done", "version", "not authorised", "the router has no address", "out of resources", "operation")


class Opcode(IntEnum):
    """What is mapped."""

    UDP = 1
    TCP = 2


@dataclass(frozen=True, slots=True)
class Mapped:
    """A port outside that leads to one inside for `seconds`."""

    inside: int
    outside: int
    seconds: int


def map_request(opcode: Opcode, inside: int, outside: int, seconds: int) -> bytes:
    """Ask for a mapping; `outside` is a wish."""
    return _MAP.pack(0, opcode, 0, inside, outside, seconds)


def read_address(data: bytes) -> str:
    """The router's address outside. Raises `Malformed`, or `Unsupported` with the router's reason."""
    return str(IPv4Address(_body(data, 0, 4)))


def read_mapped(data: bytes, opcode: Opcode, inside: int) -> Mapped:
    """The mapping of that port. Raises `Malformed`, or `Unsupported` with the router's reason."""
    mapped = Mapped(*_MAPPED.unpack(_body(data, opcode, _MAPPED.size)))
    if mapped.inside != inside or not mapped.outside:
        raise Malformed("the router answered for another port")
    return mapped


def _body(data: bytes, opcode: int, size: int) -> bytes:
    if len(data) < _HEAD.size:
        raise Malformed("a NAT-PMP response has at least 8 bytes")
    version, answered, result, _ = _HEAD.unpack_from(data)
    if version != 0 or answered != _RESPONSE + opcode:
        raise Malformed("a response of another version, or to another request")
    if result:
        reason = _RESULTS[result] if result < len(_RESULTS) else f"code {result}"
        raise Unsupported(f"the router refused: {reason}")
    if len(data) != _HEAD.size + size:
        raise Malformed(f"this NAT-PMP response has {_HEAD.size + size} bytes, not {len(data)}")
    return data[_HEAD.size :]
