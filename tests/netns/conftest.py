"""A lab per module, or a skip that says why this machine has none."""

from collections.abc import Iterator

import pytest

from tests.support.netlab import Lab, why_not


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with Lab() as made:
        yield made
