"""Tasks travel as bits, and a bit that means nothing is refused."""

from itertools import chain, combinations

import pytest

from haif.base.errors import Malformed
from haif.base.tasks import Task, bits_of, listed, tasks_of


def test_every_set_of_tasks_comes_back_as_it_went() -> None:
    sets = [frozenset(each) for each in chain.from_iterable(combinations(Task, n) for n in range(len(Task) + 1))]
    assert sets == [tasks_of(bits_of(each)) for each in sets]
    assert len(sets) == len({bits_of(each) for each in sets})


@pytest.mark.parametrize("bits", [-1, 1 << len(Task), 1 << 63])
def test_an_unknown_task_is_refused(bits: int) -> None:
    with pytest.raises(Malformed):
        tasks_of(bits)


def test_tasks_are_named_in_a_sentence() -> None:
    assert ("chat, completion", "nothing") == (listed({Task.TEXT, Task.CHAT}), listed([]))
