"""Whatever gateways ask for, in whatever order: each job has few attempts and one end, and the journal tells it all."""

from collections import Counter
from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from haif.base import limits
from haif.base.errors import HaifError
from haif.orchestrator import events
from haif.orchestrator.apply import fold
from haif.orchestrator.events import JobFailed, JobFinalised
from haif.orchestrator.state import State
from haif.protocol.jobs import FailJob, Placed, RetryJob
from tests.unit.orchestrator.scene import GATEWAY, OTHER_GATEWAY, WORKERS, Desk, ending, receipt, submission, ticket

JOBS = st.integers(1, 4)
GATEWAYS = st.sampled_from([GATEWAY, GATEWAY, GATEWAY, OTHER_GATEWAY])
REASONS = st.sampled_from(["timeout", "connection_lost", "engine_died"])
ATTEMPTS = st.integers(0, limits.ATTEMPTS_MAX + 1)


class Interleavings(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.desk = Desk().staffed()
        self.desk.state.ended_max = 2
        self.tickets: list[Placed] = []

    def attempt(self, action) -> None:
        try:
            done = action()
        except HaifError:
            return
        if isinstance(done, Placed):
            self.tickets.append(done)

    @rule(job=JOBS, gateway=GATEWAYS, seed=st.sampled_from([None, None, 5]), ms=st.sampled_from([2000, 60_000]))
    def submit(self, job, gateway, seed, ms) -> None:
        known = submission(job).job in {event.job for event in self.desk.happened}
        if known and self.desk.state.find(submission(job).job) is None:
            return  # the service would read it from the journal
        self.attempt(lambda: self.desk.submit(submission(job, tenant_seed=seed, deadline_ms=ms), gateway))

    @rule(job=JOBS, attempt=ATTEMPTS, gateway=GATEWAYS, tokens=st.sampled_from([0, 0, 3, 6]), reason=REASONS)
    def retry(self, job, attempt, gateway, tokens, reason) -> None:
        self.attempt(lambda: self.desk.retry(RetryJob(submission(job).job, attempt, reason, tokens), gateway))

    @rule(data=st.data(), gateway=GATEWAYS, tokens=st.sampled_from([5, 5, 6]))
    def finalise(self, data, gateway, tokens) -> None:
        if self.tickets:
            placed = data.draw(st.sampled_from(self.tickets))
            self.attempt(lambda: self.desk.finalise(ending(placed, receipt(placed, completion_tokens=tokens)), gateway))

    @rule(job=JOBS, attempt=ATTEMPTS, gateway=GATEWAYS)
    def fail(self, job, attempt, gateway) -> None:
        self.attempt(lambda: self.desk.fail(FailJob(submission(job).job, attempt, "cancelled"), gateway))

    @rule(seconds=st.sampled_from([0.1, 3.0, 12.0]))
    def time(self, seconds) -> None:
        self.desk.pass_time(seconds)

    @rule(worker=st.sampled_from(list(WORKERS)), running=st.integers(0, 4))
    def heartbeat(self, worker, running) -> None:
        self.desk.beat(worker, running)

    @invariant()
    def attempts_are_few_and_go_round_the_workers(self) -> None:
        for job in [*self.desk.state.open.values(), *self.desk.state.ended.values()]:
            assert 1 <= len(job.attempts) <= limits.ATTEMPTS_MAX
            assert all(a.worker != b.worker for a, b in pairwise(job.attempts))

    @invariant()
    def a_job_has_one_end(self) -> None:
        ends = Counter(event.job for event in self.desk.happened if isinstance(event, JobFinalised | JobFailed))
        assert all(count == 1 for count in ends.values())
        assert not set(ends) & set(self.desk.state.open)

    @invariant()
    def workers_are_busy_with_the_open_jobs_and_no_others(self) -> None:
        busy = {job: post for post, jobs in self.desk.state.busy.items() for job in jobs}
        assert busy == {job.id: (job.attempt.worker, job.model_digest) for job in self.desk.state.open.values()}

    @invariant()
    def the_journal_rebuilds_the_state(self) -> None:
        rebuilt = fold(State(ended_max=2), [events.encode(event) for event in self.desk.happened])
        assert rebuilt == self.desk.state

    @invariant()
    def no_two_tickets_are_for_the_same_attempt(self) -> None:
        seen: dict[tuple[bytes, int], bytes] = {}
        for placed in self.tickets:
            stated = ticket(placed)
            assert seen.setdefault((stated.job, stated.attempt), placed.reservation) == placed.reservation


Interleavings.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestInterleavings = Interleavings.TestCase
