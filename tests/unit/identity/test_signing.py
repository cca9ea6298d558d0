"""Signatures cover everything, say what they are for, and are checked before anything is parsed."""

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from haif.base import limits
from haif.base.clock import Instant, WallTime
from haif.base.codec import Message
from haif.base.errors import BadSignature, Expired, HaifError, Malformed, Oversize, Reason, Replayed, WrongState
from haif.base.ids import BootId, Digest, NetId, Nonce, PeerId
from haif.identity import certificate
from haif.identity.keys import Identity, NoiseKey
from haif.identity.replay import ReplayGuard
from haif.identity.signing import NO_SCOPE, Domain, Header, open_live, open_sealed, seal, sign_live
from haif.identity.voice import Voice

ALICE, BOB = Identity(b"a" * 32), Identity(b"b" * 32)
NET = NetId(b"n" * 32)
NOW = WallTime(1_700_000_000_000)
SCOPE = Digest(b"s" * 32)


class Note(Message, frozen=True):
    text: str
    number: int


NOTE = Note("hello", 1)


def header(**changes: object) -> Header:
    fields: dict[str, object] = {
        "net": NET, "scope": SCOPE, "sender": ALICE.peer, "receiver": BOB.peer, "boot": BootId(b"b" * 8),
        "sequence": 1, "sent": NOW, "expires": WallTime(NOW + 30_000), "nonce": Nonce(b"x" * 16), "kind": 5,
    }  # fmt: skip
    return Header(**(fields | changes))  # type: ignore[arg-type]


def heard(data: bytes, **changes: object) -> Note:
    arguments: dict[str, object] = {"net": NET, "scope": SCOPE, "receiver": BOB.peer, "now": NOW}
    return open_live(Note, 5, data, **(arguments | changes)).body  # type: ignore[arg-type]


class FixedClock:
    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> Instant:
        return Instant(self.time / 1000)

    def wall(self) -> WallTime:
        return self.time


# --- portable evidence ------------------------------------------------------------------------------------------------


def test_sealed_evidence_opens_for_everyone() -> None:
    verified = open_sealed(Note, Domain.RECEIPT, seal(ALICE, Domain.RECEIPT, NOTE))
    assert verified.payload == NOTE
    assert verified.signer == ALICE.peer


def test_sealed_evidence_is_a_cose_sign1_that_others_can_check() -> None:
    message = cbor2.loads(seal(ALICE, Domain.RECEIPT, NOTE))
    assert message.tag == 18
    protected, unprotected, payload, signature = message.value
    assert cbor2.loads(protected) == {1: -8, 3: Domain.RECEIPT.value, 4: bytes(ALICE.peer)}
    assert dict(unprotected) == {}
    assert cbor2.loads(payload) == {1: "hello", 2: 1}
    signed = cbor2.dumps(["Signature1", protected, b"", payload])  # RFC 9052 §4.4
    Ed25519PublicKey.from_public_bytes(bytes(ALICE.peer)).verify(signature, signed)


def test_no_bit_of_sealed_evidence_can_change_unnoticed() -> None:
    evidence = seal(ALICE, Domain.RECEIPT, NOTE)
    for bit in range(8 * len(evidence)):
        changed = bytearray(evidence)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(HaifError):
            open_sealed(Note, Domain.RECEIPT, bytes(changed))


def test_evidence_of_one_domain_is_refused_in_another() -> None:
    with pytest.raises(BadSignature) as caught:
        open_sealed(Note, Domain.MANIFEST, seal(ALICE, Domain.RECEIPT, NOTE))
    assert caught.value.reason is Reason.BAD_SIGNATURE


def test_evidence_must_be_signed_by_whom_we_expect() -> None:
    with pytest.raises(BadSignature, match="wanted"):
        open_sealed(Note, Domain.RECEIPT, seal(ALICE, Domain.RECEIPT, NOTE), signer=BOB.peer)


def test_a_signature_cannot_be_moved_to_another_key() -> None:
    message = cbor2.loads(seal(ALICE, Domain.RECEIPT, NOTE))
    _, _, payload, signature = message.value
    stolen = cbor2.dumps({1: -8, 3: Domain.RECEIPT.value, 4: bytes(BOB.peer)}, canonical=True)
    with pytest.raises(BadSignature):
        open_sealed(Note, Domain.RECEIPT, cbor2.dumps(cbor2.CBORTag(18, [stolen, {}, payload, signature])))


def test_an_unprotected_header_is_refused() -> None:
    protected, _, payload, signature = cbor2.loads(seal(ALICE, Domain.RECEIPT, NOTE)).value
    with pytest.raises(Malformed):
        open_sealed(Note, Domain.RECEIPT, cbor2.dumps(cbor2.CBORTag(18, [protected, {4: b"x"}, payload, signature])))


# --- live messages ----------------------------------------------------------------------------------------------------


def test_a_live_message_is_heard_by_whom_it_is_for() -> None:
    assert heard(sign_live(ALICE, header(), NOTE)) == NOTE


@pytest.mark.parametrize(
    ("elsewhere", "error"),
    [
        ({"net": NetId(b"m" * 32)}, WrongState),
        ({"scope": NO_SCOPE}, WrongState),
        ({"receiver": ALICE.peer}, WrongState),
        ({"now": WallTime(NOW + limits.CLOCK_SKEW_MS + 1)}, Expired),
        ({"now": WallTime(NOW - limits.CLOCK_SKEW_MS - 1)}, Expired),
    ],
)
def test_a_live_message_is_refused_elsewhere_and_at_other_times(
    elsewhere: dict[str, object], error: type[HaifError]
) -> None:
    with pytest.raises(error) as caught:
        heard(sign_live(ALICE, header(), NOTE), **elsewhere)
    assert caught.value.reason in (Reason.WRONG_STATE, Reason.EXPIRED)


def test_a_live_message_of_another_type_is_refused() -> None:
    with pytest.raises(WrongState):
        heard(sign_live(ALICE, header(kind=6), NOTE))


def test_a_live_message_may_not_claim_a_long_life() -> None:
    with pytest.raises(Expired):
        heard(sign_live(ALICE, header(expires=WallTime(NOW + limits.LIVE_MESSAGE_TTL_MS + 1)), NOTE))


def test_no_bit_of_a_live_message_can_change_unnoticed() -> None:
    data = sign_live(ALICE, header(), NOTE)
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(HaifError):
            heard(bytes(changed))


def test_short_and_long_live_messages_are_refused() -> None:
    data = sign_live(ALICE, header(), NOTE)
    for length in range(len(data)):
        with pytest.raises(HaifError):
            heard(data[:length])
    with pytest.raises(Oversize):
        heard(bytes(limits.MESSAGE_BYTES_MAX + 1))


def test_a_voice_numbers_what_it_says_and_an_ear_hears_it_once() -> None:
    clock = FixedClock()
    counter = iter(range(256))
    alice = Voice(ALICE, NET, clock, lambda n: bytes([next(counter)]) * n)
    bob = Voice(BOB, NET, clock, bytes)
    first, nonce = alice.say(BOB.peer, SCOPE, 5, NOTE)
    second, other = alice.say(BOB.peer, SCOPE, 5, NOTE)
    assert nonce != other
    assert bob.hear(Note, 5, second, SCOPE).body == NOTE
    assert bob.hear(Note, 5, first, SCOPE).body == NOTE
    for again in (first, second):
        with pytest.raises(Replayed) as caught:
            bob.hear(Note, 5, again, SCOPE)
        assert caught.value.reason is Reason.REPLAYED


# --- replay -----------------------------------------------------------------------------------------------------------


def test_every_number_in_the_window_counts_once_in_any_order() -> None:
    guard = ReplayGuard(width=8)
    for number in (5, 3, 9, 2, 4, 8, 6, 7):
        guard.accept(header(sequence=number))
    for number in (9, 8, 7, 6, 5, 4, 3, 2):
        with pytest.raises(Replayed):
            guard.accept(header(sequence=number))


def test_what_is_older_than_the_window_is_refused() -> None:
    guard = ReplayGuard(width=8)
    guard.accept(header(sequence=20))
    with pytest.raises(Replayed):
        guard.accept(header(sequence=12))
    guard.accept(header(sequence=13))


def test_a_leap_ahead_forgets_the_old_window_but_not_itself() -> None:
    guard = ReplayGuard(width=8)
    guard.accept(header(sequence=1))
    guard.accept(header(sequence=1_000_000))
    with pytest.raises(Replayed):
        guard.accept(header(sequence=1_000_000))
    with pytest.raises(Replayed):
        guard.accept(header(sequence=1))


def test_a_new_start_counts_only_if_it_is_later() -> None:
    guard = ReplayGuard()
    guard.accept(header(boot=BootId(b"1" * 8), sent=WallTime(NOW)))
    guard.accept(header(boot=BootId(b"2" * 8), sent=WallTime(NOW + 1)))
    with pytest.raises(Replayed):
        guard.accept(header(boot=BootId(b"1" * 8), sequence=2, sent=WallTime(NOW + 1)))


def test_the_guard_forgets_the_least_recent_sender_first() -> None:
    guard = ReplayGuard(senders_max=2)
    peers = [PeerId(bytes([n]) * 32) for n in range(3)]
    for peer in peers:
        guard.accept(header(sender=peer))
    assert len(guard) == 2
    with pytest.raises(Replayed):
        guard.accept(header(sender=peers[2]))


# --- certificates -----------------------------------------------------------------------------------------------------


def test_a_certificate_binds_a_noise_key_to_a_peer() -> None:
    noise = NoiseKey(b"k" * 32)
    evidence = certificate.certify(ALICE, NET, noise.public, NOW)
    assert certificate.check(evidence, net=NET, noise_key=noise.public, now=NOW) == ALICE.peer


def test_a_certificate_holds_for_one_key_one_network_and_a_week() -> None:
    noise, other = NoiseKey(b"k" * 32), NoiseKey(b"l" * 32)
    evidence = certificate.certify(ALICE, NET, noise.public, NOW)
    with pytest.raises(BadSignature):
        certificate.check(evidence, net=NET, noise_key=other.public, now=NOW)
    with pytest.raises(BadSignature):
        certificate.check(evidence, net=NetId(bytes(32)), noise_key=noise.public, now=NOW)
    for moment in (NOW - limits.CLOCK_SKEW_MS - 1, NOW + limits.CERTIFICATE_TTL_MS):
        with pytest.raises(Expired):
            certificate.check(evidence, net=NET, noise_key=noise.public, now=WallTime(moment))


def test_secrets_do_not_show() -> None:
    assert (b"a" * 32).hex() not in repr(ALICE)
    assert repr(NoiseKey(b"k" * 32)).startswith("NoiseKey(")
