import numpy as np

from benchmarks.invariance import compare


def test_rows_are_equal_by_their_bits_and_a_best_token_may_differ():
    left = np.array([[0.0, 1.0], [2.0, 3.0], [5.0, 4.0]], np.float32)
    right = np.array([[-0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], np.float32)
    assert "1 of 3 | 1 | 1" == str(compare(left, right))
    assert "3 of 3 | 0 | 0" == str(compare(left, left))
