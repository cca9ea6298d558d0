import pytest

from haif.engine.cells import Cells


def test_shared_cells_count_once_and_are_free_when_the_last_user_leaves():
    cells = Cells(10)
    cells.grow(0, 6)
    cells.share(0, 1)
    cells.cut(1, 4)
    cells.grow(1, 2)
    assert (8, 2) == (cells.used, cells.free)
    cells.cut(0, 0)
    assert (6, 4) == (cells.used, cells.free)
    cells.cut(1, 0)
    assert 0 == cells.used


def test_what_would_be_free_without_some_slots_leaves_out_what_others_use():
    cells = Cells(10)
    cells.grow(0, 5)
    cells.share(0, 1)
    cells.share(0, 2)
    cells.grow(2, 1)
    assert [0, 0, 1, 6] == [cells.only_in(slots) for slots in ([0], [0, 1], [2], [0, 1, 2])]


def test_more_cells_than_there_are_is_our_own_bug():
    cells = Cells(3)
    with pytest.raises(AssertionError):
        cells.grow(0, 4)
