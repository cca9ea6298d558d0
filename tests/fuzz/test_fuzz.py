"""Two hundred thousand hostile inputs, the same in every run; `make fuzz` sends ten million that are not."""

import pytest

from tests.fuzz.doors import DOORS
from tests.fuzz.run import BATCH, batches, play

SEED = 20_261_120
INPUTS = 200_000


@pytest.mark.parametrize("door", DOORS)
def test_nothing_escapes_and_nothing_costs_more_than_its_length_allows(door: str) -> None:
    """What fails prints the batch; `python -m tests.fuzz.run` with those options plays it again."""
    mine = [batch for batch in batches(INPUTS, SEED) if batch.door == door]
    print(f"seed {SEED}, {len(mine) * BATCH} inputs")
    assert len(mine) * BATCH == sum(play(batch) for batch in mine)


def test_the_doors_together_take_all_of_them() -> None:
    assert len(list(batches(INPUTS, SEED))) * BATCH >= INPUTS
