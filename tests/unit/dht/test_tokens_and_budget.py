"""Round-trip tokens and the budget of signatures: what they are bound to, how long they last, how much they hold."""

from random import Random

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import Digest, PeerId
from haif.dht.budget import SigningBudget
from haif.dht.tokens import TokenMint

HERE = ("10.0.0.1", 4000)
PEER = PeerId(b"p" * 32)
TARGET = Digest(b"t" * 32)
START = Instant(0.0)


def later(seconds: float) -> Instant:
    return Instant(START + seconds)


def test_a_token_is_honoured_for_one_to_two_rotations() -> None:
    mint = TokenMint(Random(1).randbytes, START)
    token = mint.mint(HERE, PEER, TARGET, START)
    for seconds, honoured in ((0, True), (299, True), (301, True), (599, True), (602, False)):
        assert mint.recognises(token, HERE, PEER, TARGET, later(seconds)) is honoured, seconds


def test_after_a_long_silence_no_old_token_is_honoured() -> None:
    mint = TokenMint(Random(1).randbytes, START)
    token = mint.mint(HERE, PEER, TARGET, START)
    assert not mint.recognises(token, HERE, PEER, TARGET, later(10 * limits.DHT_TOKEN_SECONDS))


def test_a_token_is_bound_to_ip_port_requester_and_target_and_none_is_none() -> None:
    mint = TokenMint(Random(1).randbytes, START)
    token = mint.mint(HERE, PEER, TARGET, START)
    assert mint.recognises(token, HERE, PEER, TARGET, START)
    assert not mint.recognises(token, ("10.0.0.2", 4000), PEER, TARGET, START)
    assert not mint.recognises(token, ("10.0.0.1", 4001), PEER, TARGET, START)
    assert not mint.recognises(token, HERE, PeerId(b"q" * 32), TARGET, START)
    assert not mint.recognises(token, HERE, None, TARGET, START)
    assert not mint.recognises(token, HERE, PEER, Digest(bytes(32)), START)
    assert not mint.recognises(None, HERE, PEER, TARGET, START)


def test_two_mints_do_not_recognise_each_others_tokens() -> None:
    token = TokenMint(Random(1).randbytes, START).mint(HERE, PEER, TARGET, START)
    assert not TokenMint(Random(2).randbytes, START).recognises(token, HERE, PEER, TARGET, START)


def test_a_subnet_has_a_burst_and_then_a_rate_and_another_has_its_own() -> None:
    budget = SigningBudget(START)
    assert sum(budget.take(HERE, START, proven=True) for _ in range(500)) == limits.DHT_SIGNATURES_BURST
    assert not budget.take(("10.0.0.99", 1), START, proven=True)
    assert budget.take(("10.0.1.1", 1), START, proven=True)
    assert sum(budget.take(HERE, later(1), proven=True) for _ in range(500)) == limits.DHT_SIGNATURES_PER_SECOND


def test_all_subnets_together_cannot_have_more_than_the_total_and_memory_is_bounded() -> None:
    budget = SigningBudget(START)
    taken = sum(budget.take((f"10.{n >> 8}.{n & 255}.1", 1), START, proven=True) for n in range(12_000))
    assert taken == limits.DHT_SIGNATURES_TOTAL_PER_SECOND
    assert len(budget) == limits.DHT_SUBNETS_MAX


def test_what_is_kept_for_the_proven_nobody_else_can_spend() -> None:
    budget = SigningBudget(START)
    kept = limits.DHT_SIGNATURES_KEPT
    assert sum(budget.take(HERE, START, proven=False) for _ in range(500)) == limits.DHT_SIGNATURES_BURST * (1 - kept)
    assert sum(budget.take(HERE, START, proven=True) for _ in range(500)) == limits.DHT_SIGNATURES_BURST * kept
    forged = (budget.take((f"11.{n >> 8}.{n & 255}.1", 1), START, proven=False) for n in range(12_000))
    assert sum(forged) == limits.DHT_SIGNATURES_TOTAL_PER_SECOND * (1 - kept) - limits.DHT_SIGNATURES_BURST
    proven = (budget.take((f"12.{n >> 8}.{n & 255}.1", 1), START, proven=True) for n in range(12_000))
    assert sum(proven) == limits.DHT_SIGNATURES_TOTAL_PER_SECOND * kept
