"""A receipt binds worker, request, model and output; a bundle lets a stranger check all of it."""

import json
from typing import Any

import msgspec
import pytest

from haif.base.adapters import Adapted
from haif.base.errors import BadSignature, HaifError, Malformed
from haif.base.ids import Digest, JobId, ModelDigest
from haif.identity.keys import Identity
from haif.identity.signing import Domain, Verified, open_sealed, seal
from haif.protocol.inference import Chunk, OutputHash, tokens_digest
from haif.protocol.jobs import Reservation
from haif.protocol.receipts import Countersignature, Receipt, bundle, check_bundle, check_receipt
from haif.protocol.sandbox import Sandbox
from haif.protocol.seeds import drawn_seed

ORCHESTRATOR, WORKER, GATEWAY, STRANGER = (Identity(bytes([n]) * 32) for n in range(1, 5))
OUTPUT = OutputHash()
OUTPUT.add(Chunk(0, [5, 6], "Hello "))
OUTPUT.add(Chunk(2, [7], "world"))
SEED, PROOF = drawn_seed(ORCHESTRATOR, JobId(b"j" * 16), Digest(b"r" * 32))
TERMS = Reservation(
    JobId(b"j" * 16), 1, GATEWAY.peer, WORKER.peer, ModelDigest(b"m" * 32), Digest(b"r" * 32), 100,
    SEED, None, PROOF, 1, 2, 3,
)  # fmt: skip
RESERVATION = open_sealed(Reservation, Domain.RESERVATION, seal(ORCHESTRATOR, Domain.RESERVATION, TERMS))
RECEIPT = Receipt(
    TERMS.job, 1, GATEWAY.peer, RESERVATION.digest, TERMS.request_digest, TERMS.model, 9, 3, "stop",
    OUTPUT.tokens_digest(), OUTPUT.text_digest(), "engine", Sandbox("reduced", ["cgroups"]), 10, 20,
)  # fmt: skip


def sealed(receipt: Receipt = RECEIPT, signer: Identity = WORKER) -> bytes:
    return seal(signer, Domain.RECEIPT, receipt)


def received(evidence: bytes) -> Verified[Receipt]:
    return check_receipt(evidence, RESERVATION, OUTPUT.tokens_digest(), OUTPUT.text_digest(), OUTPUT.tokens)


def the_bundle(signer: Identity = GATEWAY) -> dict[str, str]:
    receipt = received(sealed())
    hand = seal(signer, Domain.COUNTERSIGNATURE, Countersignature(TERMS.job, receipt.digest))
    return bundle(receipt, RESERVATION, hand)


def test_the_receipt_for_what_was_received_holds() -> None:
    assert received(sealed()).payload == RECEIPT


def test_a_receipt_for_the_end_of_an_answer_names_the_tokens_it_was_given() -> None:
    given = tokens_digest([5, 6])
    ticket = open_sealed(
        Reservation, Domain.RESERVATION,
        seal(ORCHESTRATOR, Domain.RESERVATION, msgspec.structs.replace(TERMS, attempt=2, resumed=2)),
    )  # fmt: skip
    stated = msgspec.structs.replace(RECEIPT, attempt=2, reservation=ticket.digest, resumed=2, earlier=given)
    output = (OUTPUT.tokens_digest(), OUTPUT.text_digest(), OUTPUT.tokens)
    receipt = check_receipt(sealed(stated), ticket, *output, given)
    assert receipt.payload.resumed == 2
    for wrong in ({"resumed": 0}, {"earlier": None}, {"earlier": tokens_digest([5])}):
        with pytest.raises(BadSignature):
            check_receipt(sealed(msgspec.structs.replace(stated, **wrong)), ticket, *output, given)
    hand = seal(GATEWAY, Domain.COUNTERSIGNATURE, Countersignature(TERMS.job, receipt.digest))
    assert check_bundle(bundle(receipt, ticket, hand)).receipt == receipt
    alone = msgspec.structs.replace(RECEIPT, attempt=2, reservation=ticket.digest)
    claims = open_sealed(Receipt, Domain.RECEIPT, sealed(alone))
    hand = seal(GATEWAY, Domain.COUNTERSIGNATURE, Countersignature(TERMS.job, claims.digest))
    with pytest.raises(BadSignature):
        check_bundle(bundle(claims, ticket, hand))


@pytest.mark.parametrize(
    "change",
    [
        {"job": JobId(bytes(16))}, {"attempt": 2}, {"gateway": STRANGER.peer}, {"reservation": Digest(bytes(32))},
        {"request": Digest(bytes(32))}, {"model": ModelDigest(bytes(32))}, {"completion_tokens": 4},
        {"output_tokens": Digest(bytes(32))}, {"output_text": Digest(bytes(32))}, {"resumed": 1},
        {"earlier": Digest(bytes(32))},
    ],
)  # fmt: skip
def test_a_receipt_for_anything_else_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadSignature):
        received(sealed(msgspec.structs.replace(RECEIPT, **change)))


def test_a_receipt_must_be_the_reserved_workers() -> None:
    with pytest.raises(BadSignature):
        received(sealed(signer=STRANGER))


def test_chunks_follow_one_another() -> None:
    output = OutputHash()
    with pytest.raises(ValueError, match="was due"):
        output.add(Chunk(1, [5], "x"))


def test_chunking_does_not_change_the_digests() -> None:
    output = OutputHash()
    output.add(Chunk(0, [5, 6, 7], "Hello world"))
    assert (OUTPUT.tokens_digest(), OUTPUT.text_digest()) == (output.tokens_digest(), output.text_digest())


def test_a_bundle_can_be_checked_by_a_stranger() -> None:
    checked = check_bundle(the_bundle(), "Hello world")
    assert checked.receipt.signer == WORKER.peer
    assert checked.reservation.signer == ORCHESTRATOR.peer
    assert checked.countersignature.signer == GATEWAY.peer


def test_a_bundle_is_for_one_text() -> None:
    with pytest.raises(BadSignature, match="another answer"):
        check_bundle(the_bundle(), "Hello world!")


def test_no_bit_of_a_receipt_file_can_change() -> None:
    file = json.dumps(the_bundle(), separators=(",", ":")).encode()
    for bit in range(8 * len(file)):
        changed = bytearray(file)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            fields = json.loads(changed)
        except ValueError:
            continue
        if isinstance(fields, dict):
            with pytest.raises(HaifError):
                check_bundle(fields)


def test_another_gateways_hand_is_refused() -> None:
    with pytest.raises(BadSignature):
        check_bundle(the_bundle(STRANGER))


def test_labels_must_be_true() -> None:
    for label in ("job", "worker", "model_digest"):
        fields = the_bundle()
        with pytest.raises(BadSignature, match="labels"):
            check_bundle(fields | {label: "00" * (len(fields[label]) // 2)})


def test_what_kind_of_execution_it_was_is_signed_and_labelled() -> None:
    fields = the_bundle()
    assert fields["execution"] == "verifiable"
    with pytest.raises(BadSignature, match="labels"):
        check_bundle(fields | {"execution": "unverifiable"})


def test_parts_of_different_jobs_do_not_make_a_bundle() -> None:
    other = seal(ORCHESTRATOR, Domain.RESERVATION, msgspec.structs.replace(TERMS, issued=2))
    opened = open_sealed(Reservation, Domain.RESERVATION, other)
    hand = seal(GATEWAY, Domain.COUNTERSIGNATURE, Countersignature(TERMS.job, received(sealed()).digest))
    with pytest.raises(BadSignature, match="different jobs"):
        check_bundle(bundle(received(sealed()), opened, hand))


@pytest.mark.parametrize("change", [{"extra": "x"}, {"receipt": 5}, {"receipt": "%%%"}, {"receipt": "AB=="}])
def test_a_bundle_has_exactly_its_fields(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        check_bundle(the_bundle() | change)


def test_a_receipt_that_names_two_files_names_those_of_its_model() -> None:
    """Which model was reserved follows from both digests, so a swapped adapter is another model."""
    adapted = Adapted(ModelDigest(b"b" * 32), Digest(b"a" * 32))
    terms = msgspec.structs.replace(TERMS, model=adapted.model)
    ticket = open_sealed(Reservation, Domain.RESERVATION, seal(ORCHESTRATOR, Domain.RESERVATION, terms))
    honest = msgspec.structs.replace(RECEIPT, reservation=ticket.digest, model=adapted.model, adapted=adapted)
    output = (OUTPUT.tokens_digest(), OUTPUT.text_digest(), OUTPUT.tokens)
    assert check_receipt(sealed(honest), ticket, *output).payload == honest
    other = Adapted(adapted.base, Digest(b"z" * 32))
    for swapped in ({"adapted": other}, {"adapted": other, "model": other.model}, {"model": other.model}):
        with pytest.raises(BadSignature):
            check_receipt(sealed(msgspec.structs.replace(honest, **swapped)), ticket, *output)


def test_a_file_whose_receipt_names_two_files_that_are_not_its_model_is_refused() -> None:
    said = msgspec.structs.replace(RECEIPT, adapted=Adapted(ModelDigest(b"b" * 32), Digest(b"a" * 32)))
    receipt = open_sealed(Receipt, Domain.RECEIPT, sealed(said))
    hand = seal(GATEWAY, Domain.COUNTERSIGNATURE, Countersignature(TERMS.job, receipt.digest))
    with pytest.raises(BadSignature, match="a base and an adapter that are not its model"):
        check_bundle(bundle(receipt, RESERVATION, hand))
