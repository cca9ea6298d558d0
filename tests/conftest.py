"""What holds for every test: a machine that is busy makes none fail; and a real PostgreSQL for who asks."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support.postgres import Server, server

settings.register_profile("haif", deadline=None)
settings.load_profile("haif")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A server that tests share, each with a database of its own."""
    with server(durable=False) as shared:
        yield shared
