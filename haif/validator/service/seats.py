"""A validator's seats in panels: what it found is committed to, then shown; and convictions travel on.

1. Ask      where an orchestrator waits for us, and whom panels convicted
2. Look     at what we have not computed yet, whatever a lot said of it
3. Commit   to the sealed verdict, and show it when the orchestrator says that all have committed
4. Share    convictions, each with its proof, with the other orchestrators; they check for themselves
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TypeVar

from haif.base import codec, limits
from haif.base.clock import Clock
from haif.base.errors import Dropped, PeerFault, Refusal, WrongState
from haif.base.ids import Digest, PeerId
from haif.identity.signing import Verified, evidence_digest
from haif.proof import lottery
from haif.proof.ruling import check_ruling
from haif.protocol import methods
from haif.protocol.audits import UNDECIDED, Commit, ListPanels, Ruling, Share, Show, Summoned, Summons, Verdict
from haif.protocol.receipts import check_evidence
from haif.telemetry.service import Telemetry
from haif.validator.docket import Case
from haif.wire.service import Session

T = TypeVar("T")

Ruled = Callable[[Verified[Ruling]], None]
"""Told of a panel's conviction, once for each."""


class Seats:
    """What panels want of the validator `me`. `enter` opens a case; `found` has the latest verdicts, by receipt."""

    def __init__(
        self, orchestrators: tuple[PeerId, ...], *, me: PeerId, enter: Callable[[Case], None], on_ruled: Ruled,
        telemetry: Telemetry, clock: Clock,
    ) -> None:  # fmt: skip
        self.found: OrderedDict[Digest, Verified[Verdict]] = OrderedDict()
        self._me = me
        self._enter = enter
        self._on_ruled = on_ruled
        self._telemetry = telemetry
        self._clock = clock
        self._taken: OrderedDict[Digest, None] = OrderedDict()  # what a panel has us look at
        self._told: dict[PeerId, int] = {}  # until when each orchestrator told its rulings
        self._rulings: OrderedDict[Digest, None] = OrderedDict()  # those that we were told
        self._unshared: dict[PeerId, deque[bytes]] = {
            peer: deque(maxlen=limits.RULINGS_KEPT_MAX) for peer in orchestrators
        }

    def remember(self, verdict: Verified[Verdict]) -> None:
        """A receipt was judged."""
        _keep(self.found, verdict.payload.receipt, verdict, limits.AUDIT_VERDICTS_WAITING_MAX)

    async def sit(self, session: Session, peer: PeerId) -> None:
        """Do what panels of an orchestrator wait for, as far as it is there; the rest at the next time."""
        asked = codec.encode(ListPanels(self._told.get(peer, 0)))
        reply = await session.call(methods.AUDITS_PANELS.name, asked, timeout=limits.CONTROL_CALL_SECONDS)
        told = codec.decode(Summoned, reply)
        if max(len(told.panels), len(told.rulings)) > limits.PANELS_LISTED_MAX:
            raise WrongState("the orchestrator tells of more panels than it may at once", peer)
        for each in told.panels:
            try:
                await self._attend(session, peer, each)
            except (PeerFault, Refusal) as error:
                self._telemetry.dropped(Dropped(error.reason, peer, "audits.panels"))
        for evidence in told.rulings:
            ruling, _ = check_ruling(evidence)
            if ruling.digest not in self._rulings:
                self._carry(ruling, peer)
        self._told[peer] = told.until
        await self._share(session, peer)

    async def _attend(self, session: Session, peer: PeerId, seat: Summons) -> None:
        """Commit to what was found about the receipt, or show it; or begin to look."""
        receipt = evidence_digest(seat.receipt)
        verdict = self.found.get(receipt)
        if verdict is None or (verdict.payload.finding == UNDECIDED and receipt not in self._taken):
            self._take(peer, receipt, seat)
            return
        method, said = (
            (methods.AUDITS_SHOW, codec.encode(Show(verdict.evidence)))
            if seat.shows
            else (methods.AUDITS_COMMIT, codec.encode(Commit(receipt, verdict.digest)))
        )
        await session.call(method.name, said, timeout=limits.CONTROL_CALL_SECONDS)

    def _take(self, peer: PeerId, receipt: Digest, seat: Summons) -> None:
        if receipt in self._taken or seat.shows:
            return
        bundle = check_evidence(seat.reservation, seat.receipt, seat.countersignature)
        if bundle.reservation.signer != peer or not bundle.countersignature.payload.auditable:
            raise WrongState("the orchestrator has us judge a job that is not its own, or not to be audited", peer)
        if bundle.receipt.signer == self._me:
            raise WrongState("the orchestrator has us judge our own work", peer)
        _keep(self._taken, receipt, None, limits.JOBS_ENDED_REMEMBERED_MAX)
        self.found.pop(receipt, None)
        self._enter(Case(bundle, lottery.epoch_of(seat.at), self._clock.now(), drawn=False, seated=True))

    def _carry(self, ruling: Verified[Ruling], source: PeerId) -> None:
        """Have all other orchestrators know of it."""
        _keep(self._rulings, ruling.digest, None, limits.JOBS_ENDED_REMEMBERED_MAX)
        for peer, waiting in self._unshared.items():
            if peer != source:
                waiting.append(ruling.evidence)
        self._on_ruled(ruling)

    async def _share(self, session: Session, peer: PeerId) -> None:
        waiting = self._unshared[peer]
        while waiting:
            argument = codec.encode(Share(waiting[0]))
            try:
                await session.call(methods.AUDITS_SHARE.name, argument, timeout=limits.CONTROL_CALL_SECONDS)
            except (Refusal, PeerFault) as error:
                self._telemetry.dropped(Dropped(error.reason, peer, "audits.share"))
            waiting.popleft()


def _keep(kept: OrderedDict[Digest, T], name: Digest, value: T, most: int) -> None:
    """Put it last, and forget the first beyond so many."""
    kept[name] = value
    kept.move_to_end(name)
    if len(kept) > most:
        kept.popitem(last=False)
