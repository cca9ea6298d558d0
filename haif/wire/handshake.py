r"""Two strangers become two peers: the preamble, Noise XX, and the certificates inside it.

    1. initiator → responder   preamble ‖ length u16 ‖ noise(e)
    2. responder → initiator   length u16 ‖ noise(e, ee, s, es, Hello)
    3. initiator → responder   length u16 ‖ noise(s, se, Hello)

    preamble = "HAIF" ‖ lowest version u8 ‖ highest version u8 ‖ pattern u8 ‖ flags u8 ‖ first 4 bytes of the network id
    prologue = "haif-rpc\0" ‖ preamble ‖ network id

The prologue makes both sides agree on every byte of the preamble, and the chosen version comes encrypted: nobody in
between can lower it. A certificate binds the Noise key to an Ed25519 identity; the initiator shows its own only after
the responder proved to be whom it dialled.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from haif.base import codec, limits
from haif.base.clock import WallTime
from haif.base.codec import Message
from haif.base.errors import BadSignature, Malformed, Unsupported, WrongState
from haif.base.ids import NetId, PeerId
from haif.identity import certificate
from haif.identity.keys import NoiseKey
from haif.wire.events import Established
from haif.wire.noise import NoiseXX, Split

VERSION_MIN: Final = 1
VERSION_MAX: Final = 1
PATTERN_XX: Final = 0
PREAMBLE: Final = struct.Struct(">4s4B4s")
MAGIC: Final = b"HAIF"
LENGTH: Final = struct.Struct(">H")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a peer shows: its network, its Noise key, and the certificate for that key."""

    net: NetId
    noise_key: NoiseKey
    certificate: bytes


class Hello(Message, frozen=True):
    """The payload of handshake messages 2 and 3."""

    version: int
    certificate: bytes


def preamble(net: NetId, version_min: int = VERSION_MIN, version_max: int = VERSION_MAX) -> bytes:
    """The twelve bytes a connection begins with."""
    return PREAMBLE.pack(MAGIC, version_min, version_max, PATTERN_XX, 0, net[:4])


def choose_version(received: bytes, net: NetId) -> int:
    """The highest version both speak. Raises `Malformed`, `Unsupported` or `WrongState` (another network)."""
    lowest: int
    highest: int
    magic, lowest, highest, pattern, flags, prefix = PREAMBLE.unpack(received)
    if magic != MAGIC:
        raise Malformed("the connection does not begin as HAIF's do; something else dials this port")
    if prefix != net[:4]:
        raise WrongState("the peer belongs to another network")
    if pattern != PATTERN_XX or flags != 0:
        raise Unsupported(f"handshake pattern {pattern} with flags {flags} is not spoken here")
    version = min(highest, VERSION_MAX)
    if not max(lowest, VERSION_MIN) <= version:
        raise Unsupported(f"the peer speaks versions {lowest} to {highest}, we {VERSION_MIN} to {VERSION_MAX}")
    return version


class Handshake:
    """One side of the handshake. `expected` given: we dial and accept nobody else; None: we were dialled.

    `wall` is the time the certificate is checked against. Everything a peer does wrong is raised and final.
    """

    def __init__(
        self, credentials: Credentials, expected: PeerId | None, *, entropy: Callable[[int], bytes], wall: WallTime
    ) -> None:
        self.initiator = expected is not None
        self._credentials = credentials
        self._expected = expected
        self._entropy = entropy
        self._wall = wall
        self._version = 0
        self._noise: NoiseXX | None = None
        self.split: Split | None = None
        self.established: Established | None = None

    def begin(self) -> bytes:
        """The initiator's first bytes: preamble and message 1."""
        opening = preamble(self._credentials.net)
        return opening + _framed(self._start(opening).write())

    def preamble(self, received: bytes) -> None:
        """The responder takes the preamble."""
        self._version = choose_version(received, self._credentials.net)
        self._start(received)

    def message(self, received: bytes | memoryview) -> bytes:
        """Take the next message; the answer to it, if one is due. `established` is set once it is over."""
        noise = self._noise
        assert noise is not None, "the preamble comes first"
        payload = noise.read(received)
        if self.initiator:
            self._meet(payload)
            answer = _framed(noise.write(self._hello()))
            self._conclude(noise)
            return answer
        if noise.split is None:
            if payload:
                raise Malformed("the first handshake message carries no payload")
            return _framed(noise.write(self._hello()))
        self._meet(payload)
        self._conclude(noise)
        return b""

    def _start(self, opening: bytes) -> NoiseXX:
        net = self._credentials.net
        self._noise = NoiseXX(
            initiator=self.initiator,
            static=self._credentials.noise_key,
            prologue=b"haif-rpc\0" + opening + net,
            entropy=self._entropy,
        )
        return self._noise

    def _hello(self) -> bytes:
        return codec.encode(Hello(self._version, self._credentials.certificate))

    def _meet(self, payload: bytes) -> None:
        """Check the other's Hello: version and certificate, and that it is whom we dialled."""
        assert self._noise is not None
        hello = codec.decode(Hello, payload, size_max=limits.HANDSHAKE_PAYLOAD_BYTES_MAX)
        if self.initiator and VERSION_MIN <= hello.version <= VERSION_MAX:
            self._version = hello.version
        if hello.version != self._version:
            raise WrongState(f"the peer chose version {hello.version}, which was not offered")
        remote = self._noise.remote
        peer = certificate.check(hello.certificate, net=self._credentials.net, noise_key=remote, now=self._wall)
        if self._expected is not None and peer != self._expected:
            raise BadSignature(f"dialled {self._expected.short}…, but {peer.short}… answered", peer)
        self._peer = peer

    def _conclude(self, noise: NoiseXX) -> None:
        split = self.split = noise.split
        assert split is not None
        self.established = Established(self._peer, split.hash, self._version)


def _framed(message: bytes) -> bytes:
    return LENGTH.pack(len(message)) + message
