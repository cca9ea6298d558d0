"""Attacks on bytes: signatures and encodings of evidence, trees of transcripts, tickets and receipts used again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from random import Random
from typing import Any, Final

import cbor2

from haif.base import codec
from haif.base.clock import WallTime
from haif.base.hashing import digest
from haif.base.ids import Digest, PeerId
from haif.identity.keys import Identity
from haif.identity.signing import Domain, evidence_digest, open_sealed, seal
from haif.proof import merkle
from haif.protocol.inference import Run, tokens_digest
from haif.protocol.receipts import Countersignature, Receipt, check_bundle, check_receipt, evidence_of, text_of
from haif.testing.attacks.arena import Arena
from haif.testing.attacks.contest import Case, Tell
from haif.testing.attacks.court import refused
from haif.testing.attacks.liar import GATEWAY, ORCHESTRATOR, WORKER, File, Order, Said, ask, compute, order, sign
from haif.testing.attacks.tally import Trial
from haif.worker.ticket import Redeemed, check_ticket

TREES: Final = 513  # leaves of the largest tree that is tried
_GROUP_ORDER: Final = 2**252 + 27742317777372353535851937790883648493  # of Ed25519
_ATTEMPT: Final = 2  # the key of the field `attempt` in a receipt
_LONG_MAP: Final = 0xB8  # a CBOR map whose length takes a byte of its own (RFC 8949, section 3.1)
_STRANGER: Final = Identity(b"?" * 32)

Given = tuple[Order, Said, File]
Attack = Callable[[Random, Given, Given], Callable[[], object]]
"""A check that must not hold, of one honest answer and another."""


def used_again() -> Iterator[Case]:
    """Evidence and tickets that were good once, or elsewhere."""
    for name, attack in (
        ("a ticket, redeemed twice", _redeemed), ("a ticket out of its time", _late),
        ("a receipt for another job", _elsewhere), ("a receipt in another's file", _swapped("receipt")),
        ("a reservation in another's file", _swapped("reservation")),
        ("a countersignature under another receipt", _swapped("countersignature")),
        ("another's tokens", _swapped("tokens")), ("another's request", _swapped("request")),
    ):  # fmt: skip
        yield Case(name, _checked(attack), tries=200)


def rewritten() -> Iterator[Case]:
    """Statements with anything about them changed."""
    for name, attack in (
        ("a bit of a statement", _bit), ("a bit of a transcript", _transcript_bit),
        ("the signature taken off", _unsigned),
        ("the other form of the signature", _malleable), ("another's signature", _other_signer),
        ("signed for another purpose", _other_domain), ("not the shortest encoding", _long_encoding),
        ("one field more", _field_more), ("a field twice", _field_twice), ("a float for a number", _float),
        ("bytes behind it", _longer), ("a label that is not so", _label),
    ):  # fmt: skip
        yield Case(name, _checked(attack), tries=400)


def _checked(attack: Attack) -> Callable[[Arena, Random, int, Tell], Awaitable[None]]:
    async def play(arena: Arena, random: Random, tries: int, tell: Tell) -> None:
        engine = await arena.engine()
        given = [await _given(arena, random) for _ in range(2)]
        for place in range(tries):
            one, other = given if place % 2 else reversed(given)
            tell(Trial(True, refused(lambda one=one: check_bundle(one[2]), "verify")))  # type: ignore[misc]
            tell(Trial(False, refused(attack(random, one, other), "verify")))
        assert engine.model.exact, "what is attacked here is judged bit by bit"

    return play


async def _given(arena: Arena, random: Random) -> Given:
    engine = await arena.engine()
    what = order(random, arena.model, ask(random))
    said = await compute(engine, what)
    return what, said, sign(what, said, engine.model)


# --- 13 ---------------------------------------------------------------------------------------------------------------


def _redeemed(_: Random, one: Given, __: Given) -> Callable[[], object]:
    terms = one[0].ticket.reservation.payload
    known = Redeemed()
    known.redeem(terms, GATEWAY.peer)
    return lambda: known.redeem(terms, GATEWAY.peer)


def _late(random: Random, one: Given, _: Given) -> Callable[[], object]:
    what = one[0]
    run = Run(what.ticket.reservation.evidence, what.encoded)
    now = WallTime(what.ticket.reservation.payload.expires + random.randrange(1 << 40))
    return lambda: check_ticket(
        run,
        me=WORKER.peer,
        gateway=GATEWAY.peer,
        orchestrators=[ORCHESTRATOR.peer],
        models=[what.model.digest],
        now=now,
    )


def _elsewhere(_: Random, one: Given, other: Given) -> Callable[[], object]:
    tokens, said = one[1].tokens, _receipt(one)
    return lambda: check_receipt(
        evidence_of(one[2]["receipt"]),
        other[0].ticket.reservation,
        tokens_digest(tokens),
        said.output_text,
        len(tokens),
    )


def _swapped(name: str) -> Attack:
    return lambda _, one, other: lambda: check_bundle(one[2] | {name: other[2][name]})


# --- 15 ---------------------------------------------------------------------------------------------------------------


def _bit(random: Random, one: Given, _: Given) -> Callable[[], object]:
    name = random.choice(("receipt", "reservation", "countersignature"))
    return _with(one, name, _flipped(random, evidence_of(one[2][name])))


def _transcript_bit(random: Random, one: Given, _: Given) -> Callable[[], object]:
    name = random.choice(("request", "tokens"))
    return _with(one, name, _flipped(random, evidence_of(one[2][name])))


def _unsigned(_: Random, one: Given, __: Given) -> Callable[[], object]:
    protected, unprotected, body, _signature = _parts(one)
    return _sealed(one, [protected, unprotected, body, b""])


def _malleable(_: Random, one: Given, __: Given) -> Callable[[], object]:
    *head, signature = _parts(one)
    scalar = int.from_bytes(signature[32:], "little") + _GROUP_ORDER
    return _sealed(one, [*head, signature[:32] + scalar.to_bytes(32, "little")])


def _other_signer(_: Random, one: Given, __: Given) -> Callable[[], object]:
    protected, unprotected, body, _signature = _parts(one)
    text = codec.cbor(["Signature1", protected, b"", body])
    return _sealed(one, [protected, unprotected, body, _STRANGER.sign(text)])


def _other_domain(_: Random, one: Given, __: Given) -> Callable[[], object]:
    return _resigned(one, _parts(one)[2], Domain.COUNTERSIGNATURE)


def _long_encoding(_: Random, one: Given, __: Given) -> Callable[[], object]:
    body = _parts(one)[2]
    return _resigned(one, bytes([_LONG_MAP, len(_fields(one))]) + body[1:])


def _field_more(_: Random, one: Given, __: Given) -> Callable[[], object]:
    fields = _fields(one)
    return _resigned(one, codec.cbor(fields | {len(fields) + 1: 1}))


def _field_twice(_: Random, one: Given, __: Given) -> Callable[[], object]:
    body, again = _parts(one)[2], codec.cbor({_ATTEMPT: 1})[1:]
    return _resigned(one, bytes([body[0] + 1]) + body[1:] + again)


def _float(_: Random, one: Given, __: Given) -> Callable[[], object]:
    return _resigned(one, cbor2.dumps(_fields(one) | {_ATTEMPT: 1.0}))


def _longer(random: Random, one: Given, _: Given) -> Callable[[], object]:
    return _leagued(one, evidence_of(one[2]["receipt"]) + random.randbytes(1 + random.randrange(9)))


def _label(random: Random, one: Given, _: Given) -> Callable[[], object]:
    name = random.choice(("job", "worker", "model_digest"))
    return lambda: check_bundle(one[2] | {name: str(PeerId(random.randbytes(32)))})


def _receipt(one: Given) -> Receipt:
    return open_sealed(Receipt, Domain.RECEIPT, evidence_of(one[2]["receipt"])).payload


def _parts(one: Given) -> list[Any]:
    protected, _, body, signature = cbor2.loads(evidence_of(one[2]["receipt"])).value
    return [protected, {}, body, signature]


def _fields(one: Given) -> dict[int, Any]:
    return dict(cbor2.loads(_parts(one)[2]))


def _sealed(one: Given, parts: list[Any]) -> Callable[[], object]:
    return _leagued(one, b"\xd2" + codec.cbor(parts))


def _leagued(one: Given, raw: bytes) -> Callable[[], object]:
    """A receipt that a gateway in league with the worker countersigns, whatever it is."""
    hand = seal(GATEWAY, Domain.COUNTERSIGNATURE, Countersignature(_receipt(one).job, evidence_digest(raw)))
    return lambda: check_bundle(one[2] | {"receipt": text_of(raw), "countersignature": text_of(hand)})


def _resigned(one: Given, body: bytes, domain: Domain = Domain.RECEIPT) -> Callable[[], object]:
    """Another body, signed well by the worker itself."""
    protected = codec.cbor({1: -8, 3: domain.value, 4: bytes(WORKER.peer)})
    signature = WORKER.sign(codec.cbor(["Signature1", protected, b"", body]))
    return _sealed(one, [protected, {}, body, signature])


def _with(one: Given, name: str, raw: bytes) -> Callable[[], object]:
    return lambda: check_bundle(one[2] | {name: text_of(raw)})


def _flipped(random: Random, raw: bytes) -> bytes:
    bit = random.randrange(8 * len(raw))
    return raw[: bit // 8] + bytes([raw[bit // 8] ^ 1 << bit % 8]) + raw[bit // 8 + 1 :]


# --- 16 ---------------------------------------------------------------------------------------------------------------

Shown = tuple[Digest, int, int, list[Digest]]
"""What is to be in a tree: the leaf, its place, how many leaves there are, and the path to the root."""


def trees() -> Iterator[Case]:
    """Inclusion in a tree of each size up to `TREES`, with anything about it changed."""
    for name, forge in _FORGERIES.items():
        yield Case(name, _shown(forge), tries=TREES)


def _shown(forge: Callable[[list[Digest], Shown], Shown]) -> Callable[[Arena, Random, int, Tell], Awaitable[None]]:
    async def play(arena: Arena, random: Random, tries: int, tell: Tell) -> None:
        del arena  # no engine is needed
        for size in range(1, tries + 1):
            leaves = [merkle.leaf(number.to_bytes(4, "big")) for number in range(size)]
            place = random.randrange(size)
            honest = (leaves[place], place, size, merkle.inclusion(leaves, place))
            tell(Trial(True, refused(_included(honest, merkle.root(leaves)), "tree")))
            forged = forge(leaves, honest)
            if forged != honest:  # a tree of one leaf has no other place
                tell(Trial(False, refused(_included(forged, merkle.root(leaves)), "tree")))

    return play


def _included(shown: Shown, root: Digest) -> Callable[[], object]:
    return lambda: merkle.check_inclusion(*shown, root)


def _last_twice(leaves: list[Digest], _: Shown) -> Shown:
    """As trees would have it that double an odd node (CVE-2012-2459)."""
    count = len(leaves)
    return leaves[-1], count, count + 1, merkle.inclusion([*leaves, leaves[-1]], count)


_NOTHING: Final = digest("haif v1 nothing", b"")
_FORGERIES: Final[dict[str, Callable[[list[Digest], Shown], Shown]]] = {
    "another leaf": lambda _, shown: (_NOTHING, *shown[1:]),
    "an empty window": lambda _, shown: (merkle.leaf(b""), *shown[1:]),
    "another window": lambda leaves, shown: (leaves[shown[1] - 1], *shown[1:]),
    "another place": lambda _, shown: (shown[0], (shown[1] + 1) % shown[2], *shown[2:]),
    "a node as a leaf": lambda leaves, shown: (merkle.root(leaves), shown[1], max(2, shown[2]), shown[3][1:]),
    "a shorter path": lambda _, shown: (*shown[:3], shown[3][:-1]),
    "a longer path": lambda _, shown: (*shown[:3], [*shown[3], _NOTHING]),
    "a tree half as large": lambda _, shown: (*shown[:2], shown[2] // 2, shown[3]),
    "a tree with its last leaf twice": _last_twice,
}
