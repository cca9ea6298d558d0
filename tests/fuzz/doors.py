"""Every way in: where hostile bytes enter HAIF, and what a sender who knows the formats would send there.

A door makes inputs (`make`) and takes them (`take`). Taking one may raise what says that a peer was at fault, refused
or unavailable, and nothing else; a machine raises nothing at all. Doors with a memory are made anew for each batch.
"""

import struct
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from itertools import cycle
from random import Random
from typing import Any, ClassVar

import msgpack
import msgspec

from haif.artifacts.gguf import read_header
from haif.artifacts.manifest import Manifest, open_manifest
from haif.base import codec, limits
from haif.base.clock import Deadline, Instant, WallTime
from haif.base.codec import Message
from haif.base.errors import Misuse, Overloaded, PeerFault, Refusal, Unavailable
from haif.base.ids import Digest, NetKey, PeerId
from haif.base.machine import Address
from haif.base.traffic import Traffic
from haif.dht import messages as dht
from haif.dht.beacon import concerns, open_beacon, sign_beacon
from haif.dht.contact import Contact, pack_address, pack_contacts, unpack_address, unpack_contacts
from haif.dht.crossing import Carry, Elsewhere
from haif.dht.envelope import Envelope
from haif.dht.node import Node
from haif.engine.frames import FrameReader, Order, Report, decode_order, decode_report, frame
from haif.identity import certificate
from haif.identity.admission import Admission, Book, Delegation, Network, Revocations, read_delegation
from haif.identity.certificate import StaticKey
from haif.identity.keys import Identity
from haif.identity.networks import Invitation, read_invitation
from haif.identity.signing import _COSE_SIGN1_TAG, Domain, Header, _live_signed, _to_be_signed, open_sealed, seal
from haif.identity.voice import Voice
from haif.protocol import methods
from haif.protocol.audits import Ruling, Verdict
from haif.protocol.embeddings import EmbedRequest
from haif.protocol.inference import Request
from haif.protocol.jobs import Reservation
from haif.protocol.offers import Offer, Presence
from haif.protocol.reach import Sighting
from haif.protocol.receipts import Countersignature, Receipt
from haif.protocol.records import (
    Record,
    RecordKind,
    Value,
    mutable_topic,
    open_record,
    presence_topic,
    sign_record,
)
from haif.protocol.relay import Voucher
from haif.reach import natpmp
from haif.wire import frames as wire
from haif.wire.events import Called, Received
from haif.wire.frames import Kind, RequestHead, read_failure, request_head
from haif.wire.gate import Gate
from haif.wire.handshake import Hello, Introduction
from haif.wire.noise import NoiseHandshake, Pattern, Sealer, Split
from haif.wire.opening import (
    CIRCUIT,
    FURTHER_PATH,
    LENGTH,
    First,
    mac,
    mac_key,
    preamble,
    read_control,
    read_first,
    rejection,
    retry,
    write_first,
)
from haif.wire.path import Paths
from haif.wire.puzzle import Puzzle
from haif.wire.session import SessionMachine
from haif.worker.control import read_request
from tests.fuzz.mutate import grafted_cbor, grafted_msgpack, mutated
from tests.fuzz.values import plain, wild
from tests.support import wire_pair
from tests.support.wire_pair import CLIENT, CLIENT_KEY, NET, SERVER, SERVER_KEY, WALL, Pair

T0 = Instant(1000.0)
BLAMED = (PeerFault, Refusal, Unavailable)

DOMAINS: dict[Domain, type[Message]] = {
    Domain.STATIC_KEY: StaticKey, Domain.MANIFEST: Manifest, Domain.RESERVATION: Reservation,
    Domain.RECEIPT: Receipt, Domain.COUNTERSIGNATURE: Countersignature, Domain.ADMISSION: Admission,
    Domain.DELEGATION: Delegation, Domain.REVOCATIONS: Revocations,
    Domain.VOUCHER: Voucher, Domain.SIGHTING: Sighting, Domain.VERDICT: Verdict, Domain.RULING: Ruling,
}  # fmt: skip
BODIES: dict[RecordKind, type[Message]] = {
    RecordKind.OFFER: Offer,
    RecordKind.PRESENCE: Presence,
    RecordKind.MUTABLE: Value,
}
ENGINE: tuple[type[Message], ...] = (Order, Report)
HANDSHAKE: tuple[type[Message], ...] = (Introduction, Hello)
DATAGRAMS: tuple[type[Message], ...] = (dht.Query, dht.Reply, dht.Put)
LIVE: dict[int, type[Message]] = {method.live: method.argument for method in methods.ALL if method.live is not None}
CALLS: tuple[type[Message], ...] = (
    Request, EmbedRequest, *(kind for method in methods.ALL for kind in (method.argument, method.reply)),
)  # fmt: skip


class Decoder:
    """The typed decoder, for each of the messages that pass through it."""

    def __init__(self, *kinds: type[Message]) -> None:
        self._kinds = kinds

    def make(self, rng: Random) -> tuple[type[Message], bytes]:
        kind = rng.choice(self._kinds)
        return kind, packed(kind, rng)

    def take(self, case: tuple[type[Message], bytes]) -> None:
        with suppress(*BLAMED):
            codec.encode(codec.decode(*case))


def packed(kind: type[Message], rng: Random) -> bytes:
    """A message of this type, as it should be, as it could be, or broken."""
    data = codec.encode(wild(kind, rng))
    match rng.randrange(6):
        case 0:
            return data
        case 1 | 2:
            return grafted_msgpack(data, rng)
        case 3:
            return bytes(msgpack.packb(plain(rng)))
        case _:
            return mutated(data, rng)


class Evidence:
    """COSE_Sign1 of every domain, by a signer who holds a key and signs anything."""

    def __init__(self) -> None:
        self._identity = Identity(b"e" * 32)
        self._network = Network("fuzz", closed=True, roots=(self._identity.peer,))
        self._book = Book(self._network)

    def make(self, rng: Random) -> tuple[Domain, bytes]:
        domain = rng.choice(list(DOMAINS))
        statement = wild(DOMAINS[domain], rng)
        if isinstance(statement, Admission | Delegation | Revocations) and rng.random() < 0.8:
            statement = msgspec.structs.replace(statement, net=self._network.net)
        if isinstance(statement, Admission) and rng.random() < 0.3:
            delegation = seal(self._identity, Domain.DELEGATION, wild(Delegation, rng))
            statement = msgspec.structs.replace(statement, delegation=delegation)
        whole = seal(self._identity, domain, statement)
        match rng.randrange(6):
            case 0:
                return domain, whole
            case 1:
                return rng.choice(list(DOMAINS)), whole
            case 2:
                return domain, whole[:1] + grafted_cbor(whole[1:], rng)
            case 3:
                return domain, self._signed(domain, grafted_cbor(codec.decode_cbor(whole[1:])[2], rng))
            case _:
                return domain, mutated(whole, rng)

    def _signed(self, domain: Domain, body: bytes) -> bytes:
        """A true signature over a false body."""
        protected = codec.cbor({1: -8, 3: domain.value, 4: bytes(self._identity.peer)})
        signature = self._identity.sign(_to_be_signed(protected, body))
        return _COSE_SIGN1_TAG + codec.cbor([protected, {}, body, signature])

    def take(self, case: tuple[Domain, bytes]) -> None:
        domain, data = case
        with suppress(*BLAMED):
            open_sealed(DOMAINS[domain], domain, data)
        with suppress(*BLAMED):
            if domain is Domain.STATIC_KEY:
                certificate.read(data, net=NET, now=WALL)
            elif domain is Domain.MANIFEST:
                open_manifest(data, publishers={self._identity.peer}, now=WALL)
            elif domain is Domain.ADMISSION:
                self._book.judge(self._identity.peer, data, WALL)
            elif domain is Domain.DELEGATION:
                read_delegation(data, network=self._network, now=WALL)
            elif domain is Domain.REVOCATIONS:
                self._book.learn(data, WALL)


class Watch:
    """A clock that stands still."""

    def now(self) -> Instant:
        return T0

    def wall(self) -> WallTime:
        return WALL


class Ear:
    """Live-signed messages of every type, by a sender who may sign."""

    def __init__(self) -> None:
        self._sequence = 0
        self._scope = Digest(b"s" * 32)
        self._voice = Voice(SERVER, NET, Watch(), Random(0).randbytes)

    def make(self, rng: Random) -> tuple[int, bytes]:
        live = rng.choice(list(LIVE))
        body = packed(LIVE[live], rng)
        self._sequence += 1
        header = Header(
            net=NET, scope=self._scope, sender=CLIENT.peer, receiver=SERVER.peer, boot=wild_id(8, rng),
            sequence=rng.choice((self._sequence, 0, 2**64 - 1)), sent=rng.choice((WALL, 0, 2**64 - 1)),
            expires=rng.choice((WallTime(WALL + 1000), 0, 2**64 - 1)), nonce=wild_id(16, rng), kind=live,
        ).pack()  # fmt: skip
        data = header + CLIENT.sign(_live_signed(header, body)) + body
        return live, mutated(data, rng) if rng.random() < 0.5 else data

    def take(self, case: tuple[int, bytes]) -> None:
        live, data = case
        with suppress(*BLAMED):
            self._voice.hear(LIVE[live], live, data, self._scope)


def wild_id(size: int, rng: Random) -> Any:
    return rng.choice((bytes(size), rng.randbytes(size)))


class Records:
    """Signed records and their bodies."""

    def make(self, rng: Random) -> bytes:
        kind, salt = rng.choice((*RecordKind, 0, 99, -1)), b"salt"
        own = rng.choice((mutable_topic(NET, CLIENT.peer, salt), presence_topic(NET, CLIENT.peer)))
        record = Record(
            kind, rng.choice((_TARGET, own, Digest(wild_id(32, rng)))), CLIENT.peer, rng.choice((0, 1, 2, 2**63)),
            rng.choice((WALL, WALL + 1000, WALL + 1000, 0, -(2**63), 2**63)), rng.random() < 0.2,
            packed(BODIES.get(RecordKind(kind) if kind in BODIES else RecordKind.OFFER, Offer), rng),
        )  # fmt: skip
        match rng.randrange(4):
            case 0:
                encoded = grafted_msgpack(codec.encode(record), rng)
                return CLIENT.sign(b"haif/record/v1\0" + NET + encoded) + encoded
            case 1:
                return mutated(sign_record(CLIENT, NET, record), rng)
            case _:
                return sign_record(CLIENT, NET, record)

    def take(self, data: bytes) -> None:
        with suppress(*BLAMED):
            record = open_record(data, net=NET, now=WALL).payload
            if record.kind in BODIES:
                codec.decode(BODIES[RecordKind(record.kind)], record.body)


_ENVELOPE = Envelope(NetKey(b"k" * 32))


class Addresses:
    """Packed contacts and addresses of the DHT."""

    def make(self, rng: Random) -> bytes:
        return mutated(pack_contacts(contacts(rng), 1000), rng)

    def take(self, data: bytes) -> None:
        with suppress(*BLAMED):
            unpack_contacts(data)
        with suppress(*BLAMED):
            unpack_address(data[32:])


class Nearby:
    """What comes to our sockets beside the DHT's datagrams: beacons, sealed ones among them, and a router's answers."""

    _SOURCES = (("192.168.1.7", 50_000), ("fe80::7", 50_000), ("198.51.100.7", 1), ("127.0.0.1", 65_535))

    def make(self, rng: Random) -> tuple[bytes, Address]:
        source = rng.choice(self._SOURCES)
        if rng.random() < 0.5:
            head = bytes((0, 128 + rng.randrange(3))) + rng.choice((bytes(2), rng.randbytes(2))) + rng.randbytes(4)
            inside = rng.choice((_HOME[1].to_bytes(2, "big"), rng.randbytes(2)))
            data = head + rng.choice((inside + rng.randbytes(6), rng.randbytes(4)))
        else:
            port, sent = rng.choice((0, 4000, 65_535)), rng.choice((WALL, WallTime(0), WallTime(2**64 - 1)))
            data = sign_beacon(CLIENT, NET, port, sent)
            data = rng.choice((data, _ENVELOPE.seal(data)))
        return (mutated(data, rng) if rng.random() < 0.7 else data), source

    def take(self, case: tuple[bytes, Address]) -> None:
        data, source = case
        with suppress(*BLAMED):
            data = _ENVELOPE.open(data)
        with suppress(*BLAMED):
            if concerns(data, NET):
                open_beacon(data, source, net=NET, now=WALL)
        with suppress(*BLAMED):
            natpmp.read_address(data)
        for opcode in natpmp.Opcode:
            with suppress(*BLAMED):
                natpmp.read_mapped(data, opcode, _HOME[1])


def contacts(rng: Random) -> list[Contact]:
    hosts = ("192.0.2.1", "198.51.100.7", "2001:db8::1", "127.0.0.1", "10.0.0.1")
    return [
        Contact(PeerId(rng.randbytes(32)), (rng.choice(hosts), rng.randrange(1, 65_536)))
        for _ in range(rng.randrange(21))
    ]


_HOME = ("203.0.113.5", 4000)
_TARGET = Digest(b"t" * 31 + b"\1")  # of offers


class Directory:
    """A DHT node that looks for something, and an attacker who sees all it sends."""

    def __init__(self) -> None:
        self._now = T0
        self._node = Node(SERVER, NET, entropy=Random(1).randbytes, wall=lambda: WALL, now=T0)
        self._node.stand(("2a10::7", 4000))
        self._asked: list[tuple[bytes, Address]] = []
        self._token = b"t" * 16  # the attacker's, from `_HOME` for `_TARGET`
        self._begun = 0
        self._begin()

    def _begin(self) -> None:
        """Look for somebody, publish something, read what there is."""
        self._begun += 1
        self._node.join([("192.0.2.9", 9)], self._now)
        self._node.gather(_TARGET, self._now)
        self._node.watch(_TARGET, self._now)
        record = Record(1, _TARGET, SERVER.peer, self._begun, WALL + 60_000, False, b"")
        self._node.publish(sign_record(SERVER, NET, record), self._now)
        asked = dht.write_query(b"12345678", dht.Command.FIND, _TARGET, b"", None, CLIENT.peer)
        self._drain()
        self._node.receive(asked, _HOME, self._now)
        for data, to in self._drain():
            if to == _HOME and data[1] == dht.Kind.REPLY:
                self._token = dht.open_reply(dht.read(data), net=NET, query=asked)[1].token

    def make(self, rng: Random) -> tuple[bytes, Address]:
        source = (f"192.0.2.{rng.randrange(1, 250)}", rng.randrange(1, 65_536))
        query, where = rng.choice(self._asked[-20:])
        match rng.randrange(8):
            case 0:
                return mutated(query, rng), source
            case 1:
                tid = rng.choice((query[2:10], rng.randbytes(8)))
                return dht.write(dht.Kind.QUERY, tid, packed(dht.Query, rng)[:1000] or b"\0"), source
            case 2:
                return self._query(rng), rng.choice((source, _HOME))
            case 3:
                return dht.write(rng.choice(list(dht.Kind)), query[2:10], rng.randbytes(rng.randrange(1, 100))), where
            case 4:
                return mutated(self._reply(query, rng), rng), where
            case 5:
                return self._notice(query, rng), rng.choice((source, where))
            case _:
                return self._reply(query, rng), where

    def _query(self, rng: Random) -> bytes:
        put = dht.Put(Records().make(rng)[:800], rng.choice((b"", bytes(32), b"t")), rng.choice((None, 0, 1, -1)))
        argument = codec.encode(put) if rng.random() < 0.5 else rng.randbytes(rng.choice((0, 8, 16, 7, 800)))
        query = dht.Query(
            rng.choice((0, 1, 2, 3, 3, 4, 4, 5, 6, 6, -1)), rng.choice((_TARGET, Digest(wild_id(32, rng)))), argument,
            rng.choice((None, self._token, self._token, b"")),
            rng.choice((None, CLIENT.peer, CLIENT.peer, PeerId(wild_id(32, rng)))), b"",
        )  # fmt: skip
        return dht.write(dht.Kind.QUERY, rng.randbytes(8), codec.encode(query)[:1190])

    def _reply(self, query: bytes, rng: Random) -> bytes:
        reply = dht.Reply(
            rng.choice((pack_address(("203.0.113.1", 5)), b"", rng.randbytes(7))), b"t" * 16,
            contacts=pack_contacts(contacts(rng), 700), held=rng.choice((0, 5, 2**63, -1)),
            records=tuple(Records().make(rng)[:300] for _ in range(rng.choice((0, 0, 1)))), more=rng.random() < 0.3,
            refused=rng.choice(("", "", "over_quota", "nonsense")),
            elsewhere=rng.choice((b"", pack_address(("2a10::1", 5)), rng.randbytes(19))),
        )  # fmt: skip
        body = codec.encode(reply)
        if rng.random() < 0.3:
            body = grafted_msgpack(body, rng)
        signer = rng.choice((CLIENT, Identity(rng.randbytes(32))))
        body = signer.peer + body[:1000]
        return dht.write(dht.Kind.REPLY, query[2:10], signer.sign(dht._signed(NET, query, body)) + body)

    def _notice(self, query: bytes, rng: Random) -> bytes:
        """News of a record, under the handle of a watch where the query was one."""
        handle = rng.choice((query[2:10], query[-8:], rng.randbytes(8)))
        return dht.sign_notice(CLIENT, NET, handle, _TARGET, Records().make(rng)[:900])

    def take(self, case: tuple[bytes, Address]) -> None:
        self._now = Instant(self._now + 0.02)
        self._node.receive(*case, self._now)
        self._drain()
        if (due := self._node.wake_at()) is not None and due <= self._now:
            self._node.wake(self._now)
            self._drain()
        if self._node.busy < 3:
            self._begin()

    def _drain(self) -> list[tuple[bytes, Address]]:
        sent = list(self._node.outgoing(self._now))
        self._asked += [item for item in sent if item[0][1] == dht.Kind.QUERY]
        del self._asked[:-40]
        while event := self._node.next_event():
            if isinstance(event, Carry | Elsewhere):  # as if there were no other family
                self._node.crossed(event, self._now)
        assert len(self._node.table) <= 2000
        assert len(self._node.store) <= limits.RECORDS_STORED_MAX
        return sent


class OpenSession:
    """An established session, whose peer holds the keys and sends any frames it likes; we call it and serve it."""

    _pair: ClassVar[Pair | None] = None

    def __init__(self) -> None:
        if OpenSession._pair is None:
            OpenSession._pair = Pair()
            OpenSession._pair.settle()
        self._now = T0
        self._renew()

    def _renew(self) -> None:
        assert OpenSession._pair is not None
        ours, theirs = OpenSession._pair.server._handshake, OpenSession._pair.client._handshake
        assert theirs.split is not None
        self._machine = SessionMachine(ours, self._now)
        self._machine._open(ours.established, self._now)
        self._sealer = Sealer(theirs.split.sending, self._now)
        self._next = 1
        self._taken = 0
        self._streams: list[int] = []
        self._answers = cycle(
            (self._answer, self._fail, self._stream, self._leave, self._answer_long, self._stream_on, self._drip)
        )
        for _ in range(6):
            self._call()
        self._machine.outgoing(self._now)

    def _call(self) -> None:
        """Every second call is a stream; now and then an argument is long, or a call is given up again."""
        rpc, number = self._machine.rpc, len(self._streams)
        if rpc.going_away or self._machine.closed is not None:
            return
        argument = bytes(40_000 if number % 5 == 4 else 8)
        self._streams.append(
            rpc.call("m", argument, Deadline.after(20, self._now), self._now, streaming=number % 2 == 1)
        )
        if number % 4 == 3:
            rpc.cancel(self._streams[number - 2], self._now)

    def make(self, rng: Random) -> bytes:
        if rng.random() < 0.1:
            return mutated(b"".join(self._frame(rng) for _ in range(rng.randrange(1, 6))), rng)
        return b"".join(self._frame(rng) for _ in range(rng.randrange(1, 6)))

    def _frame(self, rng: Random) -> bytes:
        kind = rng.choice(_KINDS) if rng.random() < 0.97 else rng.randrange(256)
        payload = FRAMES[kind](rng) if kind in FRAMES else rng.randbytes(rng.randrange(20))
        if kind in {Kind.REQ, Kind.OPEN} and rng.random() < 0.9:
            stream, self._next = self._next, self._next + 2
        elif kind in {Kind.RES, Kind.DATA, Kind.FIN, Kind.ERR, Kind.RST} and rng.random() < 0.8:
            stream = rng.choice(self._streams[-6:])
        else:
            stream = rng.choice((0, 1, 2, 4, 6, self._next - 2, self._next, rng.randrange(2**32)))
        stream = 0 if kind in wire.SESSION_KINDS and rng.random() < 0.9 else max(stream, 0)
        if rng.random() < 0.02:
            payload = mutated(payload, rng)
        return wire.HEADER.pack(kind, stream, len(payload[:60_000])) + payload[:60_000]

    def take(self, plaintext: bytes) -> None:
        sealed = self._sealer.seal(plaintext[: limits.NOISE_PLAINTEXT_BYTES_MAX])
        machine = self._machine
        machine.receive(LENGTH.pack(len(sealed)) + sealed, self._now)
        while (event := machine.next_event()) is not None:
            if isinstance(event, Called):
                next(self._answers)(event.stream)
            elif isinstance(event, Received):
                machine.rpc.consumed(event.stream, event.message)
        while machine.outgoing(self._now):
            pass
        self._taken += 1
        self._now = Instant(self._now + (7.0 if self._taken % 16 == 0 else 0.01))
        if (due := machine.wake_at()) is not None and due <= self._now:
            machine.wake(self._now)
        if machine.rpc.calls_made < 6:
            self._call()
        assert machine.rpc.calls_served <= limits.STREAMS_PER_SESSION_MAX
        assert machine.rpc.calls_made <= 12
        assert machine.rpc.out.size <= 1 << 20
        if machine.closed is not None:
            assert isinstance(machine.closed, BLAMED), machine.closed
            self._renew()
        elif plaintext[:1] == bytes((Kind.REKEY,)) or self._sealer.nonce > 200:
            self._renew()

    def _answer(self, stream: int) -> None:
        self._machine.rpc.reply(stream, b"r" * 100)

    def _fail(self, stream: int) -> None:
        self._machine.rpc.fail(stream, Overloaded("no"))

    def _stream(self, stream: int) -> None:
        self._machine.rpc.send(stream, b"s" * 3000)
        self._machine.rpc.finish(stream)

    def _leave(self, stream: int) -> None:
        """Nothing: the handler takes its time."""

    def _answer_long(self, stream: int) -> None:
        self._machine.rpc.accept(stream, Traffic.BULK, Deadline.after(1, self._now))
        self._machine.rpc.reply(stream, b"l" * 40_000)

    def _stream_on(self, stream: int) -> None:
        """As much as the peer has room for, and no end."""
        self._machine.rpc.accept(stream, Traffic.TOKENS, Deadline.after(10, self._now))
        for _ in range(20):
            if self._machine.rpc.writable(stream):
                self._machine.rpc.send(stream, b"o" * 5000)

    def _drip(self, stream: int) -> None:
        self._machine.rpc.send(stream, b"d" * 20_000)
        self._machine.rpc.finish(stream)


def _request(rng: Random) -> bytes:
    size = rng.choice((0, 0, 5, 5, 100, 20_000, 1 << 20, 2**32 - 1))
    method = rng.choice(("m", "m", "jobs.submit", "x" * 64))
    metadata = rng.choice((None, None, {"k": "v"}, {str(n): "v" for n in range(8)}))
    piece = bytes(size) if size <= 100 else rng.randbytes(rng.choice((0, 1, 16_000)))
    return request_head(size, rng.choice((0, 1, 1000, 2**32 - 1)), method, metadata) + piece


def _message(rng: Random) -> bytes:
    size = rng.choice((0, 5, 5, 100, 20_000, 1 << 20, 2**32 - 1))
    return wire.SIZE.pack(size) + (bytes(size) if size <= 100 else rng.randbytes(rng.choice((0, 1, 16_000))))


def _piece(rng: Random) -> bytes:
    return _message(rng) if rng.random() < 0.7 else rng.randbytes(rng.choice((0, 1, 100, 4000, 16_000)))


def _failed(rng: Random) -> bytes:
    return packed(wire.Failure, rng)


def _credit(rng: Random) -> bytes:
    return wire.SIZE.pack(rng.choice((0, 1, 100, 1 << 20, 2**32 - 1)))


def _nothing(_rng: Random) -> bytes:
    return b""


def _moves(rng: Random) -> bytes:
    return rng.randrange(3).to_bytes(4, "little")


FRAMES: dict[int, Callable[[Random], bytes]] = {
    Kind.REQ: _request, Kind.OPEN: _request, Kind.RES: _message, Kind.DATA: _piece, Kind.ERR: _failed,
    Kind.REJECT: _failed, Kind.CREDIT: _credit, Kind.CANCEL: _nothing, Kind.FIN: _nothing, Kind.RST: _nothing,
    Kind.PING: _nothing, Kind.PONG: _nothing, Kind.GOAWAY: _nothing, Kind.REKEY: _nothing, Kind.PATH: _moves,
}  # fmt: skip
_KINDS = (*Kind, Kind.REQ, Kind.REQ, Kind.REQ, Kind.OPEN, Kind.OPEN, Kind.DATA, Kind.DATA, Kind.CREDIT)


class Heads:
    """What is read of a frame before it reaches the calls: heads, errors, control words, first bytes."""

    def make(self, rng: Random) -> bytes:
        data = rng.choice((_request, _failed, _refused, _message))(rng)[:2000]
        return mutated(data, rng) if rng.random() < 0.8 else data

    def take(self, data: bytes) -> None:
        for read in (
            lambda: RequestHead(data, 0, len(data)),
            lambda: read_failure(data),
            lambda: read_control(data, 0),
            lambda: list(wire.parse(data)),
            lambda: read_first(_PREAMBLE, data, 0),
        ):
            with suppress(*BLAMED):
                read()


def _refused(rng: Random) -> bytes:
    return rng.choice(
        (retry(_puzzle(rng)), rejection(Overloaded("no")), b"\xff\xff" + struct.pack(">H", 9) + _failed(rng))
    )


def _puzzle(rng: Random) -> Puzzle:
    return Puzzle(
        rng.choice((0, 1000, 2**32 - 1)), rng.randrange(2**64), rng.choice((0, 4, 20, 21, 255)), rng.randbytes(16)
    )


def _firsts() -> list[bytes]:
    """The first bytes of true diallers: strangers, acquaintances, and those with a ticket."""
    ticket = Puzzle(1000, 1, 0, bytes(16)).pack() + bytes(8)
    ways = [{}, {"known": SERVER_KEY}, {"ticket": ticket}, {"known": SERVER_KEY, "ticket": ticket}]
    return [wire_pair.dialling(**way).begin() for way in ways]


def further_path() -> bytes:
    """What a session's next path begins with."""
    scope = Digest(b"h" * 32)
    paths = Paths(Split(b"a" * 32, b"b" * 32, scope), initiator=True, now=T0)
    return paths.ask(preamble(NET, pattern=FURTHER_PATH), T0)[1]


_FIRSTS = _firsts()
_PREAMBLE = _FIRSTS[2][:12]
_MAC_KEY = mac_key(NET, SERVER.peer)


class Doorstep:
    """A listener, and diallers who may know whom they dial."""

    def __init__(self) -> None:
        self._now = T0
        self._at = wire_pair.door()

    def make(self, rng: Random) -> bytes:
        first = rng.choice(_FIRSTS)
        if rng.random() < 0.1:
            return mutated(rng.choice((further_path(), preamble(NET, pattern=CIRCUIT) + rng.randbytes(20))), rng)
        match rng.randrange(6):
            case 0:
                return self._knowing(first[:12], first[28:65], rng.randbytes(rng.randrange(65, 200)))
            case 1:
                rest = first[12 + 16 :]
                return self._knowing(first[:12], b"", mutated(rest[2:], rng)[:4000])
            case 2:
                return self._introduced(rng)
            case _:
                return mutated(first, rng)

    def _knowing(self, opening: bytes, ticket: bytes, message: bytes) -> bytes:
        return write_first(_MAC_KEY, opening, ticket if opening[7] else b"", message)

    def _introduced(self, rng: Random) -> bytes:
        """A dialler who shakes hands properly and then introduces itself with anything."""
        opening = _FIRSTS[1][:12]
        noise = NoiseHandshake(
            Pattern.IK, initiator=True, static=CLIENT_KEY, prologue=b"haif-rpc\0" + opening + NET + SERVER.peer,
            entropy=lambda count: b"\7" * count, remote=SERVER_KEY.public,
        )  # fmt: skip
        return self._knowing(opening, b"", noise.write(packed(Introduction, rng)[:4000]))

    def take(self, data: bytes) -> None:
        self._now = Instant(self._now + 1.0)
        machine = SessionMachine(wire_pair.listening(at=self._at), self._now)
        machine.receive(data, self._now)
        machine.outgoing(self._now)
        machine.wake(Instant(self._now + 10.0))
        assert machine.closed is None or isinstance(machine.closed, BLAMED), machine.closed
        assert len(machine._rest) <= len(data)


class Dialled:
    """Whoever answers where we dialled: the peer itself with a strange Hello, or anybody."""

    def __init__(self) -> None:
        self._opening = _FIRSTS[1][:12]

    def make(self, rng: Random) -> bytes:
        if rng.random() < 0.5:
            return mutated(_refused(rng), rng) if rng.random() < 0.5 else _refused(rng)
        noise = NoiseHandshake(
            Pattern.IK, initiator=False, static=SERVER_KEY, prologue=b"haif-rpc\0" + self._opening + NET + SERVER.peer,
            entropy=lambda count: b"\7" * count,
        )  # fmt: skip
        noise.read(_FIRSTS[1][30:])
        message = noise.write(packed(Hello, rng)[:4000])
        return (
            mutated(LENGTH.pack(len(message)) + message, rng)
            if rng.random() < 0.3
            else LENGTH.pack(len(message)) + message
        )

    def take(self, data: bytes) -> None:
        machine = SessionMachine(wire_pair.dialling(known=SERVER_KEY), T0)
        machine.receive(data, T0)
        machine.outgoing(T0)
        machine.wake(Instant(T0 + 10.0))
        assert machine.closed is None or isinstance(machine.closed, BLAMED), machine.closed


class Tickets:
    """Tickets shown at the gate."""

    def __init__(self) -> None:
        self._gate = Gate(NET, SERVER.peer, b"k" * 32, T0)
        self._now = T0

        self._puzzle: Puzzle | None = None

    def make(self, rng: Random) -> tuple[bytes, str]:
        puzzle = self._puzzle if self._puzzle is not None and rng.random() < 0.5 else _puzzle(rng)
        ticket = rng.choice((b"", puzzle.pack() + rng.randbytes(8), rng.randbytes(37)))
        return ticket, rng.choice(("192.0.2.1", f"198.51.{rng.randrange(256)}.{rng.randrange(256)}", "2001:db8::1"))

    def take(self, case: tuple[bytes, str]) -> None:
        ticket, source = case
        self._now = Instant(self._now + 0.001)
        first = First(_PREAMBLE, mac(_MAC_KEY, _PREAMBLE, ticket, b"m"), ticket, b"m")
        with suppress(*BLAMED):
            self._puzzle = self._gate.judge(first, source, self._now) or self._puzzle
        assert len(self._gate._spent) <= limits.PUZZLES_SPENT_MAX
        assert max(len(self._gate._sources), len(self._gate._subnets)) <= limits.GATE_SOURCES_MAX


class Files:
    """What a person chose and is told about: the file of a network, a model's header, a request to a running worker."""

    def make(self, rng: Random) -> tuple[int, bytes]:
        door = rng.randrange(3)
        if door == 0:
            data = codec.encode_evidence(wild(Invitation, rng))
            return door, rng.choice((mutated, grafted_cbor))(data, rng) if rng.random() < 0.8 else data
        data = _header(rng) if door == 1 else b'{"verb":"unload","model":"haif-demo","seconds":1.5}\n'
        return door, mutated(data, rng)

    def take(self, case: tuple[int, bytes]) -> None:
        door, data = case
        with suppress(*BLAMED, Misuse):
            (read_invitation, lambda raw: read_header(BytesIO(raw), len(raw)), read_request)[door](data)


def _header(rng: Random) -> bytes:
    """The beginning of a GGUF: one key of each kind of value."""

    def text(size: int) -> bytes:
        return struct.pack("<Q", size) + rng.randbytes(min(size, 40))

    kinds = [*range(13)]
    rng.shuffle(kinds)
    parts = [b"GGUF", struct.pack("<IQQ", rng.choice((2, 3)), 1, rng.choice((len(kinds), rng.randrange(1 << 20))))]
    for kind in kinds:
        parts += [text(rng.randrange(20)), struct.pack("<I", kind)]
        if kind == 9:
            parts.append(struct.pack("<IQ", rng.randrange(13), rng.choice((0, 3, 1 << 40))))
        parts.append(text(rng.randrange(30)) if kind in (8, 9) else rng.randbytes(rng.choice((1, 2, 4, 8))))
    return b"".join(parts)


class Pipe:
    """The pipe between worker and engine child."""

    def __init__(self) -> None:
        self._reader = FrameReader()

    def make(self, rng: Random) -> tuple[bool, bytes]:
        order = rng.random() < 0.3
        data = packed(Order if order else Report, rng)
        whole = len(data).to_bytes(4, "big") + data
        return order, mutated(whole, rng) if rng.random() < 0.2 else whole

    def take(self, case: tuple[bool, bytes]) -> None:
        order, data = case
        try:
            bodies = self._reader.feed(data)
        except BLAMED:
            self._reader = FrameReader()
            return
        for body in bodies:
            with suppress(*BLAMED):
                frame((decode_order if order else decode_report)(body))
        if self._reader.waiting > 100_000:
            self._reader = FrameReader()


# name: how it is made, and how many of a hundred inputs it gets
DOORS: dict[str, tuple[Callable[[], Any], int]] = {
    "call": (lambda: Decoder(*CALLS), 25),
    "body": (lambda: Decoder(*BODIES.values(), *HANDSHAKE, *DATAGRAMS, *ENGINE, wire.Failure), 14),
    "head": (Heads, 13),
    "session": (OpenSession, 14),
    "pipe": (Pipe, 8),
    "record": (Records, 5),
    "address": (Addresses, 4),
    "nearby": (Nearby, 2),
    "ticket": (Tickets, 3),
    "directory": (Directory, 3),
    "evidence": (Evidence, 3),
    "live": (Ear, 2),
    "file": (Files, 1),
    "doorstep": (Doorstep, 2),
    "dialled": (Dialled, 1),
}
assert sum(share for _, share in DOORS.values()) == 100
