"""Every named scenario at its own size: `make test-slow`."""

import pytest

from haif.testing.scenarios import SCENARIOS, play

pytestmark = pytest.mark.slow
SEED = 1


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_of_its_own_size_ends_with_nothing_to_complain_of(name: str) -> None:
    assert play(SCENARIOS[name], seed=SEED).broken == (), f"haif sim {name} --seed {SEED}"
