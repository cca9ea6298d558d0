"""Which standing each worker has, by what each validator said of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Final

from haif.base import limits
from haif.base.ids import PeerId
from haif.orchestrator.events import PanelRuled, StandingKept, VerdictGiven
from haif.proof.standing import Standing
from haif.protocol.audits import CONVICTED, HONEST, RECIPE

PANEL: Final = PeerId(bytes(PeerId.size))
"""Whose word a panel's is."""


@dataclass(slots=True)
class Standings:
    """Folds verdicts. They are kept apart by validator: what one says counts only where it is trusted now.

    `refuted`: when a panel last found that a validator had said what is not (ms). Which recipes nobody has is not kept
    in snapshots: it shows again after a few answers.
    """

    most: int = limits.STANDINGS_MAX
    _of: OrderedDict[PeerId, dict[PeerId, Standing]] = field(default_factory=OrderedDict)
    refuted: dict[PeerId, int] = field(default_factory=dict)
    _strange: OrderedDict[PeerId, tuple[int, dict[PeerId, int]]] = field(default_factory=OrderedDict, compare=False)
    _accused: set[PeerId] = field(default_factory=set)  # whom any validator ever convicted

    def learn(self, event: VerdictGiven) -> None:
        """A verdict was taken. One that is undecided moves nothing."""
        if event.cause == RECIPE:
            self._wonder(event)
        if event.finding not in (HONEST, CONVICTED):
            return
        self._strange.pop(event.worker, None)
        self._say(event.worker, event.validator, event.finding, event.at)

    def rule(self, event: PanelRuled) -> None:
        """A panel is over."""
        if event.finding == CONVICTED:
            self._say(event.worker, PANEL, CONVICTED, event.at)
        self.refuted.update(dict.fromkeys(event.refuted, event.at))

    def believed(self, validators: Collection[PeerId], now: int) -> frozenset[PeerId]:
        """Those of them whose word counts: not of whom a panel refuted lately."""
        out = {peer for peer, at in self.refuted.items() if Standing(convicted=at).is_out(now)}
        return frozenset(validators) - out

    def incomparable(self, believed: Collection[PeerId], most: int, now: int) -> frozenset[PeerId]:
        """The workers by whose recipe nobody computes, say more of these validators than `most` of them can lie.

        For `limits.RECIPE_AGAIN_SECONDS`, or until a validator could compare an answer.
        """
        return frozenset(
            worker
            for worker, (at, times) in self._strange.items()
            if now < at + 1000 * limits.RECIPE_AGAIN_SECONDS
            and sum(times.get(each, 0) >= limits.RECIPE_UNDECIDED_MAX for each in believed) > most
        )

    def _wonder(self, event: VerdictGiven) -> None:
        at, times = self._strange.pop(event.worker, (event.at, {}))
        if event.at >= at + 1000 * limits.RECIPE_AGAIN_SECONDS:
            times = {}
        times[event.validator] = times.get(event.validator, 0) + 1
        self._strange[event.worker] = event.at, times
        if len(self._strange) > self.most:
            self._strange.popitem(last=False)

    def _say(self, worker: PeerId, by: PeerId, finding: str, at: int) -> None:
        known = self._of.setdefault(worker, {})
        before = known.get(by, Standing())
        known[by] = before.honest(at) if finding == HONEST else before.guilty(at)
        self._of.move_to_end(worker)
        if finding == CONVICTED:
            self._accused.add(worker)
        if len(self._of) > self.most:
            self._forget()

    def of(self, worker: PeerId, trusted: Collection[PeerId]) -> Standing:
        """What the trusted validators together say of a worker."""
        said = self._of.get(worker, {})
        return reduce(add, (standing for validator, standing in said.items() if validator in trusted), Standing())

    def is_accused(self, worker: PeerId) -> bool:
        """Whether anybody ever convicted it."""
        return worker in self._accused

    def out(self, trusted: Collection[PeerId], now: int) -> Iterator[PeerId]:
        """The workers that get no work."""
        return (worker for worker in self._accused if self.of(worker, trusted).is_out(now))

    def kept(self) -> Iterator[StandingKept]:
        """All of it, for a snapshot."""
        for worker, said in self._of.items():
            for validator, each in said.items():
                yield StandingKept(worker, validator, each.passed, each.at, each.convicted)

    def restore(self, some: Iterable[StandingKept]) -> None:
        """Take back what a snapshot kept, in its order."""
        for each in some:
            standing = Standing(each.passed, each.at, each.convicted)
            self._of.setdefault(each.worker, {})[each.validator] = standing
            if standing.convicted:
                self._accused.add(each.worker)

    def _forget(self) -> None:
        """Of those never convicted who was judged longest ago; a crowd of newcomers washes no conviction away."""
        worker = next((worker for worker in self._of if worker not in self._accused), next(iter(self._of)))
        del self._of[worker]
        self._accused.discard(worker)
