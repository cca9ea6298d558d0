"""The simulation of panels, in small: what the committed figures say holds in every run of the suite."""

import pytest

from benchmarks.panels import ATTEMPTS, ROSTERS, Laziness, Lie, Outcome, laziness, living, outcome
from haif.protocol.audits import CONVICTED, HONEST, UNDECIDED


@pytest.mark.parametrize("lie", Lie)
@pytest.mark.parametrize("validators", ROSTERS[:4])
def test_p_8_a_third_of_the_validators_neither_convicts_the_honest_nor_acquits_a_liar(
    validators: int, lie: Lie
) -> None:
    """With calls lost and late and members absent; in 1,000 alarms a row the same (benchmarks/results/panels.md)."""
    assert 0 == outcome(validators, validators // 3, lie, 40).wrong


def test_two_thirds_do_which_shows_that_the_simulated_liars_try() -> None:
    assert outcome(9, 6, Lie.ACQUIT, 20).wrong > 0
    assert outcome(9, 6, Lie.FRAME, 40).wrong > 0


def test_few_liars_do_not_keep_a_panel_from_deciding() -> None:
    assert outcome(9, 1, Lie.ACQUIT, 40).found[CONVICTED] > 30
    assert outcome(9, 1, Lie.FRAME, 40).found[HONEST] > 30


def test_what_the_silent_want_is_nothing_decided() -> None:
    done: Outcome = outcome(6, 2, Lie.SILENCE, 10)
    assert (10, 0) == (done.found[UNDECIDED], done.wrong)


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda each: each.__name__)
def test_p_5_nobody_foresees_a_draw_or_makes_one_by_trying(attempt) -> None:  # type: ignore[no-untyped-def]
    """Within three standard deviations of chance; 100,000 tries each in benchmarks/results/panels.md."""
    assert abs(attempt(1000).sigmas) < 3


@pytest.mark.parametrize("how", Laziness)
def test_x_6_who_signs_without_looking_is_found_within_three_looks(how: Laziness) -> None:
    assert 40 == laziness(how, 0, 40)[3]
    assert laziness(how, 2, 40)[3] > 30


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("share", [1.0, 0.05])
def test_p_9_lying_does_not_pay_at_the_default_rate_and_the_assumed_stake(share: float, known: bool) -> None:
    assert living(share, 200, known=known, convicts=0.4).mean < 0
    assert living(share, 200, known=known, convicts=0.4, stake=0).mean > 0, "it takes the stake"
