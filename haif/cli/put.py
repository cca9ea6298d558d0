"""`haif dht put`: keep a value in the directory, under its own name or under ours."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from haif import config
from haif.base import limits
from haif.base.errors import Misuse, Timeout, from_reason
from haif.cli.visit import joined, show

if TYPE_CHECKING:
    from haif.base.ids import NetId
    from haif.identity.keys import Identity
    from haif.protocol.records import Record

KEY: Final = "values"  # the key under which values are kept unless another is named
_TTL_SECONDS: Final = limits.VALUE_TTL_MS_MAX // 1000


def add(put: argparse.ArgumentParser) -> None:
    """The flags of the verb."""
    what = put.add_mutually_exclusive_group(required=True)
    what.add_argument("value", nargs="?", metavar="VALUE", help="the value, as text")
    what.add_argument("--file", type=Path, metavar="PATH", help="a file with the value")
    what.add_argument("--withdraw", action="store_true", help="put nothing in the place of the value of this name")
    put.add_argument("--as", dest="label", metavar="NAME", help="keep it at value:PEER/NAME, where it may be replaced")
    put.add_argument("--key", default=KEY, metavar="KEY", help=f"the key that signs it (default: {KEY}; made if new)")
    put.add_argument("--sequence", type=int, metavar="N", help="a higher one replaces it (default: the time)")
    put.add_argument("--replaces", type=int, metavar="N", help="only where the value of this sequence is; 0: none")
    put.add_argument(
        "--ttl", type=int, default=_TTL_SECONDS, metavar="SECONDS", help="its life (default: a day, the longest)"
    )


async def put(arguments: argparse.Namespace) -> int:
    """Keep a value. Raises what every node refused it with, or `Timeout` if none answered."""
    from haif.identity.service import Keyring
    from haif.protocol.records import RecordKind, sign_record
    from haif.runtime.clock import entropy

    _check(arguments)
    settings = config.load(config.NodeSettings, vars(arguments))
    async with joined(arguments) as (dht, net):
        identity = Keyring(settings.folder / "keys").load_or_create(arguments.key, entropy)
        record = _record(arguments, net, identity)
        stored = await dht.put(sign_record(identity, net, record), replaces=arguments.replaces)
    if not stored.by and stored.refused:
        raise from_reason(stored.refused[0], f"every node that should keep it refused it: {stored.refused[0]}")
    if not stored.by:
        raise Timeout("no node that should keep it answered")
    result: dict[str, Any] = {
        "kind": RecordKind(record.kind).name.lower(),
        "topic": str(record.topic),
        "owner": str(record.owner),
        "sequence": record.sequence,
        "expires": record.expires,
        "stored": len(stored.by),
        "refused": dict(Counter(stored.refused)),
    }
    where = f"value:{record.owner}/{arguments.label}" if arguments.label is not None else str(record.topic)
    count = f"{len(stored.by)} node{'s' if len(stored.by) > 1 else ''}"
    kept = f"{count} kept it; read it with\n  haif dht get {where}"
    show(arguments, result, lambda: f"{count} took it back: {where}" if arguments.withdraw else kept)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.label is None and (arguments.withdraw or arguments.replaces is not None or arguments.sequence):
        raise Misuse("a value without --as NAME never changes: it cannot be withdrawn, replaced or given a sequence")
    if not 1 <= arguments.ttl <= _TTL_SECONDS:
        raise Misuse(f"--ttl is a number of seconds from 1 to {_TTL_SECONDS}")
    if arguments.sequence is not None and not 0 <= arguments.sequence < 2**63:
        raise Misuse("--sequence is a number from 0 to 2^63 - 1")
    if arguments.label is not None and not 1 <= len(arguments.label.encode()) <= limits.VALUE_SALT_BYTES_MAX:
        raise Misuse(f"--as: a name has 1 to {limits.VALUE_SALT_BYTES_MAX} bytes")


def _record(arguments: argparse.Namespace, net: NetId, identity: Identity) -> Record:
    from haif.base import codec
    from haif.protocol.records import Record, RecordKind, Value, immutable_topic, mutable_topic
    from haif.runtime.clock import SystemClock

    now = SystemClock().wall()
    if arguments.label is None:
        kind, body = RecordKind.IMMUTABLE, _value(arguments)
        topic = immutable_topic(net, body)
    else:
        kind, salt = RecordKind.MUTABLE, arguments.label.encode()
        topic = mutable_topic(net, identity.peer, salt)
        body = codec.encode(Value(salt, _value(arguments)))
    return Record(
        kind=kind,
        topic=topic,
        owner=identity.peer,
        sequence=now if arguments.sequence is None else arguments.sequence,
        expires=now + arguments.ttl * 1000,
        tombstone=arguments.withdraw,
        body=body,
    )


def _value(arguments: argparse.Namespace) -> bytes:
    if arguments.withdraw:
        return b""
    value: bytes
    if arguments.file is None:
        value = arguments.value.encode()
    else:
        try:
            with arguments.file.open("rb") as file:
                value = file.read(limits.VALUE_BYTES_MAX + 1)
        except OSError as error:
            raise Misuse(f"--file: {arguments.file} cannot be read: {error.strerror}") from None
    if len(value) > limits.VALUE_BYTES_MAX:
        raise Misuse(f"a value has at most {limits.VALUE_BYTES_MAX} bytes: keep a digest here, and the rest elsewhere")
    return value
