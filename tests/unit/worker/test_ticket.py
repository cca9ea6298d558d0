"""A worker answers only for a reservation that is whole, its own, fresh, and for just this request."""

from typing import Any

import msgspec
import pytest

from haif.base import codec
from haif.base.clock import WallTime
from haif.base.conversation import Turn
from haif.base.errors import (
    BadSignature,
    Expired,
    Forbidden,
    HaifError,
    InvalidRequest,
    Malformed,
    Reason,
    Replayed,
    WrongState,
)
from haif.base.ids import JobId, ModelDigest, Nonce, Seed
from haif.base.sampling import Sampling
from haif.identity.keys import Identity
from haif.identity.signing import Domain, seal
from haif.protocol.embeddings import EmbedRequest, embed_digest
from haif.protocol.inference import Request, Run, request_digest
from haif.protocol.jobs import Reservation
from haif.worker.ticket import Redeemed, check_embed_ticket, check_ticket

ORCHESTRATOR, WORKER, GATEWAY, STRANGER = (Identity(bytes([n]) * 32) for n in range(1, 5))
MODEL = ModelDigest(b"m" * 32)
NOW = WallTime(1_700_000_000_000)
REQUEST = Request(Nonce(b"n" * 16), [Turn("user", "hello")], None, 50, Sampling(0.0), [])
BODY = codec.encode(REQUEST)
TERMS = Reservation(
    JobId(b"j" * 16), 1, GATEWAY.peer, WORKER.peer, MODEL, request_digest(BODY), 100, Seed(b"s" * 32),
    None, b"", NOW - 10, NOW + 30_000, NOW + 60_000,
)  # fmt: skip


def check(terms: Reservation = TERMS, body: bytes = BODY, signer: Identity = ORCHESTRATOR, resumed=(), **changes: Any):
    arguments: dict[str, Any] = {
        "me": WORKER.peer, "gateway": GATEWAY.peer, "orchestrators": {ORCHESTRATOR.peer}, "models": [MODEL], "now": NOW,
    }  # fmt: skip
    run = Run(seal(signer, Domain.RESERVATION, terms), body, list(resumed))
    return check_ticket(run, **(arguments | changes))


def altered(**changes: Any) -> Reservation:
    return msgspec.structs.replace(TERMS, **changes)


def test_a_whole_ticket_is_honoured() -> None:
    ticket = check()
    assert ticket.request == REQUEST
    assert ticket.reservation.payload == TERMS
    assert check(altered(resumed=2), resumed=[5, 6]).resumed == [5, 6]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: check(signer=STRANGER), Forbidden),
        (lambda: check(me=STRANGER.peer), WrongState),
        (lambda: check(gateway=STRANGER.peer), WrongState),
        (lambda: check(models=[ModelDigest(b"x" * 32)]), WrongState),
        (lambda: check(now=WallTime(TERMS.expires)), Expired),
        (lambda: check(now=WallTime(NOW - 31_000)), Expired),
        (lambda: check(altered(deadline=NOW)), Expired),
        (lambda: check(body=BODY + b"\x00"), BadSignature),
        (lambda: check(altered(tokens_max=49)), InvalidRequest),
        (lambda: check(resumed=[5]), WrongState),
        (lambda: check(altered(resumed=2), resumed=[5]), WrongState),
        (lambda: check(altered(resumed=1), resumed=[-1]), Malformed),
        (lambda: check(altered(resumed=1), resumed=[1 << 40]), Malformed),
    ],
)
def test_a_ticket_that_does_not_hold_is_refused(call: Any, error: type[HaifError]) -> None:
    with pytest.raises(error):
        call()


@pytest.mark.parametrize("chat_and_text", [(None, None), ([Turn("user", "x")], "x")])
def test_a_request_is_either_a_chat_or_a_text(chat_and_text: Any) -> None:
    chat, text = chat_and_text
    body = codec.encode(msgspec.structs.replace(REQUEST, chat=chat, text=text))
    with pytest.raises(InvalidRequest) as caught:
        check(altered(request_digest=request_digest(body)), body)
    assert caught.value.reason is Reason.INVALID_REQUEST


def test_a_request_that_is_no_request_is_malformed() -> None:
    body = codec.encode_any([1, 2, 3])
    with pytest.raises(Malformed):
        check(altered(request_digest=request_digest(body)), body)


def test_no_bit_of_a_reservation_can_change() -> None:
    evidence = seal(ORCHESTRATOR, Domain.RESERVATION, TERMS)
    for bit in range(0, 8 * len(evidence), 3):
        changed = bytearray(evidence)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(HaifError):
            check_ticket(
                Run(bytes(changed), BODY), me=WORKER.peer, gateway=GATEWAY.peer, orchestrators={ORCHESTRATOR.peer},
                models=[MODEL], now=NOW,
            )  # fmt: skip


def test_a_ticket_is_redeemed_once() -> None:
    redeemed = Redeemed()
    redeemed.redeem(TERMS, GATEWAY.peer)
    redeemed.redeem(altered(attempt=2), GATEWAY.peer)
    with pytest.raises(Replayed):
        redeemed.redeem(TERMS, GATEWAY.peer)


def test_the_memory_of_tickets_is_bounded() -> None:
    redeemed = Redeemed(most=2)
    for attempt in (1, 2, 3):
        redeemed.redeem(altered(attempt=attempt), GATEWAY.peer)
    with pytest.raises(Replayed):
        redeemed.redeem(altered(attempt=3), GATEWAY.peer)


EMBED = EmbedRequest(Nonce(b"n" * 16), None, ["hello"], None, None)
EMBED_BODY = codec.encode(EMBED)
HERE: dict[str, Any] = {
    "me": WORKER.peer, "gateway": GATEWAY.peer, "orchestrators": {ORCHESTRATOR.peer}, "models": {MODEL}, "now": NOW,
}  # fmt: skip


def test_a_ticket_for_vectors_is_honoured_for_just_those() -> None:
    sealed = seal(ORCHESTRATOR, Domain.RESERVATION, altered(request_digest=embed_digest(EMBED_BODY), tokens_max=0))
    assert check_embed_ticket(Run(sealed, EMBED_BODY), **HERE).request == EMBED
    with pytest.raises(WrongState):
        check_embed_ticket(Run(sealed, EMBED_BODY), **(HERE | {"models": {ModelDigest(b"x" * 32)}}))
    with pytest.raises(BadSignature):
        check_embed_ticket(Run(sealed, EMBED_BODY + b"x"), **HERE)


def test_a_ticket_for_text_is_none_for_vectors() -> None:
    for digest, wanted in ((request_digest, check_embed_ticket), (embed_digest, check_ticket)):
        for body in (BODY, EMBED_BODY):
            sealed = seal(ORCHESTRATOR, Domain.RESERVATION, altered(request_digest=digest(body)))
            with pytest.raises(BadSignature):
                wanted(Run(sealed, body), **HERE)
