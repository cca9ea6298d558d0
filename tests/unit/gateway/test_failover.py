"""Streams whose workers fail in their middle come out as if nothing had happened."""

from random import Random

import pytest

from haif.base.errors import ConnectionLost, EngineDied
from haif.telemetry.service import Telemetry
from tests.support.brittle import Break, any_ask, any_break, tell


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry(role="gateway", instance="test", spans=None, otlp=None)


@pytest.mark.parametrize("seed", range(40))
async def test_an_answer_cut_anywhere_is_the_one_that_would_have_come(seed: int, telemetry: Telemetry) -> None:
    random = Random(seed)
    ask = any_ask(random)
    whole, _ = await tell(ask, [], telemetry)
    told, mesh = await tell(ask, [any_break(random) for _ in range(random.randint(1, 4))], telemetry)
    assert told == whole
    assert mesh.failed == []


async def test_an_answer_cut_after_its_last_token_only_needs_a_receipt(telemetry: Telemetry) -> None:
    ask = any_ask(Random(1))
    whole, _ = await tell(ask, [], telemetry)
    last = Break(len(whole.tokens), ConnectionLost("before its receipt"))
    told, mesh = await tell(ask, [last, Break(1, EngineDied("and again"))], telemetry)
    assert told == whole
    (job,) = mesh.desk.state.ended.values()
    assert [attempt.resumed for attempt in job.attempts] == [0, len(whole.tokens), len(whole.tokens)]
