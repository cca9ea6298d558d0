"""Lives as they are drawn: of the mean that was asked for, and of the shape."""

from random import Random
from statistics import mean, median

import pytest

from haif.testing.troubles import exponential, weibull


@pytest.mark.parametrize("lifetime", [exponential(2.0), weibull(2.0), weibull(2.0, shape=0.8)])
def test_lives_have_the_mean_they_should(lifetime: object) -> None:
    assert callable(lifetime)
    random = Random(1)
    assert mean(lifetime(random) for _ in range(50_000)) == pytest.approx(7200, rel=0.05)


def test_of_weibulls_lives_most_are_short() -> None:
    random = Random(1)
    assert median(weibull(2.0)(random) for _ in range(5000)) < 0.5 * median(
        exponential(2.0)(random) for _ in range(5000)
    )
