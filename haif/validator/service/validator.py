"""The validator: what ended is drawn, asked for, computed again, and judged.

1. Follow   each orchestrator tells which jobs ended that may be audited; their evidence must hold
2. Draw     by the secret of the epoch; nobody is told, and what is not drawn is forgotten
3. Ask      gateways come by and hear what was drawn of theirs, and give request and tokens
4. Compute  one answer at a time, the workers in turn; a conviction takes a second computation that agrees
5. Judge    the sealed verdict goes to the orchestrator that placed the job, until it is taken
6. Sit      where an orchestrator drew us into a panel (`seats`): the same, but what was found is committed to first
7. Reveal   the draw of each epoch, when the next one is over too
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from haif.base import codec, limits
from haif.base.clock import Clock, WallTime
from haif.base.codec import Message
from haif.base.errors import Dropped, HaifError, Overloaded, PeerFault, Reason, Refusal, WrongState
from haif.base.ids import Digest, NetId, PeerId
from haif.dht.service import Dht
from haif.identity.keys import Identity
from haif.identity.signing import Verified, evidence_digest
from haif.proof import lottery
from haif.protocol import methods
from haif.protocol.audits import (
    CONVICTED,
    OVERLOADED,
    PAYLOAD,
    UNDECIDED,
    AskWanted,
    Ended,
    EndedJob,
    Judge,
    ListEnded,
    Payload,
    Reveal,
    Taken,
    Verdict,
    Wanted,
    conviction,
)
from haif.protocol.offers import whereabouts
from haif.protocol.receipts import CheckedBundle, check_evidence
from haif.protocol.records import presence_topic
from haif.reach.service import Reach
from haif.telemetry import names
from haif.telemetry.service import Telemetry
from haif.validator.docket import Case, Docket
from haif.validator.service.seats import Ruled, Seats
from haif.validator.verdict import Answered, Undecided, confirmed, signed, undecided
from haif.wire.service import Call, Session, Wire

Recompute = Callable[[CheckedBundle, bool], Awaitable[Answered]]
"""Computes an answer again, by an engine that was never used if that is asked for. Raises what engines raise."""

Convicted = Callable[[Verified[Verdict], dict[str, str], str], None]
"""Told of a conviction: the verdict, the file that lets others check it, and what differs, in words."""


@dataclass(frozen=True, slots=True)
class ValidatorStatistics:
    """Receipts seen, drawn, and judged since the start; drawn and not judged yet; verdicts that nobody took yet."""

    seen: int
    drawn: int
    judged: int
    waiting: int
    untold: int


class Validator:
    """Audits the jobs of its orchestrators while the block is entered.

    What it holds of requests is in memory alone, but for what `on_convicted` keeps.
    """

    def __init__(
        self, *, orchestrators: tuple[PeerId, ...], identity: Identity, net: NetId, wire: Wire, reach: Reach, dht: Dht,
        recompute: Recompute, on_convicted: Convicted, on_ruled: Ruled, telemetry: Telemetry, clock: Clock,
    ) -> None:  # fmt: skip
        self._orchestrators = orchestrators
        self._identity = identity
        self._net = net
        self._wire, self._way = wire, reach
        self._dht = dht
        self._recompute = recompute
        self._on_convicted = on_convicted
        self._seats = Seats(
            orchestrators, me=identity.peer, enter=self._enter, on_ruled=on_ruled, telemetry=telemetry, clock=clock
        )
        self._telemetry = telemetry
        self._clock = clock
        self._docket = Docket()
        self._draws: dict[tuple[PeerId, int], bytes] = {}  # the secret outputs, of the latest epochs
        self._untold: dict[PeerId, deque[Verified[Verdict]]] = {
            peer: deque(maxlen=limits.AUDIT_VERDICTS_WAITING_MAX) for peer in orchestrators
        }
        self._entered: OrderedDict[Digest, None] = OrderedDict()  # what was drawn lately
        self._out: dict[tuple[PeerId, PeerId], WallTime] = {}  # whom we convicted, where and when
        self._revealed: dict[PeerId, int] = {}
        self._work = asyncio.Event()
        self._news = asyncio.Event()
        self._seen = self._drawn = self._judged = 0
        self._scope = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for method, handler in ((methods.AUDITS_WANTED, self._wanted), (methods.AUDITS_GIVE, self._given)):
            self._wire.serve(method.name, self._answering(handler), method.terms)
        group = await self._scope.enter_async_context(asyncio.TaskGroup())
        tasks = [group.create_task(self._follow(peer)) for peer in self._orchestrators]
        tasks += [group.create_task(self._audit()), group.create_task(self._keep_time())]
        self._scope.callback(lambda: [task.cancel() for task in tasks])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._scope.aclose()

    def statistics(self) -> ValidatorStatistics:
        """A snapshot."""
        untold = sum(map(len, self._untold.values()))
        return ValidatorStatistics(self._seen, self._drawn, self._judged, len(self._docket), untold)

    # --- 1. follow ----------------------------------------------------------------------------------------------------

    async def _follow(self, peer: PeerId) -> None:
        """Hear what ends at one orchestrator and tell it what was judged, whatever happens to it."""
        session: Session | None = None
        after = 0
        while True:
            more = False
            try:
                session = session or await self._reach(peer)
                ended = await self._ask(session, ListEnded(after))
                for job in ended.jobs:
                    self._see(peer, job)
                after, more = ended.next, bool(ended.jobs) and ended.next > after
                await self._tell(session, peer)
                await self._seats.sit(session, peer)
                await self._reveal(session, peer)
            except HaifError as error:
                session = None
                self._telemetry.dropped(Dropped(error.reason, peer, "audits"))
            if not more:
                await self._pause()

    async def _ask(self, session: Session, asked: ListEnded) -> Ended:
        reply = await session.call(methods.AUDITS_ENDED.name, codec.encode(asked), timeout=limits.CONTROL_CALL_SECONDS)
        ended = codec.decode(Ended, reply)
        if len(ended.jobs) > limits.AUDITS_LISTED_MAX or ended.next < 0:
            raise WrongState("the orchestrator tells more than it may at once", session.peer)
        return ended

    async def _pause(self) -> None:
        """Until it is time to ask again, or there is something to tell."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), limits.AUDITS_POLL_SECONDS)

    async def _reach(self, peer: PeerId) -> Session:
        place, certificate = whereabouts(await self._dht.lookup(presence_topic(self._net, peer)), peer)
        return await self._way.connect(peer, place, timeout=limits.CONTROL_CALL_SECONDS, certificate=certificate)

    # --- 2. draw ------------------------------------------------------------------------------------------------------

    def _see(self, orchestrator: PeerId, job: EndedJob) -> None:
        """Draw a receipt or not. One whose payload must be gone by now, or whose epoch is revealed, is too late."""
        epoch, now = lottery.epoch_of(job.at), self._clock.wall()
        if not -limits.CLOCK_SKEW_MS <= now - job.at <= 1000 * limits.PAYLOAD_SECONDS or lottery.may_reveal(epoch, now):
            return
        self._seen += 1
        self._telemetry.count(names.AUDITS_SEEN)
        if not lottery.is_drawn(self._draw(orchestrator, epoch), evidence_digest(job.receipt), job.per_mille):
            return
        try:
            bundle = check_evidence(job.reservation, job.receipt, job.countersignature)
            if bundle.reservation.signer != orchestrator or not bundle.countersignature.payload.auditable:
                raise WrongState("the orchestrator lists a job that is not its own, or not to be audited", orchestrator)
        except PeerFault as error:
            self._telemetry.dropped(Dropped(error.reason, orchestrator, "audits.ended"))
            return
        worker, receipt = bundle.receipt.signer, bundle.receipt.digest
        if receipt in self._entered:
            return  # listed twice
        if worker == self._identity.peer or self._is_out(orchestrator, worker):
            return  # nobody judges its own work, nor twice who is out
        self._drawn += 1
        self._telemetry.count(names.AUDITS_DRAWN)
        self._entered[receipt] = None
        if len(self._entered) > limits.JOBS_ENDED_REMEMBERED_MAX:
            self._entered.popitem(last=False)
        known = self._seats.found.get(receipt)
        if known is not None and known.payload.finding != UNDECIDED:  # a panel had us compute it before
            self._untold[orchestrator].append(known)
            return
        self._enter(Case(bundle, epoch, self._clock.now()))

    def _enter(self, case: Case) -> None:
        surplus = self._docket.enter(case)
        if surplus is not None:
            self._judge(surplus, Undecided(OVERLOADED))

    def _draw(self, orchestrator: PeerId, epoch: int) -> bytes:
        if (orchestrator, epoch) not in self._draws:
            oldest = epoch - 2
            self._draws = {key: output for key, output in self._draws.items() if key[1] >= oldest}
            _, self._draws[orchestrator, epoch] = lottery.draw(self._identity, orchestrator, epoch)
        return self._draws[orchestrator, epoch]

    # --- 3. ask -------------------------------------------------------------------------------------------------------

    def _answering(self, handler: Callable[[Call], Message]) -> Callable[[Call], Awaitable[bytes]]:
        async def answer(call: Call) -> bytes:
            try:
                return codec.encode(handler(call))
            except (PeerFault, Refusal) as error:
                self._telemetry.dropped(Dropped(error.reason, call.peer, call.method))
                raise

        return answer

    def _wanted(self, call: Call) -> Message:
        codec.decode(AskWanted, call.argument)
        return Wanted(self._docket.wanted(call.peer))

    def _given(self, call: Call) -> Message:
        self._docket.give(codec.decode(Payload, call.argument), call.peer)
        self._work.set()
        return Taken()

    # --- 4. compute ---------------------------------------------------------------------------------------------------

    async def _audit(self) -> None:
        while True:
            case = self._docket.turn()
            if case is None:
                self._work.clear()
                await self._work.wait()
                continue
            self._judge(case, await self._answer(case))

    async def _answer(self, case: Case) -> Answered | Undecided:
        started = self._clock.now()
        try:
            async with asyncio.timeout(limits.AUDIT_SECONDS):
                found = await self._recompute(case.bundle, False)
                self._telemetry.count(names.AUDIT_TOKENS, found.tokens)
                if found.difference is not None:
                    return confirmed(found, await self._recompute(case.bundle, True))
                return found
        except HaifError as error:
            self._telemetry.dropped(Dropped(error.reason, case.worker, "audit"))
            return undecided(error)
        except TimeoutError:
            self._telemetry.dropped(Dropped(Reason.TIMEOUT, case.worker, "audit"))
            return Undecided(OVERLOADED)
        finally:
            self._telemetry.observe(names.AUDIT_DURATION, self._clock.now() - started)

    # --- 5. judge -----------------------------------------------------------------------------------------------------

    def _judge(self, case: Case, found: Answered | Undecided) -> None:
        verdict = signed(self._identity, case, found, self._clock.wall())
        said = verdict.payload
        self._judged += 1
        self._seats.remember(verdict)
        self._telemetry.count(names.AUDITS_JUDGED, finding=said.finding, cause=said.cause or "none")
        if said.finding == CONVICTED:
            assert isinstance(found, Answered)
            assert found.difference is not None
            self._on_convicted(verdict, conviction(verdict, case.bundle), found.difference.words)
        if case.drawn:
            self._untold[said.orchestrator].append(verdict)
        self._news.set()

    async def _tell(self, session: Session, peer: PeerId) -> None:
        """The orchestrator takes a verdict, or says why it never will, or hears it again later."""
        self._news.clear()
        waiting = self._untold[peer]
        while waiting:
            verdict = waiting[0]
            try:
                await session.call(
                    methods.AUDITS_JUDGE.name, codec.encode(Judge(verdict.evidence)),
                    timeout=limits.CONTROL_CALL_SECONDS,
                )  # fmt: skip
            except Overloaded as error:
                self._telemetry.dropped(Dropped(error.reason, peer, "audits.judge"))
                return
            except (Refusal, PeerFault) as error:
                self._telemetry.dropped(Dropped(error.reason, peer, "audits.judge"))
            else:
                self._taken(peer, verdict.payload)
            if waiting and waiting[0] is verdict:
                waiting.popleft()

    def _taken(self, orchestrator: PeerId, said: Verdict) -> None:
        """Who is convicted gets no more work there, and takes no more of ours."""
        if said.finding == CONVICTED:
            self._out[orchestrator, said.worker] = WallTime(said.judged)
            self._docket.drop(orchestrator, said.worker)
            if len(self._out) > limits.CONVICTIONS_KEPT_MAX:
                del self._out[next(iter(self._out))]

    def _is_out(self, orchestrator: PeerId, worker: PeerId) -> bool:
        """Whether what it answered before we convicted it may still come, which says nothing more."""
        since = self._out.get((orchestrator, worker))
        return since is not None and self._clock.wall() < since + 1000 * limits.PAYLOAD_SECONDS

    # --- 7. reveal ----------------------------------------------------------------------------------------------------

    async def _reveal(self, session: Session, peer: PeerId) -> None:
        """Show the draw of the latest epoch that is long over, once."""
        epoch = lottery.epoch_of(self._clock.wall()) - 2
        if self._revealed.get(peer, -1) >= epoch:
            return
        proof, _ = lottery.draw(self._identity, peer, epoch)
        argument = codec.encode(Reveal(epoch, proof))
        with suppress(WrongState):  # its clock is behind ours: the next time will do
            await session.call(methods.AUDITS_REVEAL.name, argument, timeout=limits.CONTROL_CALL_SECONDS)
            self._revealed[peer] = epoch

    # --- time ---------------------------------------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        """Give up payloads that do not come."""
        while True:
            for case in self._docket.late(self._clock.now()):
                self._judge(case, Undecided(PAYLOAD))
            self._telemetry.gauge(names.AUDITS_WAITING, len(self._docket))
            await asyncio.sleep(limits.AUDITS_POLL_SECONDS)
