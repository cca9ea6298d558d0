"""How verdicts make a worker known: slowly, and not for ever; and unknown again at once."""

from haif.base import limits
from haif.proof.standing import Standing

DAY = 86_400_000
NOW = 1_700_000_000_000


def after(passes: int, at: int = NOW) -> Standing:
    standing = Standing()
    for _ in range(passes):
        standing = standing.honest(at)
    return standing


def test_a_newcomer_is_audited_fully_and_a_known_worker_at_the_default_rate() -> None:
    rates = [after(passes).per_mille(NOW) for passes in (0, 49, 50, 100, 300, 5000)]
    assert [1000, 1000, 1000, 250, limits.AUDIT_PER_MILLE_MIN, limits.AUDIT_PER_MILLE_MIN] == rates


def test_what_was_earned_fades_until_the_worker_is_a_newcomer_again() -> None:
    standing = after(300)
    half = limits.STANDING_HALF_LIFE_DAYS * DAY
    assert 150 == standing.known(NOW + half)
    assert standing.per_mille(NOW) < standing.per_mille(NOW + half) < standing.per_mille(NOW + 3 * half) == 1000


def test_one_conviction_takes_all_of_it_and_keeps_the_worker_out_for_its_time() -> None:
    standing = after(5000).guilty(NOW + 1)
    assert standing.is_out(NOW + 2)
    until = NOW + 1 + limits.CONVICTION_DAYS * DAY
    assert standing.is_out(until - 1)
    assert not standing.is_out(until)
    assert 1000 == standing.per_mille(until)


def test_nobody_who_was_never_convicted_is_out() -> None:
    assert not Standing().is_out(0)
    assert not after(1).is_out(NOW)


def test_what_two_validators_say_counts_together_and_either_can_convict() -> None:
    assert 110 == (after(60) + after(50)).known(NOW)
    assert (after(60) + Standing().guilty(NOW)).is_out(NOW + 1)


def test_time_that_goes_backwards_makes_nobody_better() -> None:
    assert after(3).known(NOW - DAY) == 3


def test_who_was_accused_lately_is_audited_always_whatever_it_passed_before() -> None:
    known = Standing(1600.0)
    assert 50 == known.per_mille(1)
    assert 1000 == known.guilty(1).per_mille(1) == (known + Standing().guilty(1)).per_mille(1)
