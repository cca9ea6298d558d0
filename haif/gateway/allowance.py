"""What a tenant may still ask for: requests, tokens, places, and its budget of the month.

Tokens are taken before a request begins, by a guess for the minute and by the most it can come to for the month, and
what it did not need goes back when it ends. Levels live in memory only, so a restarted gateway starts with full
buckets; what is left of a budget does not (`service.treasury`): here is only a purse, drawn from it ahead.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from haif.base import limits
from haif.base.clock import Instant, WallTime
from haif.base.errors import OverQuota
from haif.gateway.errors import BudgetSpent, OverTokens, TooManyAtOnce
from haif.gateway.tenants import Tenant
from haif.policy.bucket import Answer, Bucket


@dataclass(frozen=True, slots=True)
class Cost:
    """What a request may come to, in tokens of prompt and answer: `likely`, and at the very `most`."""

    likely: int
    most: int


def cost_of(body_bytes: int, tokens_max: int, choices: int, context_tokens: int | None) -> Cost:
    """Of a request, before anybody has its tokens: a token has one byte at least, and about four.

    `context_tokens`: what the model can hold, where that is known; no prompt and answer come to more.
    """
    most = body_bytes + limits.TEMPLATE_TOKENS_MAX + tokens_max
    if context_tokens is not None:
        most = min(most, context_tokens)
    return Cost(choices * (body_bytes // 4 + tokens_max), choices * most)


def vectors_cost(body_bytes: int, count: int, query_bytes: int) -> Cost:
    """The same for so many vectors, each of which repeats the query and a template."""
    read = body_bytes + count * query_bytes
    return Cost(read // 4, read + count * limits.TEMPLATE_TOKENS_MAX)


FREE = Cost(0, 0)
"""Of a request whose tenant has no limit that counts tokens."""


def day_of(wall: WallTime) -> str:
    """Such as 2026-11-21, in UTC; its month is the first seven characters."""
    return datetime.fromtimestamp(wall / 1000, UTC).strftime("%Y-%m-%d")


@dataclass(slots=True)
class Hold:
    """What a request that is being answered has taken, and of whose."""

    of: Allowance
    tokens: int  # of the minute
    budget: int  # of the month, if that is not 0
    month: str


class Allowance:
    """One tenant's. Whoever `begin`s ends with `end`."""

    def __init__(self, tenant: Tenant, now: Instant) -> None:
        self.tenant = tenant
        self.open = 0
        self.month = ""  # which the purse is of
        self.purse = 0
        self.dry_until = Instant(0.0)  # until then nobody asks whether the budget has this much:
        self.dry_for = 0
        self._requests = Bucket.full(capacity=float(tenant.burst), rate=tenant.rpm / 60, now=now)
        self._tokens = Bucket.full(capacity=float(tenant.tpm), rate=tenant.tpm / 60, now=now) if tenant.tpm else None

    def adapt(self, tenant: Tenant, now: Instant) -> None:
        """From now on the tenant has these limits; levels stay as far as they fit."""
        if tenant is self.tenant:
            return
        if (tenant.burst, tenant.rpm) != (self.tenant.burst, self.tenant.rpm):
            self._requests = self._requests.resized(capacity=float(tenant.burst), rate=tenant.rpm / 60, now=now)
        if not tenant.tpm:
            self._tokens = None
        elif self._tokens is None:
            self._tokens = Bucket.full(capacity=float(tenant.tpm), rate=tenant.tpm / 60, now=now)
        elif tenant.tpm != self.tenant.tpm:
            self._tokens = self._tokens.resized(capacity=float(tenant.tpm), rate=tenant.tpm / 60, now=now)
        self.tenant = tenant
        self.dry_until = Instant(0.0)

    def take(self, now: Instant, requests: int = 1) -> Answer:
        """So many requests. The answer says whether they may go on."""
        self._requests, answer = self._requests.take(float(requests), now)
        return answer

    # --- the month ----------------------------------------------------------------------------------------------------

    def pay(self, month: str, tokens: int) -> bool:
        """Take so much from the purse, if it has that."""
        self.turn(month)
        if self.purse < tokens:
            return False
        self.purse -= tokens
        return True

    def turn(self, month: str) -> None:
        """A purse is of one month: what is left of the last is nothing in the next."""
        if month != self.month:
            self.month, self.purse, self.dry_until = month, 0, Instant(0.0)

    def refund(self, month: str, tokens: int) -> None:
        """Put back what was taken, or drawn, in that month."""
        if month == self.month:
            self.purse += tokens
            self.dry_until = Instant(0.0)

    # --- a request ----------------------------------------------------------------------------------------------------

    def begin(self, cost: Cost, month: str, now: Instant) -> tuple[Hold, Answer | None]:
        """A request begins, whose budget was paid if `month` is not empty; what is left of the minute, if it has one.

        A request larger than a whole minute's tokens waits for a full bucket. Raises `TooManyAtOnce` or `OverTokens`.
        """
        tenant = self.tenant
        if tenant.concurrency and self.open >= tenant.concurrency:
            raise TooManyAtOnce(
                f"Concurrency limit reached for {tenant.name}: limit {tenant.concurrency} requests at a time, "
                f"used {self.open}, requested 1. Please try again when one of them has ended.",
                retry_after=limits.CONCURRENCY_RETRY_SECONDS,
            )
        answer, taken = None, 0
        if self._tokens is not None:
            taken = min(cost.likely, tenant.tpm)
            self._tokens, answer = self._tokens.take(float(taken), now)
            if not answer.allowed:
                raise OverTokens(
                    f"Rate limit reached for {tenant.name} on tokens per minute: limit {tenant.tpm}, "
                    f"used {tenant.tpm - answer.remaining}, requested {cost.likely} (prompt and longest answer). "
                    f"Please try again in {answer.retry_after:.3f}s.",
                    retry_after=answer.retry_after,
                )
        self.open += 1
        return Hold(self, taken, cost.most if month else 0, month), answer

    def end(self, hold: Hold, used: int, now: Instant) -> None:
        """It came to so many tokens. More than was guessed makes a debt with the minute; the month never pays more."""
        self.open -= 1
        if self._tokens is not None:
            self._tokens = self._tokens.given(float(hold.tokens - used), now)
        if hold.month:
            self.refund(hold.month, max(0, hold.budget - used))


def over_quota(tenant: Tenant, answer: Answer, requests: int = 1) -> OverQuota:
    """The refusal of requests that the bucket does not hold."""
    return OverQuota(
        f"Rate limit reached for {tenant.name} on requests per minute: limit {tenant.rpm} with bursts of "
        f"{tenant.burst}, requested {requests}. Please try again in {answer.retry_after:.3f}s.",
        retry_after=answer.retry_after,
    )


def spent(tenant: Tenant, month: str, requested: int) -> BudgetSpent:
    """The refusal of a request that the month's budget does not hold."""
    return BudgetSpent(
        f"{tenant.name} has a budget of {tenant.budget} tokens for {month}, and what is left of it, beside what open "
        f"requests may need, does not hold the {requested} that this one may come to. Ask for fewer with max_tokens, "
        f"or the operator for a larger budget."
    )
