"""Evidence grows against cheats, and accuses the honest as seldom as it says."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base import limits
from haif.proof.evidence import ALARM, Chances, Evidence, Trials, lower, upper

CHANCES = Chances(1e-4, 3.3e-3)


def audits_until_alarm(trials: Trials, after: Evidence = Evidence()) -> int:  # noqa: B008 - a value
    evidence, count = after, 0
    while not evidence.alarm:
        evidence, count = evidence.after(trials, CHANCES), count + 1
    return count


def test_there_is_no_evidence_before_the_first_audit() -> None:
    assert Evidence().log_e == 0.0


def test_three_windows_are_enough_where_every_window_is_off() -> None:
    assert Evidence().after(Trials(96, 0, 2, 2), CHANCES).log_e < ALARM
    assert Evidence().after(Trials(96, 0, 3, 3), CHANCES).log_e >= ALARM


@pytest.mark.parametrize("rate", [0.003, 0.05, 0.4, 0.86])
def test_every_rate_over_the_honest_one_is_found_in_the_end(rate: float) -> None:
    tokens = 1000
    assert audits_until_alarm(Trials(tokens, max(1, round(rate * tokens)), 31, 0)) <= (20 if rate < 0.01 else 1)


def test_a_fair_bet_is_worth_its_stake() -> None:
    """E is a martingale where each trial exceeds with exactly p0: over all that can happen its mean is 1."""
    chances = Chances(2e-3, 0.05)
    mean = 0.0
    for x, y, z in product(range(3), range(2), range(3)):  # tokens over in two audits, and windows over in the second
        first, second = Trials(2, x, 0, 0), Trials(1, y, 2, z)
        chance = _of(x, 2, 2e-3) * _of(y, 1, 2e-3) * _of(z, 2, 0.05)
        mean += chance * math.exp(Evidence().after(first, chances).after(second, chances).log_e)
    assert mean == pytest.approx(1.0, abs=1e-12)


def _of(over: int, trials: int, chance: float) -> float:
    return math.comb(trials, over) * chance**over * (1 - chance) ** (trials - over)


def test_honest_workers_at_their_very_limit_are_accused_as_seldom_as_promised() -> None:
    """Ville: of 4,000 lives, at most one in twenty ever comes to E = 20; with five sigma of room: 269."""
    random = np.random.default_rng(20)
    chances = Chances(2e-3, 0.02)
    accused = 0
    for _ in range(4000):
        evidence = Evidence()
        for tokens_over, windows_over in zip(random.binomial(256, 2e-3, 12), random.binomial(8, 0.02, 12), strict=True):
            evidence = evidence.after(Trials(256, int(tokens_over), 8, int(windows_over)), chances)
            if evidence.log_e >= math.log(20):
                accused += 1
                break
    assert 0 < accused <= 200 + 5 * math.sqrt(200)


def test_honest_months_are_no_credit() -> None:
    honest = Evidence()
    for _ in range(3000):
        honest = honest.after(Trials(256, 0, 8, 0), CHANCES)
    assert honest.log_e < 0.0
    assert audits_until_alarm(Trials(256, 1, 8, 8), honest) <= 2


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 9)), max_size=80))
def test_what_is_kept_is_bounded_whatever_comes(seen: list[tuple[int, int]]) -> None:
    evidence = Evidence()
    for tokens_over, windows_over in seen:
        before = evidence
        evidence = evidence.after(Trials(300, tokens_over, 9, windows_over), CHANCES)
        assert len(evidence._bets) <= limits.EVIDENCE_BETS_MAX
        assert evidence.audits == before.audits + 1
        assert math.isfinite(evidence.log_e)


@pytest.mark.parametrize(
    ("over", "trials", "confidence", "expected"),
    [(0, 69_000, 0.999, 1.0011e-4), (0, 100, 0.95, 0.029513), (3, 20, 0.95, 0.343664), (10, 10, 0.9, 1.0)],
)
def test_upper_bounds_are_clopper_and_pearsons(over: int, trials: int, confidence: float, expected: float) -> None:
    assert expected == pytest.approx(upper(over, trials, confidence), rel=1e-3)


def test_368_of_368_say_99_percent() -> None:
    assert lower(367, 367, 0.975) < 0.99 < lower(368, 368, 0.975)
    assert lower(0, 50, 0.975) == 0.0


def test_counts_and_chances_that_cannot_be_are_refused() -> None:
    for over, trials, confidence in ((-1, 2, 0.9), (3, 2, 0.9), (0, 0, 0.9), (1, 2, 1.0), (1, 2, 0.0)):
        with pytest.raises(ValueError, match="cannot be"):
            upper(over, trials, confidence)
    for tokens in ((1, 2, 0, 0), (0, 0, 1, 2), (1, -1, 0, 0)):
        with pytest.raises(ValueError, match="no more can exceed"):
            Trials(*tokens)
    for sampler, forward in ((0.0, 0.01), (0.003, 0.01), (1e-4, 0.0), (1e-4, 0.1), (math.nan, 0.01)):
        with pytest.raises(ValueError, match="must be over 0"):
            Chances(sampler, forward)
