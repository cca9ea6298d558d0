"""Which receipts are drawn: nobody can foresee it, nobody can choose it, and later anybody can check it."""

from random import Random

import pytest

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import BadProof
from haif.base.hashing import digest
from haif.base.ids import Digest
from haif.identity.keys import Identity
from haif.proof.lottery import check_draw, draw, each, epoch_of, is_drawn, may_reveal
from haif.proof.standing import Standing

VALIDATOR, OTHER, ORCHESTRATOR = (Identity(bytes([n]) * 32) for n in (1, 2, 3))
EPOCH = limits.AUDIT_EPOCH_MS
TRIES = 100_000


def test_a_draw_can_be_checked_by_anybody_once_it_is_shown() -> None:
    proof, output = draw(VALIDATOR, ORCHESTRATOR.peer, 7)
    assert output == check_draw(VALIDATOR.peer, ORCHESTRATOR.peer, 7, proof)


def test_a_validator_has_one_draw_for_an_epoch_and_no_other_can_be_shown() -> None:
    proof, output = draw(VALIDATOR, ORCHESTRATOR.peer, 7)
    assert (proof, output) == draw(VALIDATOR, ORCHESTRATOR.peer, 7)
    for peer, orchestrator, epoch in (
        (OTHER.peer, ORCHESTRATOR.peer, 7), (VALIDATOR.peer, OTHER.peer, 7), (VALIDATOR.peer, ORCHESTRATOR.peer, 8),
    ):  # fmt: skip
        with pytest.raises(BadProof):
            check_draw(peer, orchestrator, epoch, proof)
    for place in range(len(proof)):
        with pytest.raises(BadProof):
            check_draw(
                VALIDATOR.peer, ORCHESTRATOR.peer, 7, proof[:place] + bytes([proof[place] ^ 1]) + proof[place + 1 :]
            )


def test_all_are_drawn_at_1000_and_none_at_0() -> None:
    _, output = draw(VALIDATOR, ORCHESTRATOR.peer, 7)
    receipts = [digest("receipt", bytes([n])) for n in range(100)]
    assert all(is_drawn(output, receipt, 1000) for receipt in receipts)
    assert not any(is_drawn(output, receipt, 0) for receipt in receipts)


def test_a_worker_that_tries_a_hundred_thousand_receipts_is_drawn_as_often_as_it_should_be() -> None:
    """It does not know the output; whatever it varies, the lots are even: within three standard deviations of 5 %."""
    _, output = draw(VALIDATOR, ORCHESTRATOR.peer, 7)
    drawn = sum(is_drawn(output, digest("receipt", n.to_bytes(4, "big")), 50) for n in range(TRIES))
    assert abs(drawn - 0.05 * TRIES) < 3 * (TRIES * 0.05 * 0.95) ** 0.5


def test_a_worker_that_guesses_from_the_draws_of_other_epochs_does_no_better_than_chance() -> None:
    """It skips what an output that it knows would draw: of what it lies about, as much is drawn as of anything."""
    _, known = draw(VALIDATOR, ORCHESTRATOR.peer, 6)
    _, secret = draw(VALIDATOR, ORCHESTRATOR.peer, 7)
    lies = [digest("receipt", n.to_bytes(4, "big")) for n in range(TRIES)]
    lies = [receipt for receipt in lies if not is_drawn(known, receipt, 50)]
    caught = sum(is_drawn(secret, receipt, 50) for receipt in lies)
    assert abs(caught - 0.05 * len(lies)) < 3 * (len(lies) * 0.05 * 0.95) ** 0.5


def test_several_validators_together_draw_as_often_as_one_would() -> None:
    assert [(1000, 1000), (50, 9), (0, 0), (250, 47)] == [(rate, each(rate, 6)) for rate in (1000, 50, 0, 250)]
    assert all(each(rate, 1) == rate for rate in range(1001))
    for count in range(1, 65):
        assert 0 <= 1 - (1 - each(50, count) / 1000) ** count - 0.05 < 0.001 * count


def test_a_draw_is_shown_only_when_the_epoch_after_it_is_over() -> None:
    assert 7 == epoch_of(7 * EPOCH) == epoch_of(8 * EPOCH - 1)
    assert not may_reveal(7, WallTime(9 * EPOCH - 1))
    assert may_reveal(7, WallTime(9 * EPOCH))


@pytest.mark.parametrize(("share", "passed"), [(0.5, 300), (0.05, 300), (0.05, 0), (0.5, 0)])
def test_who_lies_now_and_then_is_caught_after_as_many_answers_as_the_rates_say(share: float, passed: int) -> None:
    """A thousand workers, known ones at 5 % and newcomers: the mean is 1 / (share * rate), within a fifth."""
    rng = Random(f"{share} {passed}")
    known = Standing()
    for _ in range(passed):
        known = known.honest(0)
    answers, lies_caught = 0, 0
    for _ in range(1000):
        standing, output = known, rng.randbytes(64)
        while True:
            answers += 1
            drawn = is_drawn(output, Digest(rng.randbytes(32)), standing.per_mille(0))
            if drawn and rng.random() < share:
                break
            if drawn:
                standing = standing.honest(0)
        lies_caught += 1
    rate = 0.05 if passed else 1.0
    assert abs(answers / lies_caught * share * rate - 1) < 0.2
