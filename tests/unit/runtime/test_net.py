import asyncio
import socket
from typing import Any

import pytest

from haif.base.errors import ConnectionLost, Timeout
from haif.runtime.net import dialling

SAID: dict[str, Any] = {"late": "nobody answers", "lost": "nobody is there"}


async def test_what_was_connected_stays_open() -> None:
    async with dialling(5, **SAID) as opened:
        sock = opened.enter_context(socket.socket())
    assert sock.fileno() >= 0
    sock.close()


@pytest.mark.parametrize(
    ("failure", "error", "said"),
    [
        (TimeoutError(), Timeout, "nobody answers"), (OSError("no way"), ConnectionLost, "nobody is there: no way"),
        (asyncio.CancelledError("stop"), asyncio.CancelledError, "stop"), (ValueError("a bug"), ValueError, "a bug"),
    ],
)  # fmt: skip
async def test_a_failure_is_a_sentence_and_leaves_nothing_open(
    failure: BaseException, error: type[BaseException], said: str
) -> None:
    with pytest.raises(error, match=said):
        async with dialling(5, **SAID) as opened:
            sock = opened.enter_context(socket.socket())
            raise failure
    assert sock.fileno() == -1


async def test_it_takes_no_longer_than_it_may() -> None:
    with pytest.raises(Timeout, match="nobody answers"):
        async with dialling(0, **SAID):
            await asyncio.Event().wait()
