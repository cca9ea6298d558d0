"""Every reason has its place in OpenAI's catalogue, and what tenants read names no secret of ours."""

import json

import pytest

from haif.base.errors import LEAVES, Misuse, NoWorker, OverQuota, Reason, WrongState, from_reason
from haif.gateway.errors import INTERNAL, RETRY_SECONDS, KeyRevoked, Rejected, problem_of


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.__name__)
def test_every_leaf_becomes_a_status_with_the_four_keys(leaf: type) -> None:
    error = from_reason(leaf.reason, "what happened")
    for in_stream in (False, True):
        problem = problem_of(error, in_stream=in_stream)
        body = json.loads(problem.body("req_1"))
        assert set(body["error"]) == {"message", "type", "param", "code"}
        assert body["request_id"] == "req_1"
        assert 400 <= problem.status < 600
        assert json.loads(problem.event()[6:])["error"] == body["error"]


def test_busy_answers_say_when_to_come_back_in_whole_seconds_and_milliseconds() -> None:
    headers = dict(problem_of(OverQuota("slow down", retry_after=0.2)).headers())
    assert headers == {b"retry-after": b"1", b"retry-after-ms": b"200"}
    assert problem_of(NoWorker("none")).retry_after == RETRY_SECONDS
    assert problem_of(NoWorker("never", retry_after=float("inf"))).retry_after == RETRY_SECONDS


def test_what_others_did_wrong_inside_the_mesh_is_not_told_in_detail() -> None:
    assert "scope 4711" not in problem_of(WrongState("scope 4711")).message
    assert "line 12" not in problem_of(Misuse("line 12")).message
    assert INTERNAL.status == 500


def test_a_rejection_keeps_its_own_status_code_and_parameter() -> None:
    problem = problem_of(Rejected("too slow", code="request_body_timeout", status=408))
    assert (problem.status, problem.type, problem.code) == (408, "timeout_error", "request_body_timeout")
    assert problem_of(KeyRevoked("gone")).code == "revoked_api_key"


@pytest.mark.parametrize("reason", [Reason.CONNECTION_LOST, Reason.ENGINE_DIED])
def test_a_worker_lost_in_a_stream_is_called_so(reason: Reason) -> None:
    assert problem_of(from_reason(reason, "gone"), in_stream=True).code == "worker_lost"
    assert problem_of(from_reason(reason, "gone")).code == "worker_failed"
