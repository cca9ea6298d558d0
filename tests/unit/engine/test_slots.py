import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base import limits
from haif.engine.slots import Slot, choose, common

FEW = limits.PREFIX_COPY_TOKENS_MIN


def slots(*held):
    made = []
    for number, (scope, tokens, busy, used) in enumerate(held):
        slot = Slot(number)
        slot.scope, slot.tokens, slot.busy, slot.used = scope, tokens, busy, used
        slot.computed = len(tokens)
        made.append(slot)
    return made


def chosen(held, prompt, scope=b"a"):
    target, source, length = choose(slots(*held), scope, prompt)
    return target.number, source.number, length


def test_a_prompt_goes_on_where_its_history_lies():
    held = [(b"a", [1, 2, 9], False, 5), (b"a", [1, 2, 3, 4], False, 1)]
    assert (1, 1, 4) == chosen(held, [1, 2, 3, 4, 5])


def test_the_last_token_is_computed_even_if_its_cell_is_there():
    assert (0, 0, 2) == chosen([(b"a", [1, 2, 3], False, 0)], [1, 2, 3])


@pytest.mark.parametrize("scope", [b"", b"b"])
def test_nothing_is_shared_between_scopes_or_without_one(scope):
    assert (0, 0, 0) == chosen([(b"a", [1, 2, 3], False, 0)], [1, 2, 3, 4], scope)
    assert (0, 0, 0) == chosen([(b"", [1, 2, 3], False, 0)], [1, 2, 3, 4], scope)


def test_a_stranger_takes_the_empty_slot_then_the_one_not_used_for_longest():
    held = [(b"a", [1], False, 7), (b"", [], False, 9), (b"a", [1], False, 3)]
    assert (1, 1, 0) == chosen(held, [5, 6], b"b")
    assert (1, 1, 0) == chosen([held[0], held[2]], [5, 6], b"b")


def test_a_stranger_goes_beside_those_at_work():
    held = [(b"a", [1], False, 1), (b"a", [1], False, 2), (b"c", [7], True, 0), (b"", [], False, 9)]
    assert (3, 3, 0) == chosen(held, [5, 6], b"b")
    assert (1, 1, 0) == chosen(held[:3], [5, 6], b"b")


def test_a_long_beginning_is_copied_from_an_answer_at_work():
    long = list(range(FEW))
    held = [(b"a", [*long, 7], True, 0), (b"", [], False, 1), (b"c", [4], False, 0)]
    assert (1, 0, FEW) == chosen(held, [*long, 8])
    assert (1, 1, 0) == chosen(held, [*long[:-1], 8])


def test_tokens_that_are_not_computed_yet_have_no_cells_to_take():
    (slot, free) = slots((b"a", list(range(500)), True, 0), (b"", [], False, 0))
    slot.computed = 100
    assert (free, slot, 100) == choose([slot, free], b"a", list(range(400)))


def test_a_copy_does_not_overwrite_what_may_be_wanted_again():
    long = list(range(3 * FEW))
    held = [(b"a", long, True, 0), (b"a", [*long[:FEW], 7], False, 9), (b"b", [4], False, 0)]
    assert (2, 0, 3 * FEW) == chosen(held, [*long, 8])


def test_without_a_free_slot_there_is_none_to_choose():
    with pytest.raises(ValueError, match="empty"):
        choose(slots((b"", [], True, 0)), b"a", [1])


@given(st.lists(st.integers(0, 1), max_size=700), st.lists(st.integers(0, 1), max_size=700), st.integers(0, 600))
def test_the_common_beginning_is_what_both_have(left, right, same):
    left, right = [2] * same + left, [2] * same + right
    length = common(left, right)
    assert left[:length] == right[:length]
    assert left[length : length + 1] != right[length : length + 1] or length == min(len(left), len(right))
