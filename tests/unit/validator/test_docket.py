"""Cases wait for their payload, then for their turn."""

import pytest
from msgspec import structs

from haif.base import limits
from haif.base.clock import Instant
from haif.base.errors import BadSignature, Malformed, WrongState
from haif.protocol.audits import Payload
from haif.validator.docket import Docket
from tests.unit.validator.cases import ANNE, BOB, GATEWAY, ORCHESTRATOR, STRANGER, TOKENS, case, payload, request


def test_a_case_has_its_turn_once_its_payload_is_there() -> None:
    docket = Docket()
    docket.enter(case(1))
    assert docket.turn() is None
    docket.give(payload(1), GATEWAY.peer)
    found = docket.turn()
    assert found is not None
    assert (request(1), tuple(TOKENS)) == (found.bundle.request, found.bundle.tokens)
    assert 0 == len(docket)


def test_a_gateway_hears_only_of_what_it_countersigned() -> None:
    docket = Docket()
    docket.enter(case(1))
    docket.enter(other := case(2, gateway=STRANGER))
    assert [case(1).receipt] == docket.wanted(GATEWAY.peer)
    assert [other.receipt] == docket.wanted(STRANGER.peer)
    assert [] == docket.wanted(ANNE.peer)
    docket.give(payload(1), GATEWAY.peer)
    assert [] == docket.wanted(GATEWAY.peer)


@pytest.mark.parametrize("changed", [{"request": request(2)}, {"tokens": [7, 8]}, {"tokens": [7, 8, 10]}])
def test_x_8_a_payload_of_another_answer_is_refused(changed: dict[str, object]) -> None:
    """A gateway cannot have a worker judged by a request that it was never given."""
    docket = Docket()
    docket.enter(case(1))
    with pytest.raises(BadSignature, match="not those of the receipt"):
        docket.give(structs.replace(payload(1), **changed), GATEWAY.peer)
    assert docket.turn() is None
    docket.give(payload(1), GATEWAY.peer)
    assert docket.turn() is not None


def test_a_payload_that_nobody_wants_is_refused() -> None:
    docket = Docket()
    docket.enter(case(1))
    with pytest.raises(WrongState):
        docket.give(payload(2), GATEWAY.peer)
    with pytest.raises(WrongState):
        docket.give(payload(1), STRANGER.peer)
    with pytest.raises(Malformed):
        docket.give(Payload(case(1).receipt, request(1), [-1]), GATEWAY.peer)


def test_workers_take_turns() -> None:
    """Ten receipts of one worker hold another's up by one."""
    docket = Docket()
    for number in range(10):
        docket.enter(case(number))
        docket.give(payload(number), GATEWAY.peer)
    docket.enter(bob := case(99, BOB))
    docket.give(payload(99, bob), GATEWAY.peer)
    first, second = docket.turn(), docket.turn()
    assert first is not None
    assert second is not None
    assert {ANNE.peer, BOB.peer} == {first.worker, second.worker}


def test_who_has_most_cases_makes_room_for_others() -> None:
    docket = Docket(most=3)
    for number in range(3):
        assert docket.enter(case(number, since=number)) is None
    surplus = docket.enter(case(9, BOB, since=9))
    assert surplus is not None
    assert case(2).receipt == surplus.receipt
    assert 3 == len(docket)


def test_a_receipt_is_entered_once() -> None:
    docket = Docket()
    docket.enter(case(1))
    docket.enter(case(1))
    assert 1 == len(docket)


def test_a_payload_that_does_not_come_in_time_is_not_waited_for() -> None:
    docket = Docket()
    docket.enter(case(1, since=0))
    docket.enter(case(2, since=1))
    assert [case(1).receipt] == [each.receipt for each in docket.late(Instant(limits.AUDIT_PAYLOAD_SECONDS))]
    assert [case(2).receipt] == docket.wanted(GATEWAY.peer)


def test_who_is_convicted_is_looked_at_no_more() -> None:
    docket = Docket()
    for number in (1, 2):
        docket.enter(case(number))
    docket.give(payload(1), GATEWAY.peer)
    docket.enter(case(3, BOB))
    docket.drop(STRANGER.peer, ANNE.peer)
    assert 3 == len(docket)
    docket.drop(ORCHESTRATOR.peer, ANNE.peer)
    assert [case(3, BOB).receipt] == docket.wanted(GATEWAY.peer)
    assert 1 == len(docket)
