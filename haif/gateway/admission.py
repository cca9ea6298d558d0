"""Whether a request comes in, in the order that refuses cheapest first.

1. is there room at all               Overloaded, 503
   and has the address requests left  OverAddress, 429 with Retry-After
2. whose key is it, is it for this    Unauthenticated, 401; EndpointDenied, 403
3. has the tenant requests left       OverQuota, 429 with Retry-After
4. is the body of a kind and size     Rejected, 415 and 413
5. is the model for this key          Forbidden, 403
6. can the model do what is asked     Unsupported, 400
7. may it come to as many tokens      BudgetSpent, TooManyAtOnce, OverTokens, 429
(the dialect parses it before the fifth, and the job is placed last)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from haif.base import limits
from haif.base.clock import Instant
from haif.base.errors import Overloaded, Unauthenticated, Unsupported
from haif.base.tasks import Task, listed
from haif.gateway.allowance import over_quota
from haif.gateway.directory import Directory, Grant
from haif.gateway.errors import Rejected
from haif.gateway.replies import seconds_text
from haif.gateway.tenants import Tenant, bearer
from haif.policy.bucket import Answer
from haif.protocol.jobs import ModelCard

Headers = Mapping[bytes, bytes]
"""An HTTP request's headers, names in lower case."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that may go on, for whom, and how many requests its tenant has left."""

    grant: Grant
    quota: Answer

    @property
    def tenant(self) -> Tenant:
        """Whose it is."""
        return self.grant.tenant


def check_room(open_requests: int, draining: bool) -> None:
    """Return if one more request may begin. Raises `Overloaded`."""
    if draining:
        raise Overloaded("this gateway is shutting down; ask again, another may answer", retry_after=1.0)
    if open_requests >= limits.GATEWAY_STREAMS_MAX:
        raise Overloaded(f"{open_requests} requests are being answered; ask again shortly", retry_after=1.0)


def key_of(headers: Headers) -> str:
    """The API key a request carries, as a bearer's or in `x-api-key`. Raises `Unauthenticated`."""
    authorization, plain = headers.get(b"authorization"), headers.get(b"x-api-key")
    if plain is not None:
        if authorization not in (None, b"Bearer " + plain):
            raise Unauthenticated("Authorization and x-api-key are two keys: send one")
        authorization = b"Bearer " + plain
    return bearer(None if authorization is None else authorization.decode("latin-1"))


def charge(grant: Grant, directory: Directory, now: Instant, requests: int = 1) -> Admitted:
    """Take requests from the tenant's bucket, whatever it says; `check_quota` refuses."""
    return Admitted(grant, directory.allowance(grant.tenant, now).take(now, requests))


def check_quota(admitted: Admitted, requests: int = 1) -> None:
    """Return if the tenant's bucket had them. Raises `OverQuota`."""
    if not admitted.quota.allowed:
        raise over_quota(admitted.tenant, admitted.quota, requests)


def check_choices(admitted: Admitted, choices: int) -> None:
    """Return if the tenant's burst may ever hold so many at once. Raises `Rejected`."""
    if choices > admitted.tenant.burst:
        raise Rejected(
            f"n is {choices} and this tenant may send {admitted.tenant.burst} requests at once; each choice is one",
            code="invalid_value", param="n",
        )  # fmt: skip


def quota_headers(admitted: Admitted) -> list[tuple[bytes, bytes]]:
    """What is left, in OpenAI's headers: how many may come at once, how many are left, when all are back."""
    return request_headers(admitted.tenant.burst, admitted.quota)


def request_headers(most: int, quota: Answer) -> list[tuple[bytes, bytes]]:
    """The same of whatever counts requests."""
    return [
        (b"x-ratelimit-limit-requests", b"%d" % most),
        (b"x-ratelimit-remaining-requests", b"%d" % quota.remaining),
        (b"x-ratelimit-reset-requests", seconds_text(quota.full_in).encode()),
    ]


def token_headers(tenant: Tenant, minute: Answer) -> list[tuple[bytes, bytes]]:
    """The same for tokens: of a minute."""
    return [
        (b"x-ratelimit-limit-tokens", b"%d" % tenant.tpm),
        (b"x-ratelimit-remaining-tokens", b"%d" % minute.remaining),
        (b"x-ratelimit-reset-tokens", seconds_text(minute.full_in).encode()),
    ]


def check_body(headers: Headers) -> None:
    """Return if the announced body is JSON of a size we read. Raises `Rejected`."""
    kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if kind != b"application/json":
        raise Rejected("the body must be sent as content-type application/json",
                       code="unsupported_media_type", status=415)  # fmt: skip
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length) > limits.HTTP_BODY_BYTES_MAX:
        raise too_large()


def check_task(card: ModelCard, task: Task) -> None:
    """Return if the model can do it, or if no live worker says what it can. Raises `Unsupported`."""
    if card.workers and task not in card.tasks:
        raise Unsupported(
            f"the model {card.name!r} cannot do {task.value}: it can do {listed(card.tasks)}", param="model"
        )


def too_large() -> Rejected:
    """The refusal of a body over the limit."""
    message = f"the body is over the limit of {limits.HTTP_BODY_BYTES_MAX} bytes"
    return Rejected(message, code="payload_too_large", status=413)


def seconds_allowed(headers: Headers) -> float:
    """How long the tenant will wait: the least of our limit, the client's read timeout and its own wish."""
    seconds = limits.JOB_SECONDS_DEFAULT
    for name, unit in ((b"x-stainless-read-timeout", 1.0), (b"x-haif-deadline-ms", 0.001)):
        value = headers.get(name, b"")
        if re.fullmatch(rb"[0-9]{1,9}(\.[0-9]{1,9})?", value) and float(value) > 0:
            seconds = min(seconds, float(value) * unit)
    return seconds
