"""The operator's incident switch: what gets no work until it is resumed, and who said so, when and why.

    order      pause or resume a model, a worker, a tenant, or everything
    journal    each order is an entry of the chain of the orchestrator that was told: the evidence of what held when
    in force   for each of them the latest order, in whichever journal of the store it is

Nothing here stops an answer that is being computed: no work is placed, and no attempt that failed is placed again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from haif.base import limits
from haif.base.errors import Forbidden, InvalidRequest, NoWorker
from haif.base.ids import ModelDigest, PeerId
from haif.orchestrator.events import PauseOrdered

ALL = "all"
KINDS = ("model", "worker", "tenant", ALL)
SUBJECT = b"pauses"
"""What the journal entries of orders are about."""


@dataclass(slots=True)
class Pauses:
    """The latest order about each thing that any was about; `in_force` are those that pause."""

    _latest: dict[tuple[str, str], PauseOrdered] = field(default_factory=dict)

    def take(self, orders: Iterable[PauseOrdered]) -> None:
        """Take orders in, in any order and any number of times."""
        for order in orders:
            known = self._latest.get((order.kind, order.name))
            if known is None or (known.at, known.paused) < (order.at, order.paused):  # of two at once, the cautious one
                self._latest[order.kind, order.name] = order

    @property
    def in_force(self) -> list[PauseOrdered]:
        """What is paused, in the order it was said."""
        return sorted((order for order in self._latest.values() if order.paused), key=lambda order: order.at)

    @property
    def workers(self) -> frozenset[PeerId]:
        """Who gets no work."""
        return frozenset(PeerId.parse(order.name) for order in self.in_force if order.kind == "worker")

    def check(self, *, model: str, digest: ModelDigest, tenant: str) -> None:
        """Return if such a job may be placed. Raises `NoWorker`, or `Forbidden` where it is the tenant."""
        if not self._latest:
            return
        for kind, name in ((ALL, ""), ("model", model), ("model", str(digest))):
            if self._is_paused(kind, name):
                what = f"the model {model!r} is" if kind == "model" else "all work is"
                raise NoWorker(f"{what} paused by the operator", retry_after=limits.WAIT_SECONDS_MAX)
        if self._is_paused("tenant", tenant):
            raise Forbidden("the operator paused this tenant's requests: ask them")

    def _is_paused(self, kind: str, name: str) -> bool:
        order = self._latest.get((kind, name))
        return order is not None and order.paused


def check_order(order: PauseOrdered) -> PauseOrdered:
    """The order, if it can be one. Raises `InvalidRequest`."""
    if order.kind not in KINDS:
        raise InvalidRequest(f"what is paused is one of {', '.join(KINDS)}")
    if bool(order.name) == (order.kind == ALL) or len(order.name) > limits.MODEL_NAME_CHARS_MAX:
        raise InvalidRequest("a model, a worker and a tenant have a name, everything has none")
    if order.kind == "worker":
        try:
            PeerId.parse(order.name)
        except ValueError as error:
            raise InvalidRequest(f"a worker is named by its peer id: {error}") from None
    if len(order.reason) > limits.PAUSE_REASON_CHARS_MAX or len(order.by) > limits.TENANT_NAME_CHARS_MAX:
        raise InvalidRequest(f"a reason has at most {limits.PAUSE_REASON_CHARS_MAX} characters")
    return order
