r"""Two strangers become two peers: Noise XX or IK, and the certificates inside it.

    XX, first contact                                       IK, where the responder's certificate is known
    1. → opening ‖ noise(e)                                 1. → opening ‖ noise(e, es, s, ss, Introduction)
    2. ← noise(e, ee, s, es, Hello)                         2. ← noise(e, ee, se, Hello)
    3. → noise(s, se, Hello)
    4. ← sealed: PONG, or REJECT and why                    3. ← sealed, right behind: PONG, or REJECT and why

    each behind its length u16; the opening is that of `wire.opening`
    prologue = "haif-rpc\0" ‖ preamble ‖ network id ‖ responder

The prologue makes both sides agree on every byte of the preamble, on the network and on whom was dialled, and the
chosen version comes encrypted: nobody in between can lower it. A certificate binds the Noise key to an Ed25519
identity. Under XX the initiator shows its own only after the responder proved to be whom it dialled; under IK it is
encrypted to the responder's static key, and the time in it is accepted once (`identity.replay.HandshakeTimes`).
A listener answers IK to the key it showed before, too, until that key's certificate is over (`wire.statics`). Where IK
fails, because the key is gone or the clocks differ, the dialler begins anew with XX.

Beside it travels the certificate of admission, as encrypted: whoever the network does not admit gets no session. The
responder's first sealed word says whether there is one: who dialled begins nothing before, and learns why where not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from haif.base import codec, limits
from haif.base.clock import Instant, WallTime
from haif.base.codec import Message
from haif.base.errors import BadSignature, Malformed, WrongState
from haif.base.ids import NetId, NoisePublicKey, PeerId
from haif.base.roles import Role
from haif.identity import certificate
from haif.identity.admission import Book
from haif.identity.keys import NoiseKey
from haif.identity.replay import HandshakeTimes
from haif.wire.events import Established
from haif.wire.gate import Gate
from haif.wire.noise import NoiseHandshake, Pattern, Split
from haif.wire.opening import LENGTH, VERSION_MAX, VERSION_MIN, First, choose_version, mac_key, preamble, write_first
from haif.wire.puzzle import Puzzle
from haif.wire.statics import Static


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a peer shows: its network, its identity, its Noise key, and the certificate that binds the two.

    `book` has its certificate of admission, and judges those of others; None: the network admits everybody. `former`
    is the Noise key before this one, for those who dial with it.
    """

    net: NetId
    peer: PeerId
    noise_key: NoiseKey
    certificate: bytes
    book: Book | None = None
    former: Static | None = None


@dataclass(frozen=True, slots=True)
class Dial:
    """Whom we dial. `noise_key` is theirs, for IK, where a certificate told it; `ticket` the solved puzzle, if any.

    `made_us` is the time in microseconds since the epoch, and never the same twice.
    """

    peer: PeerId
    noise_key: NoisePublicKey | None = None
    made_us: int = 0
    ticket: bytes = b""


@dataclass(frozen=True, slots=True)
class Door:
    """Where we were dialled: the listener's gate, its memory of handshakes, and the dialler's IP address."""

    gate: Gate
    times: HandshakeTimes
    source: str


class Introduction(Message, frozen=True):
    """The payload of IK's message 1: who dials, and when, in microseconds since the epoch."""

    certificate: bytes
    admission: bytes
    made_us: int


class Hello(Message, frozen=True):
    """The payload of IK's message 2, and of XX's messages 2 and 3."""

    version: int
    certificate: bytes
    admission: bytes


class Handshake:
    """One side of the handshake, the initiator's from a `Dial`, the responder's from a `Door`.

    `wall` is the time certificates are checked against. Everything a peer does wrong is raised and final.
    """

    def __init__(
        self, credentials: Credentials, way: Dial | Door, *, entropy: Callable[[int], bytes], wall: WallTime
    ) -> None:
        self.initiator = isinstance(way, Dial)
        self._way = way
        self._credentials = credentials
        self._entropy = entropy
        self._wall = wall
        self._version = 0
        self._noise: NoiseHandshake | None = None
        self.certificate = b""  # the other's, once it was checked
        self.admission = b""  # likewise
        self._roles: frozenset[Role] | None = None
        self.split: Split | None = None
        self.established: Established | None = None

    @property
    def net(self) -> NetId:
        """The network both are of."""
        return self._credentials.net

    def begin(self) -> bytes:
        """The initiator's first bytes."""
        dial, own = self._dial, self._credentials
        pattern = Pattern.XX if dial.noise_key is None else Pattern.IK
        opening = preamble(own.net, pattern=pattern, ticket=bool(dial.ticket))
        payload = b""
        if pattern is Pattern.IK:
            payload = codec.encode(Introduction(own.certificate, self._admission(), dial.made_us))
        message = self._start(pattern, opening, dial.peer, dial.noise_key).write(payload)
        return write_first(mac_key(own.net, dial.peer), opening, dial.ticket, message)

    def preamble(self, received: bytes) -> None:
        """The responder takes the preamble."""
        self._version = choose_version(received, self._credentials.net)

    def first(self, first: First, now: Instant) -> bytes | Puzzle:
        """The responder takes the rest of the first bytes: its answer, or the puzzle to be solved before."""
        door = self._door
        puzzle = door.gate.judge(first, door.source, now)
        if puzzle is not None:
            return puzzle
        noise, payload = self._open(first)
        if first.pattern is Pattern.IK:
            introduction = codec.decode(Introduction, payload, size_max=limits.HANDSHAKE_PAYLOAD_BYTES_MAX)
            self._certified(noise, introduction)
            door.times.accept(self._peer, introduction.made_us, self._wall)
        elif payload:
            raise Malformed("the first handshake message of XX carries no payload")
        return self._answer(noise)

    def _open(self, first: First) -> tuple[NoiseHandshake, bytes]:
        """Read message 1. Where IK's is sealed to the key we had before, the answer is under that key too."""
        own = self._credentials
        noise = self._start(first.pattern, first.preamble, own.peer, None)
        try:
            return noise, noise.read(first.message)
        except BadSignature:
            if first.pattern is not Pattern.IK or own.former is None:
                raise
        self._credentials = replace(own, noise_key=own.former.key, certificate=own.former.certificate, former=None)
        return self._open(first)

    def message(self, received: bytes | memoryview) -> bytes:
        """Take the next message; the answer to it, if one is due. `established` is set once it is over."""
        noise = self._noise
        assert noise is not None, "the first message comes first"
        self._meet(noise, noise.read(received))
        if noise.split is None:
            return self._answer(noise)
        self._conclude(noise)
        return b""

    def _answer(self, noise: NoiseHandshake) -> bytes:
        """Our Hello, and with the last message the end."""
        message = noise.write(codec.encode(Hello(self._version, self._credentials.certificate, self._admission())))
        if noise.split is not None:
            self._conclude(noise)
        return LENGTH.pack(len(message)) + message

    @property
    def channel(self) -> Split | None:
        """The keys, once all messages were exchanged, even if the other was then found wanting."""
        return None if self._noise is None else self._noise.split

    @property
    def _dial(self) -> Dial:
        assert isinstance(self._way, Dial), "only who dials begins"
        return self._way

    @property
    def _door(self) -> Door:
        assert isinstance(self._way, Door), "only who was dialled takes a first message"
        return self._way

    def _start(
        self, pattern: Pattern, opening: bytes, responder: PeerId, remote: NoisePublicKey | None
    ) -> NoiseHandshake:
        own = self._credentials
        self._noise = NoiseHandshake(
            pattern,
            initiator=self.initiator,
            static=own.noise_key,
            prologue=_PROLOGUE + opening + own.net + responder,
            entropy=self._entropy,
            remote=remote,
        )
        return self._noise

    def _meet(self, noise: NoiseHandshake, payload: bytes) -> None:
        """Check the other's Hello: version and certificate, and that it is whom we dialled."""
        hello = codec.decode(Hello, payload, size_max=limits.HANDSHAKE_PAYLOAD_BYTES_MAX)
        if self.initiator and VERSION_MIN <= hello.version <= VERSION_MAX:
            self._version = hello.version
        if hello.version != self._version:
            raise WrongState(f"the peer chose version {hello.version}, which was not offered")
        self._certified(noise, hello)
        if self.initiator and self._peer != self._dial.peer:
            raise BadSignature(f"dialled {self._dial.peer.short}…, but {self._peer.short}… answered", self._peer)

    def _admission(self) -> bytes:
        """What we show beside our certificate, while it holds."""
        book = self._credentials.book
        return b"" if book is None else book.certificate(self._wall)

    def _certified(self, noise: NoiseHandshake, shown: Introduction | Hello) -> None:
        """Who it is, and whether it may take part."""
        own, evidence = self._credentials, shown.certificate
        self._peer = certificate.check(evidence, net=own.net, noise_key=noise.remote, now=self._wall)
        if own.book is not None:
            self._roles = own.book.judge(self._peer, shown.admission, self._wall)
        self.certificate, self.admission = evidence, shown.admission

    def _conclude(self, noise: NoiseHandshake) -> None:
        split = self.split = noise.split
        assert split is not None
        self.established = Established(self._peer, split.hash, self._version, self._roles)


_PROLOGUE: Final = b"haif-rpc\0"
