"""The receipts a validator drew: which wait for their payload, which for their turn, and which waited too long.

1. Enter   a receipt was drawn; there is no request yet
2. Give    its gateway gives request and tokens, which must be those that were signed for
3. Turn    the workers take turns, so that one whose receipts pile up delays only its own
4. Late    a payload that did not come is not waited for any longer
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from haif.base import limits
from haif.base.clock import Instant
from haif.base.errors import WrongState
from haif.base.ids import Digest, PeerId
from haif.protocol.audits import Payload, check_payload
from haif.protocol.receipts import CheckedBundle


@dataclass(frozen=True, slots=True)
class Case:
    """A receipt that was drawn, in which epoch, and since when it waits."""

    bundle: CheckedBundle
    epoch: int
    since: Instant
    drawn: bool = True  # by our lot
    seated: bool = False  # a panel waits for it

    @property
    def receipt(self) -> Digest:
        """Its name."""
        return self.bundle.receipt.digest

    @property
    def worker(self) -> PeerId:
        """Whom it is about."""
        return self.bundle.receipt.signer


@dataclass(slots=True)
class Docket:
    """The cases that are open. Holds at most `most`."""

    most: int = limits.AUDITS_WAITING_MAX
    _waiting: OrderedDict[Digest, Case] = field(default_factory=OrderedDict)  # for the payload
    _ready: OrderedDict[Digest, Case] = field(default_factory=OrderedDict)
    _turns: OrderedDict[PeerId, None] = field(default_factory=OrderedDict)  # whose was judged longest ago comes first

    def enter(self, case: Case) -> Case | None:
        """Open a case, or have it known for what else it is.

        What is returned has no place any more: the latest of the worker with most of them, but those of panels last.
        """
        for cases in (self._waiting, self._ready):
            if (known := cases.get(case.receipt)) is not None:
                cases[case.receipt] = replace(
                    known, drawn=known.drawn or case.drawn, seated=known.seated or case.seated
                )
                return None
        self._waiting[case.receipt] = case
        if len(self) <= self.most:
            return None
        open_ = [*self._waiting.values(), *self._ready.values()]
        lots = [each for each in open_ if not each.seated] or open_
        crowd = Counter(each.worker for each in lots).most_common(1)[0][0]
        surplus = max((each for each in lots if each.worker == crowd), key=lambda each: each.since)
        self._waiting.pop(surplus.receipt, None)
        self._ready.pop(surplus.receipt, None)
        return surplus

    def wanted(self, gateway: PeerId) -> list[Digest]:
        """The receipts whose payload this gateway is asked for: those it countersigned."""
        return [case.receipt for case in self._waiting.values() if case.bundle.countersignature.signer == gateway]

    def give(self, payload: Payload, gateway: PeerId) -> None:
        """Take a payload in. Raises `WrongState` for one nobody wants of this gateway, and as `check_payload` does."""
        case = self._waiting.get(payload.receipt)
        if case is None or case.bundle.countersignature.signer != gateway:
            raise WrongState("this payload is not wanted, or not any more", gateway)
        self._ready[case.receipt] = replace(case, bundle=check_payload(payload, case.bundle))
        del self._waiting[case.receipt]

    def turn(self) -> Case | None:
        """The next case to judge, which is then closed; None while there is none. Panels do not wait for lots."""
        first: dict[PeerId, Case] = {}
        for case in [each for each in self._ready.values() if each.seated] or self._ready.values():
            first.setdefault(case.worker, case)
        if not first:
            return None
        order = {worker: place for place, worker in enumerate(self._turns)}
        worker = min(first, key=lambda each: order.get(each, -1))
        self._turns[worker] = None
        self._turns.move_to_end(worker)
        if len(self._turns) > self.most:
            self._turns.popitem(last=False)
        return self._ready.pop(first[worker].receipt)

    def drop(self, orchestrator: PeerId, worker: PeerId) -> None:
        """Close the cases about a worker that were drawn at one orchestrator: nothing more needs to be said of it."""
        for cases in (self._waiting, self._ready):
            for case in list(cases.values()):
                if not case.seated and (case.bundle.reservation.signer, case.worker) == (orchestrator, worker):
                    del cases[case.receipt]

    def late(self, now: Instant) -> Iterator[Case]:
        """The cases whose payload did not come in time; they are closed."""
        for case in list(self._waiting.values()):
            if now - case.since >= limits.AUDIT_PAYLOAD_SECONDS:
                del self._waiting[case.receipt]
                yield case

    def __len__(self) -> int:
        """How many are open."""
        return len(self._waiting) + len(self._ready)
