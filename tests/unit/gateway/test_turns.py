"""Who is asked about a job when the orchestrator that placed it is gone."""

from collections.abc import Awaitable, Callable

import pytest

from haif.base import limits
from haif.base.errors import ConnectionLost, Elsewhere, HaifError, NoWorker, Reason, Timeout, WrongState
from haif.base.ids import PeerId
from haif.gateway.service.turns import in_turn

ANNE, BOB, CLEO = (PeerId(letter * 32) for letter in (b"a", b"b", b"c"))
Script = dict[PeerId, list[HaifError | str]]


def scripted(script: Script) -> tuple[list[PeerId], Callable[[PeerId], Awaitable[str]]]:
    """Peers who say these things one after the other, and the last one again and again; and who was asked."""
    asked: list[PeerId] = []

    async def ask(peer: PeerId) -> str:
        asked.append(peer)
        said = script[peer].pop(0) if len(script[peer]) > 1 else script[peer][0]
        if isinstance(said, HaifError):
            raise said
        return said

    return asked, ask


def plenty() -> float:
    return 60.0


async def told(script: Script, remaining: Callable[[], float] = plenty) -> tuple[str | HaifError, list[PeerId]]:
    asked, ask = scripted(script)
    try:
        return await in_turn(tuple(script), ask, remaining), asked
    except HaifError as error:
        return error, asked


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TAKEOVER_AGAIN_SECONDS", 0.0)


async def test_nobody_else_is_asked_while_the_one_that_placed_it_answers() -> None:
    assert ("placed", [ANNE]) == await told({ANNE: ["placed"], BOB: ["never"]})


@pytest.mark.parametrize("gone", [ConnectionLost("gone"), Timeout("silent"), Elsewhere("not mine")])
async def test_the_next_is_asked_when_it_is_gone(gone: HaifError) -> None:
    assert ("mine now", [ANNE, BOB]) == await told({ANNE: [gone], BOB: ["mine now"]})


@pytest.mark.parametrize("no", [NoWorker("all tried"), WrongState("over")])
async def test_a_refusal_is_an_answer(no: HaifError) -> None:
    assert (no, [ANNE]) == await told({ANNE: [no], BOB: ["never"]})


async def test_a_refusal_by_whoever_took_it_over_is_one_too() -> None:
    no = NoWorker("all tried")
    assert (no, [ANNE, BOB]) == await told({ANNE: [ConnectionLost("gone")], BOB: [no]})


async def test_all_are_asked_again_while_one_says_that_the_job_will_be_its_own_in_a_moment() -> None:
    script: Script = {ANNE: [ConnectionLost("gone")], BOB: [Elsewhere("soon"), Elsewhere("soon"), "mine now"]}
    assert ("mine now", [ANNE, BOB] * 3) == await told(script)


async def test_an_orchestrator_with_a_store_of_its_own_ends_nothing() -> None:
    gone = ConnectionLost("gone")
    assert (gone, [ANNE, BOB]) == await told({ANNE: [gone], BOB: [WrongState("no such job here")]})
    script: Script = {ANNE: [gone], BOB: [WrongState("no such job here")], CLEO: [Elsewhere("soon"), "mine now"]}
    assert ("mine now", [ANNE, BOB, CLEO] * 2) == await told(script)


async def test_nobody_is_asked_for_longer_than_there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    script: Script = {ANNE: [ConnectionLost("gone")], BOB: [Elsewhere("soon")]}
    said, asked = await told(script, lambda: 0.0)
    assert isinstance(said, ConnectionLost)
    assert [ANNE, BOB] == asked
    monkeypatch.setattr(limits, "TAKEOVER_PATIENCE_SECONDS", 0.0)
    said, asked = await told(script)
    assert Reason.CONNECTION_LOST is said.reason  # type: ignore[union-attr]
    assert Reason.ELSEWHERE is script[BOB][0].reason  # type: ignore[union-attr]
