"""What keeps trouble from spreading: breakers per worker and model, doubts, a retry budget, and how long jobs take.

None of it is kept: it is learnt from the events of the last minutes, and again after a restart. What a gateway reports
is a hint that costs a worker its place in the queue until it is heard again; what its heartbeats and its session show
decides whether it is there. A gateway that lies can at worst have `limits.EJECTED_SHARE_MAX` of a model's workers
passed over for a while.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from haif.base import limits
from haif.base.clock import Instant, WallTime
from haif.base.errors import Reason
from haif.base.ids import ModelDigest, PeerId
from haif.orchestrator.events import AttemptFailed, AttemptReserved, Event, JobFailed, JobFinalised, JobSubmitted
from haif.orchestrator.state import Attempt, Job, Post
from haif.policy.breaker import Breaker, Position, Rules
from haif.policy.budget import RetryBudget

RULES: Final = Rules(
    in_a_row=limits.BREAKER_FAILURES_IN_A_ROW, window_seconds=limits.BREAKER_WINDOW_SECONDS,
    calls_min=limits.BREAKER_CALLS_MIN, share=limits.BREAKER_SHARE, open_seconds=limits.BREAKER_OPEN_SECONDS,
    open_seconds_max=limits.BREAKER_OPEN_SECONDS_MAX, probe_seconds=limits.BREAKER_PROBE_SECONDS,
)  # fmt: skip
_HINTS: Final = frozenset({Reason.CONNECTION_LOST.value, Reason.TIMEOUT.value})
_WORKERS_FAULT: Final = _HINTS | {
    reason.value
    for reason in (
        Reason.ENGINE_DIED, Reason.BAD_SIGNATURE, Reason.MALFORMED, Reason.OVERSIZE, Reason.WRONG_STATE,
        Reason.DIGEST_MISMATCH, Reason.REPLAYED, Reason.EXPIRED,
    )
}  # fmt: skip


@dataclass(slots=True)
class _Pace:
    """How long the jobs of a model take: means that forget, over about `limits.PACE_JOBS` jobs."""

    jobs: int = 0
    seconds: float = 0.0  # of a job
    token_seconds: float = 0.0

    def add(self, seconds: float, tokens: int) -> None:
        self.jobs += 1
        share = 1.0 / min(self.jobs, limits.PACE_JOBS)
        self.seconds += share * (seconds - self.seconds)
        self.token_seconds += share * (seconds / tokens - self.token_seconds)

    def is_slow(self, seconds: float, tokens: int) -> bool:
        """Whether this is so far from what is usual that it is as bad as a failure."""
        usual = self.jobs >= limits.PACE_JOBS and tokens >= limits.PACE_TOKENS_MIN
        return usual and seconds / tokens > limits.PACE_SLOW_FACTOR * self.token_seconds


@dataclass(slots=True)
class Brakes:
    """Learns from events; is asked by placement and decisions. Every memory is bounded."""

    _breakers: OrderedDict[Post, Breaker] = field(default_factory=OrderedDict)
    _doubts: dict[PeerId, Instant] = field(default_factory=dict)
    _paces: dict[ModelDigest, _Pace] = field(default_factory=dict)
    _budgets: OrderedDict[PeerId, RetryBudget] = field(default_factory=OrderedDict)

    # --- what is asked ------------------------------------------------------------------------------------------------

    def is_doubted(self, worker: PeerId) -> bool:
        """Whether an attempt was lost there since the worker was last heard."""
        return worker in self._doubts

    def ejected(self, posts: Sequence[Post], now: Instant) -> frozenset[Post]:
        """Which of the posts of one model get no work now: never more than `limits.EJECTED_SHARE_MAX` of them.

        Where more failed, those that have been out longest come back first.
        """
        out = [post for post in posts if post in self._breakers and not self._breakers[post].allows(now)]
        out.sort(key=lambda post: self._breakers[post].begun, reverse=True)
        return frozenset(out[: int(limits.EJECTED_SHARE_MAX * len(posts))])

    def may_retry(self, gateway: PeerId, now: Instant) -> bool:
        """Whether this gateway's budget has a retry left."""
        return self._budget(gateway, now).has_one(now)

    def seconds(self, model: ModelDigest) -> float:
        """How long a job of this model takes, from its reservation to its end; 0 where nobody knows yet."""
        pace = self._paces.get(model)
        return pace.seconds if pace else 0.0

    def open_count(self, now: Instant) -> int:
        """How many breakers are not closed."""
        return sum(each.position(now) is not Position.CLOSED for each in self._breakers.values())

    # --- what is learnt -----------------------------------------------------------------------------------------------

    def heard(self, worker: PeerId) -> None:
        """The worker itself says that it lives."""
        self._doubts.pop(worker, None)

    def learn(self, event: Event, job: Job, now: Instant) -> None:
        """Something happened to a job."""
        match event:
            case JobSubmitted():
                self._spend(job.gateway, self._budget(job.gateway, now).asked(now))
            case AttemptReserved():
                if event.attempt > 1:
                    self._spend(job.gateway, self._budget(job.gateway, now).retried(now))
                post = (event.worker, job.model_digest)
                if post in self._breakers:
                    self._breakers[post] = self._breakers[post].tried(now)
            case AttemptFailed():
                if event.at < job.deadline:  # else it was the tenant who gave it too little time
                    self._blame(job.attempts[event.attempt - 1], job, event.reason, now)
            case JobFailed():
                if job.attempts and not job.attempt.failure and event.reason != Reason.TIMEOUT.value:
                    self._blame(job.attempt, job, event.reason, now)
            case JobFinalised():
                self._praise(job, event.tokens - job.attempt.resumed, WallTime(event.at), now)

    def _blame(self, attempt: Attempt, job: Job, reason: str, now: Instant) -> None:
        if reason in _WORKERS_FAULT:
            self._count((attempt.worker, job.model_digest), now, well=False)
        if reason in _HINTS and len(self._doubts) < limits.WORKERS_MAX:
            self._doubts[attempt.worker] = now

    def _praise(self, job: Job, tokens: int, at: WallTime, now: Instant) -> None:
        seconds, tokens = max(0, at - job.attempt.reserved) / 1000, max(1, tokens)
        if job.model_digest not in self._paces and len(self._paces) >= limits.BREAKERS_MAX:
            return
        pace = self._paces.setdefault(job.model_digest, _Pace())
        slow = pace.is_slow(seconds, tokens)
        pace.add(seconds, tokens)
        self._count((job.attempt.worker, job.model_digest), now, well=not slow)

    def _count(self, post: Post, now: Instant, *, well: bool) -> None:
        breaker = self._breakers.pop(post, None) or Breaker(RULES, now)
        breaker = breaker.succeeded(now) if well else breaker.failed(now)
        self._breakers[post] = breaker
        if len(self._breakers) > limits.BREAKERS_MAX:
            self._breakers.popitem(last=False)

    def _budget(self, gateway: PeerId, now: Instant) -> RetryBudget:
        return self._budgets.get(gateway) or RetryBudget.full(
            share=limits.RETRY_SHARE, rate=limits.RETRIES_PER_SECOND, most=limits.RETRIES_AT_ONCE_MAX, now=now
        )

    def _spend(self, gateway: PeerId, budget: RetryBudget) -> None:
        self._budgets[gateway] = budget
        self._budgets.move_to_end(gateway)
        if len(self._budgets) > limits.RETRY_BUDGETS_MAX:
            self._budgets.popitem(last=False)
