"""Requests are refused as early and as cheaply as can be, and told why."""

import pytest

from haif.base import limits
from haif.base.errors import Overloaded, OverQuota, Reason, Unauthenticated
from haif.gateway.admission import Admitted, check_body, check_quota, check_room, key_of, quota_headers, seconds_allowed
from haif.gateway.directory import Grant
from haif.gateway.errors import Rejected
from haif.gateway.tenants import Tenant
from haif.policy.bucket import Answer

ACME = Tenant("acme", 60, 5)


def test_a_full_or_stopping_gateway_takes_nobody() -> None:
    check_room(limits.GATEWAY_STREAMS_MAX - 1, draining=False)
    for open_requests, draining in ((limits.GATEWAY_STREAMS_MAX, False), (0, True)):
        with pytest.raises(Overloaded) as caught:
            check_room(open_requests, draining)
        assert caught.value.reason is Reason.OVERLOADED


def test_a_request_without_a_key_is_nobodys() -> None:
    with pytest.raises(Unauthenticated, match="Authorization"):
        key_of({})
    with pytest.raises(Unauthenticated):
        key_of({b"authorization": b"Bearer \xff\xfe"})


def test_an_empty_bucket_refuses_and_a_full_one_does_not() -> None:
    check_quota(Admitted(Grant(ACME), Answer(allowed=True, remaining=4, retry_after=0, full_in=1)))
    with pytest.raises(OverQuota) as caught:
        check_quota(Admitted(Grant(ACME), Answer(allowed=False, remaining=0, retry_after=0.5, full_in=5)))
    assert (caught.value.reason, caught.value.retry_after) == (Reason.OVER_QUOTA, 0.5)


def test_the_headers_say_what_is_left() -> None:
    told = dict(quota_headers(Admitted(Grant(ACME), Answer(allowed=True, remaining=4, retry_after=0, full_in=1.0))))
    assert told == {
        b"x-ratelimit-limit-requests": b"5", b"x-ratelimit-remaining-requests": b"4",
        b"x-ratelimit-reset-requests": b"1s",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 415), ({b"content-type": b"text/plain"}, 415),
        ({b"content-type": b"application/json", b"content-length": b"9999999999"}, 413),
    ],
)  # fmt: skip
def test_a_body_of_another_kind_or_size_is_not_read(headers: dict[bytes, bytes], status: int) -> None:
    with pytest.raises(Rejected) as caught:
        check_body(headers)
    assert caught.value.status == status


def test_json_with_a_charset_is_json() -> None:
    check_body({b"content-type": b"Application/JSON; charset=utf-8", b"content-length": b"10"})


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, limits.JOB_SECONDS_DEFAULT), ({b"x-stainless-read-timeout": b"600"}, limits.JOB_SECONDS_DEFAULT),
        ({b"x-stainless-read-timeout": b"5.5"}, 5.5), ({b"x-haif-deadline-ms": b"250"}, 0.25),
        ({b"x-haif-deadline-ms": b"-1"}, limits.JOB_SECONDS_DEFAULT),
        ({b"x-haif-deadline-ms": b"0"}, limits.JOB_SECONDS_DEFAULT),
        ({b"x-haif-deadline-ms": b"nan"}, limits.JOB_SECONDS_DEFAULT),
        ({b"x-stainless-read-timeout": b"9", b"x-haif-deadline-ms": b"8000"}, 8.0),
    ],
)  # fmt: skip
def test_the_least_of_all_patience_counts(headers: dict[bytes, bytes], seconds: float) -> None:
    assert seconds_allowed(headers) == seconds
