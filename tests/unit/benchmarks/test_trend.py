"""What the soak calls growth."""

from random import Random

import pytest

from benchmarks.trend import growth


def test_a_line_grows_by_what_it_grows() -> None:
    assert growth([(10.0 + t, 5.0 + 2 * t) for t in range(50)]) == pytest.approx(98.0)


def test_peaks_do_not_make_a_trend_and_do_not_hide_one() -> None:
    peaks = Random(1)
    flat = [(float(t), 100.0 + (1000.0 if peaks.random() < 0.2 else 0.0)) for t in range(200)]
    assert growth(flat) == pytest.approx(0.0, abs=1.0)
    assert growth([(t, value + t) for t, value in flat]) == pytest.approx(199.0, rel=0.05)


def test_one_sample_is_no_trend() -> None:
    assert growth([(1.0, 5.0)]) == growth([]) == 0.0
