r"""The datagrams of the DHT: at most 1,184 bytes, or 1,200 with an envelope; replies signed over the query they answer.

    datagram = 0xA1 ‖ kind u8 ‖ tid 8 ‖ rest
    QUERY    rest = msgpack of Query, padded to 400 bytes where the reply may be long and no token is held
    REPLY    rest = signature 64 ‖ body;  body = responder 32 ‖ msgpack of Reply
             signature = Ed25519(responder, "haif/dht-reply/v1\0" ‖ network 32 ‖ tid ‖ BLAKE3 of the query ‖ body)
    RETRY    rest = token 16: ask again with this token (the reply would be too long for an unproven address, or too
             many are asked for by such)
    ERROR    rest = code u8
    DIALBACK rest = nonce 16: you asked us to show that this port of yours can be reached; the tid is your query's
    NOTICE   rest = signature 64 ‖ body;  body = holder 32 ‖ record;  tid = the handle its watcher chose
             signature = Ed25519(holder, "haif/dht-notice/v1\0" ‖ network 32 ‖ handle ‖ topic 32 ‖ body)

A NOTICE tells a watcher of a record that was just stored; nobody answers it. Who signs stands in front of what is
parsed, so that the signature is checked first. RETRY and ERROR are not signed: they cost their sender nothing, and the
random tid with the address is proof enough for what they can do, which is to make us ask once more or give up.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Final, NamedTuple

from haif.base import codec, limits
from haif.base.codec import Message
from haif.base.errors import Malformed, Oversize
from haif.base.hashing import digest
from haif.base.ids import Digest, NetId, PeerId
from haif.dht.envelope import OVERHEAD_BYTES
from haif.identity import keys
from haif.identity.keys import SIGNATURE_BYTES, Identity, Verify

VERSION: Final = 0xA1
BYTES_MAX: Final = limits.DATAGRAM_BYTES_MAX - OVERHEAD_BYTES  # in every network, so that a closed one's envelope fits
TID_BYTES: Final = 8
TOKEN_BYTES: Final = 16
TICKET_BYTES: Final = 32
NONCE_BYTES: Final = 16
HEADER_BYTES: Final = 2 + TID_BYTES
SHORT_BYTES: Final = 8  # of a record's digest, in the list of records a reader already has
HANDLE_BYTES: Final = TID_BYTES  # by which a watcher knows its notices
_REPLY_DOMAIN: Final = b"haif/dht-reply/v1\0"
_NOTICE_DOMAIN: Final = b"haif/dht-notice/v1\0"
WAIT_MS_MAX: Final = math.ceil(limits.TICKET_WAIT_SECONDS_MAX * 1000)
_REPLY_MIN: Final = SIGNATURE_BYTES + PeerId.size
_NO_PADDING: Final = codec.encode_any(b"")  # how a query without any ends


class Kind(IntEnum):
    """What a datagram is."""

    QUERY = 0
    REPLY = 1
    RETRY = 2
    ERROR = 3
    DIALBACK = 4
    NOTICE = 5


_KINDS: Final = {kind.value: kind for kind in Kind}


class Command(IntEnum):
    """What a query asks for."""

    PING = 0  # are you there, and who are you
    FIND = 1  # the contacts closest to the argument (empty: the target), and how many records of the target you hold
    GET = 2  # the records of the target; the argument lists those the reader has (8 bytes each)
    PUT = 3  # keep this record; needs a token; the argument is a `Put`
    WATCH = 4  # as GET, and send me a NOTICE of what changes; needs a token; the argument is a handle, then the list
    DIALBACK = 5  # send this nonce to that port of the address you see me at; needs a token
    CARRY = 6  # publish this record in the directory of the other family, too (`crossing`); as PUT


_ANSWERED_AT_LENGTH: Final = frozenset({Command.FIND, Command.GET})


class ErrorCode(IntEnum):
    """Why there will be no reply."""

    UNSUPPORTED = 1
    OVERLOADED = 2


class Query(Message, frozen=True):
    """A question. `sender` is who claims to ask; nobody believes it before that peer has answered a ping."""

    command: int
    target: Digest
    argument: bytes
    token: bytes | None
    sender: PeerId | None
    padding: bytes


class Put(Message, frozen=True):
    """The argument of PUT and CARRY. `ticket` is what this node gave us to wait with.

    `replaces` is the sequence to follow, if any; 0: there should be no record of this owner yet.
    """

    record: bytes
    ticket: bytes = b""
    replaces: int | None = None


class Reply(Message, frozen=True):
    """An answer. `observed` is the asker's packed address; `refused` the public code of a refused PUT, else empty.

    Where a place must be waited for, `ticket` is to be shown in `wait_ms`. `elsewhere` is where the responder stands in
    the directory of the other family, packed; empty if it does not.
    """

    observed: bytes
    token: bytes
    contacts: bytes = b""
    held: int = 0
    records: tuple[bytes, ...] = ()
    more: bool = False
    refused: str = ""
    ticket: bytes = b""
    wait_ms: int = 0
    elsewhere: bytes = b""


class Datagram(NamedTuple):
    """A datagram whose length and header hold; `rest` is still untrusted and unparsed."""

    kind: Kind
    tid: bytes
    rest: bytes
    raw: bytes


def read(data: bytes) -> Datagram:
    """Check length, version and kind. Raises `Oversize` or `Malformed`."""
    if len(data) > BYTES_MAX:
        raise Oversize(f"a datagram of {len(data)} bytes is over the limit of {BYTES_MAX}")
    kind = _KINDS.get(data[1]) if len(data) > HEADER_BYTES and data[0] == VERSION else None
    if kind is None:
        raise Malformed("not a datagram of this protocol")
    return Datagram(kind, data[2:HEADER_BYTES], data[HEADER_BYTES:], data)


def write(kind: Kind, tid: bytes, rest: bytes) -> bytes:
    """A datagram's bytes."""
    data = bytes((VERSION, kind)) + tid + rest
    assert len(tid) == TID_BYTES, "a tid has one size"
    assert len(data) <= BYTES_MAX, "we keep our own limits"
    return data


def write_query(
    tid: bytes, command: Command, target: Digest, argument: bytes, token: bytes | None, sender: PeerId | None
) -> bytes:
    """A query, padded if its reply may be long and no token proves our address."""
    body = codec.encode(Query(command, target, argument, token, sender, b""))
    if token is None and command in _ANSWERED_AT_LENGTH:
        missing = limits.DHT_QUERY_BYTES_PADDED - HEADER_BYTES - len(body)
        if missing > 0:
            body = body[: -len(_NO_PADDING)] + codec.encode_any(bytes(missing))
    return write(Kind.QUERY, tid, body)


def read_query(datagram: Datagram) -> Query:
    """The query in a datagram. Raises `Malformed` or `Oversize`; an unknown command is left to the caller."""
    query = codec.decode_flat(Query, datagram.rest, size_max=BYTES_MAX)
    if query.token is not None and len(query.token) != TOKEN_BYTES:
        raise Malformed(f"a token has {TOKEN_BYTES} bytes", query.sender)
    if len(query.argument) % SHORT_BYTES and query.command in {Command.GET, Command.WATCH}:
        raise Malformed("a list of records has 8 bytes each", query.sender)
    if len(query.argument) not in {0, Digest.size} and query.command == Command.FIND:
        raise Malformed(f"a point of the key space has {Digest.size} bytes", query.sender)
    if query.command == Command.WATCH and len(query.argument) < HANDLE_BYTES:
        raise Malformed("a watch without a handle", query.sender)
    return query


def read_put(query: Query) -> Put:
    """The argument of a PUT or CARRY. Raises `Malformed` or `Oversize`."""
    put = codec.decode_flat(Put, query.argument, size_max=BYTES_MAX)
    if len(put.ticket) not in {0, TICKET_BYTES}:
        raise Malformed(f"a ticket has {TICKET_BYTES} bytes", query.sender)
    return put


def write_dialback(port: int, nonce: bytes) -> bytes:
    """The argument of a DIALBACK: port u16 ‖ nonce 16."""
    return port.to_bytes(2, "big") + nonce


def read_dialback(query: Query) -> tuple[int, bytes]:
    """The port and the nonce. Raises `Malformed` for another length or a port that is the system's."""
    port = int.from_bytes(query.argument[:2], "big")
    if len(query.argument) != 2 + NONCE_BYTES or port < limits.DIALBACK_PORT_MIN:
        raise Malformed("a dial back goes to an unprivileged port, with a nonce of 16 bytes", query.sender)
    return port, query.argument[2:]


def reply_bytes(reply: Reply) -> int:
    """How long the reply's datagram will be, known before it is signed."""
    return HEADER_BYTES + _REPLY_MIN + len(codec.encode(reply))


def sign_reply(identity: Identity, net: NetId, query: Datagram, reply: Reply) -> bytes:
    """The signed reply to exactly this query."""
    body = identity.peer + codec.encode(reply)
    return write(Kind.REPLY, query.tid, identity.sign(_signed(net, query.raw, body)) + body)


def open_reply(datagram: Datagram, *, net: NetId, query: bytes, verify: Verify = keys.verify) -> tuple[PeerId, Reply]:
    """Who answered our query, and what, once its signature holds. Raises `Malformed`, `Oversize` or `BadSignature`."""
    if len(datagram.rest) <= _REPLY_MIN:
        raise Malformed("a reply too short to be signed")
    signature, body = datagram.rest[:SIGNATURE_BYTES], datagram.rest[SIGNATURE_BYTES:]
    responder = PeerId(body[: PeerId.size])
    verify(responder, _signed(net, query, body), signature)
    reply = codec.decode_flat(Reply, body[PeerId.size :], size_max=BYTES_MAX)
    if len(reply.token) != TOKEN_BYTES:
        raise Malformed(f"a token has {TOKEN_BYTES} bytes", responder)
    if len(reply.ticket) not in {0, TICKET_BYTES} or not 0 <= reply.wait_ms <= WAIT_MS_MAX:
        raise Malformed("a ticket or a wait that no node gives", responder)
    return responder, reply


def sign_notice(identity: Identity, net: NetId, handle: bytes, topic: Digest, record: bytes) -> bytes:
    """Tell a watcher that a record was stored."""
    body = identity.peer + record
    return write(Kind.NOTICE, handle, identity.sign(_NOTICE_DOMAIN + net + handle + topic + body) + body)


def open_notice(datagram: Datagram, *, net: NetId, topic: Digest, verify: Verify = keys.verify) -> tuple[PeerId, bytes]:
    """Who tells us of which record, to be opened by the caller. Raises `Malformed` or `BadSignature`."""
    if len(datagram.rest) <= _REPLY_MIN:
        raise Malformed("a notice too short to be signed")
    signature, body = datagram.rest[:SIGNATURE_BYTES], datagram.rest[SIGNATURE_BYTES:]
    holder = PeerId(body[: PeerId.size])
    verify(holder, _NOTICE_DOMAIN + net + datagram.tid + topic + body, signature)
    return holder, body[PeerId.size :]


def _signed(net: NetId, query: bytes, body: bytes) -> bytes:
    tid = query[2:HEADER_BYTES]
    return _REPLY_DOMAIN + net + tid + digest("haif v1 dht query", query) + body


def short(record: bytes) -> bytes:
    """How a reader names a record it already has. A collision only costs the reader that one record from that node."""
    return digest("haif v1 dht record", record)[:SHORT_BYTES]
