"""The Noise adapter: the library's defects are closed, and our transport is the one of the specification."""

import gc
import weakref

import pytest
from noise.connection import Keypair, NoiseConnection

from haif.base import limits
from haif.base.clock import Instant
from haif.base.errors import BadSignature, HaifError, Malformed, Misuse, Oversize, PeerFault, Reason, WrongState
from haif.identity.keys import NoiseKey
from haif.wire import noise
from haif.wire.noise import HANDSHAKE_MESSAGE_BYTES_MAX, NoiseHandshake, Opener, Pattern, Sealer, rekeyed
from tests.support.wire_pair import entropy

A, B = NoiseKey(b"a" * 32), NoiseKey(b"b" * 32)
T0 = Instant(0.0)


def sides(prologue_b: bytes = b"p") -> tuple[NoiseHandshake, NoiseHandshake]:
    return (
        NoiseHandshake(Pattern.XX, initiator=True, static=A, prologue=b"p", entropy=entropy(1)),
        NoiseHandshake(Pattern.XX, initiator=False, static=B, prologue=prologue_b, entropy=entropy(2)),
    )


def finished() -> tuple[NoiseHandshake, NoiseHandshake]:
    a, b = sides()
    b.read(a.write())
    a.read(b.write())
    b.read(a.write())
    return a, b


def library(initiator: bool, key: NoiseKey) -> NoiseConnection:
    connection = NoiseConnection.from_name(noise.PROTOCOLS[Pattern.XX])
    connection.set_as_initiator() if initiator else connection.set_as_responder()
    connection.set_prologue(b"p")
    connection.set_keypair_from_private_bytes(Keypair.STATIC, key.key.private_bytes_raw())
    connection.start_handshake()
    return connection


def test_both_sides_end_with_the_same_keys_crosswise_and_the_same_hash() -> None:
    a, b = finished()
    assert (a.split.sending, a.split.receiving) == (b.split.receiving, b.split.sending)
    assert a.split.hash == b.split.hash


def test_the_same_entropy_gives_the_same_handshake() -> None:
    assert sides()[0].write() == sides()[0].write()


def test_payloads_of_messages_two_and_three_arrive() -> None:
    a, b = sides()
    assert b.read(a.write()) == b""
    assert a.read(b.write(b"two")) == b"two"
    assert b.read(a.write(b"three")) == b"three"


def test_a_bare_library_understands_our_transport_and_we_its() -> None:
    ours, theirs = sides()[0], library(False, B)
    theirs.read_message(ours.write())
    ours.read(bytes(theirs.write_message(b"")))
    theirs.read_message(ours.write())
    sealer, opener = Sealer(ours.split.sending, T0), Opener(ours.split.receiving)
    for text in (b"", b"one", b"x" * 1000):
        assert theirs.decrypt(sealer.seal(text)) == text
        assert opener.open(theirs.encrypt(text)) == text
    sealer.rekey()
    theirs.rekey_inbound_cipher()
    theirs.rekey_outbound_cipher()
    opener.rekey()
    assert theirs.decrypt(sealer.seal(b"after")) == b"after"
    assert opener.open(theirs.encrypt(b"after")) == b"after"


def test_defect_1_the_name_is_bytes_because_the_library_refuses_its_own_strings() -> None:
    assert isinstance(noise.PROTOCOLS[Pattern.XX], bytes)
    with pytest.raises(Exception, match="bytes"):
        NoiseConnection.from_name(noise.PROTOCOLS[Pattern.XX].decode())


def test_defect_2_what_is_sealed_always_fits_and_can_be_opened() -> None:
    a, b = finished()
    sealer, opener = Sealer(a.split.sending, T0), Opener(b.split.receiving)
    largest = b"x" * limits.NOISE_PLAINTEXT_BYTES_MAX
    sealed = sealer.seal(largest)
    assert len(sealed) == limits.NOISE_MESSAGE_BYTES_MAX
    assert opener.open(sealed) == largest
    with pytest.raises(Misuse) as caught:
        sealer.seal(largest + b"x")
    assert caught.value.reason is Reason.MISUSE


def test_defect_3_both_sides_learn_the_remote_static_key() -> None:
    a, b = finished()
    assert (a.remote, b.remote) == (B.public, A.public)


@pytest.mark.parametrize("position", [0, 31, 32, 79, 80, 95])
def test_defect_4_a_tampered_message_is_one_of_our_errors_and_kills_the_handshake(position: int) -> None:
    a, b = sides()
    b.read(a.write())
    good = b.write()
    bad = bytearray(good)
    bad[position] ^= 1
    with pytest.raises(BadSignature) as caught:
        a.read(bad)
    assert caught.value.reason is Reason.BAD_SIGNATURE
    with pytest.raises(Misuse, match="refused earlier"):
        a.write()
    with pytest.raises(Misuse):
        a.read(good)
    assert a.split is None


@pytest.mark.parametrize("point", [bytes(32), (1).to_bytes(32, "little")])
def test_defect_5_a_key_of_low_order_is_malformed(point: bytes) -> None:
    _, b = sides()
    b.read(point)
    with pytest.raises(Malformed) as caught:
        b.write()
    assert caught.value.reason is Reason.MALFORMED


def test_defect_5_a_message_of_any_shorter_length_is_a_peer_fault() -> None:
    a, b = sides()
    b.read(a.write())
    second = b.write(b"payload")
    for length in range(len(second)):
        fresh, other = sides()
        other.read(fresh.write())
        other.write(b"payload")
        with pytest.raises(PeerFault):
            fresh.read(second[:length])


def test_defect_6_a_payload_over_the_limit_is_neither_sent_nor_read() -> None:
    a, b = sides()
    with pytest.raises(Misuse):
        a.write(b"x" * (limits.HANDSHAKE_PAYLOAD_BYTES_MAX + 1))
    with pytest.raises(Oversize) as caught:
        b.read(bytes(HANDSHAKE_MESSAGE_BYTES_MAX + 1))
    assert caught.value.reason is Reason.OVERSIZE
    with pytest.raises(Misuse):
        b.read(a.write())


@pytest.mark.parametrize("defect", [b"psk", b"fallback"], ids=["defects 7 and 8", "defects 9 and 10"])
def test_defects_7_to_10_the_one_protocol_has_no_modifiers_and_no_deferred_pattern(defect: bytes) -> None:
    assert defect not in noise.PROTOCOLS[Pattern.XX]
    assert noise.PROTOCOLS[Pattern.XX].split(b"_")[1] == b"XX"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_defect_11_any_bytes_like_message_is_taken(kind: type) -> None:
    a, b = finished()
    sealed = Sealer(a.split.sending, T0).seal(b"text")
    assert Opener(b.split.receiving).open(kind(sealed)) == b"text"
    c, d = sides()
    assert d.read(kind(c.write())) == b""


def test_defect_12_the_librarys_copy_of_the_static_key_is_let_go() -> None:
    a, b = sides()
    held = weakref.ref(a._connection.noise_protocol.keypairs["s"])
    b.read(a.write())
    a.read(b.write())
    a.write()
    gc.collect()
    assert held() is None
    assert a._connection is a._state is None


def test_defect_13_our_transport_owns_its_nonces() -> None:
    a, b = finished()
    sealer, opener = Sealer(a.split.sending, T0), Opener(b.split.receiving)
    sealer.nonce = opener.nonce = 2**40
    assert opener.open(sealer.seal(b"far along")) == b"far along"
    assert (sealer.nonce, opener.nonce) == (2**40 + 1, 2**40 + 1)


def test_another_prologue_is_found_out_by_the_initiator() -> None:
    a, b = sides(prologue_b=b"another network")
    b.read(a.write())
    with pytest.raises(BadSignature):
        a.read(b.write())


def test_messages_are_written_in_turn() -> None:
    a, b = sides()
    with pytest.raises(Misuse, match="turn"):
        b.write()
    with pytest.raises(Misuse, match="turn"):
        a.read(bytes(32))
    a, _ = finished()
    with pytest.raises(Misuse, match="finished"):
        a.write()


def test_a_replayed_reordered_or_altered_transport_message_is_refused_and_the_next_still_opens() -> None:
    a, b = finished()
    sealer, opener = Sealer(a.split.sending, T0), Opener(b.split.receiving)
    first, second = sealer.seal(b"first"), sealer.seal(b"second")
    assert opener.open(first) == b"first"
    for bad in (first, second[:-1] + bytes([second[-1] ^ 1]), bytes(16)):
        with pytest.raises(BadSignature):
            opener.open(bad)
    with pytest.raises(Malformed):
        opener.open(second[:15])
    assert opener.open(second) == b"second"


def test_after_a_rekey_the_old_key_opens_nothing() -> None:
    a, b = finished()
    sealer, old, new = Sealer(a.split.sending, T0), Opener(b.split.receiving), Opener(b.split.receiving)
    sealer.rekey()
    new.rekey()
    sealed = sealer.seal(b"text")
    with pytest.raises(BadSignature):
        old.open(sealed)
    assert new.open(sealed) == b"text"


def test_rekey_gives_a_key_that_never_comes_back() -> None:
    keys = [bytes(32)]
    for _ in range(100):
        keys.append(rekeyed(keys[-1]))
    assert len(set(keys)) == 101
    assert {len(key) for key in keys} == {32}


@pytest.mark.parametrize(
    ("messages", "count", "seconds", "due"),
    [
        (limits.REKEY_MESSAGES - 2, 0, 0.0, False),
        (limits.REKEY_MESSAGES - 1, 0, 0.0, True),
        (0, limits.REKEY_BYTES - 1, 0.0, False),
        (0, limits.REKEY_BYTES, 0.0, True),
        (0, 0, limits.REKEY_SECONDS - 1, False),
        (0, 0, limits.REKEY_SECONDS, True),
    ],
)
def test_a_rekey_is_due_by_count_by_bytes_and_by_time(messages: int, count: int, seconds: float, due: bool) -> None:
    sealer = Sealer(bytes(32), T0)
    sealer.messages_used, sealer.bytes_used = messages, count
    assert sealer.due(Instant(seconds)) is due


@pytest.mark.parametrize("field", ["messages_used", "bytes_used"])
def test_a_sender_that_never_rekeys_is_refused(field: str) -> None:
    sealer, opener = Sealer(bytes(32), T0), Opener(bytes(32))
    setattr(opener, field, 2 * max(limits.REKEY_MESSAGES, limits.REKEY_BYTES))
    with pytest.raises(WrongState) as caught:
        opener.open(sealer.seal(b""))
    assert caught.value.reason is Reason.WRONG_STATE


def test_keys_do_not_show() -> None:
    a, _ = finished()
    assert a.split.sending.hex() not in repr(a.split)
    assert repr(a.split.sending) not in repr(a.split)
    assert issubclass(BadSignature, HaifError)
