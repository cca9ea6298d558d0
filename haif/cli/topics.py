"""How a person names a place in the directory, and how what is found there is shown."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from haif.base.errors import HaifError, Misuse

if TYPE_CHECKING:
    from haif.base.ids import Digest, NetId
    from haif.identity.signing import Verified
    from haif.protocol.reach import Place
    from haif.protocol.records import Record

TOPIC_HELP: Final = "offers:MODEL-DIGEST, presence:PEER, value:PEER/NAME, or a topic's 64 hex digits"


def parse_topic(text: str, net: NetId) -> Digest:
    """The topic that is meant. Raises `Misuse`."""
    from haif.base.ids import Digest, ModelDigest, PeerId
    from haif.protocol.records import mutable_topic, offer_topic, presence_topic

    kind, colon, rest = text.partition(":")
    if not colon:
        with suppress(ValueError):
            return Digest.parse(text)
    try:
        if kind == "offers":
            return offer_topic(net, ModelDigest.parse(rest))
        if kind == "presence":
            return presence_topic(net, PeerId.parse(rest))
        if kind == "value":
            owner, slash, name = rest.partition("/")
            if not slash:
                raise Misuse(f"{text!r} lacks the value's name: value:PEER/NAME")
            return mutable_topic(net, PeerId.parse(owner), name.encode())
    except ValueError as error:
        raise Misuse(str(error)) from None
    raise Misuse(f"{text!r} is no topic; a topic is {TOPIC_HELP}")


def body_of(record: Verified[Record]) -> dict[str, Any]:
    """What a record says, in plain values."""
    from haif.base import codec
    from haif.base.codec import Message
    from haif.protocol.offers import Offer, Presence
    from haif.protocol.records import RecordKind, Value

    body = record.payload.body
    kinds: dict[RecordKind, type[Message]] = {
        RecordKind.OFFER: Offer,
        RecordKind.PRESENCE: Presence,
        RecordKind.MUTABLE: Value,
    }
    if record.payload.kind == RecordKind.IMMUTABLE:
        return {"value": _text(body)}
    kind = kinds[RecordKind(record.payload.kind)]
    try:
        message = codec.decode(kind, body)
    except HaifError:
        return {"unreadable_bytes": len(body)}
    return {name: _plain(getattr(message, name)) for name in kind.__struct_fields__}


def _where(place: Place) -> str:
    """A place in one line: its addresses, then its relays."""
    from haif.cli.visit import text_of

    relays = [f"{relay.peer.short}@{text_of(relay.address)}" for relay in place.relays]
    return ",".join([*(text_of(address) for address in place.addresses), *relays])


def _plain(value: object) -> object:
    from haif.base.ids import FixedBytes
    from haif.protocol.reach import Place
    from haif.protocol.sandbox import Sandbox

    if isinstance(value, FixedBytes):
        return str(value)
    if isinstance(value, Sandbox):
        return str(value)
    if isinstance(value, Place):
        return _where(value)
    return _text(value) if isinstance(value, bytes) else value


def _text(value: bytes) -> str:
    """Text as it is, and anything else in hex."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return value.hex()
    return text if text.isprintable() else value.hex()
