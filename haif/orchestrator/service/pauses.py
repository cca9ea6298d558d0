"""Takes the operator's orders from a folder, journals them, and hears of those that other orchestrators were given.

`haif pause` leaves an order as a file of `<state>/<instance>/orders`: whoever may write there is the operator. An order
is deleted when it is in the journal, so it is carried out also if nobody was running when it was given. What is in
force is shown in the file `paused` beside it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from haif.base import limits
from haif.base.clock import Clock
from haif.base.errors import Dropped, HaifError, Reason
from haif.orchestrator import events
from haif.orchestrator.events import PauseOrdered
from haif.orchestrator.pauses import SUBJECT, Pauses, check_order
from haif.runtime.disk import read_private, remove, write_private
from haif.storage.service import Store
from haif.telemetry import names
from haif.telemetry.service import Telemetry

_log = logging.getLogger(__name__)
ORDERS: Final = "orders"
PAUSED: Final = "paused"
_ORDER: Final = msgspec.json.Decoder(PauseOrdered)


@dataclass(frozen=True, slots=True)
class Desk:
    """Where orders are left. `folder` is the orchestrator's own."""

    folder: Path

    def leave(self, order: PauseOrdered, number: str) -> Path:
        """Leave an order; it is carried out when its file is gone. Raises `InvalidRequest`."""
        path = self.folder / ORDERS / f"{order.at:020d}-{number}.json"
        write_private(path, msgspec.json.encode(check_order(order)))
        return path

    def orders(self) -> list[Path]:
        """Those left and not carried out, oldest first."""
        return sorted((self.folder / ORDERS).glob("*.json"))[: limits.PAUSE_ORDERS_AT_ONCE]

    def shown(self) -> list[PauseOrdered]:
        """What an orchestrator of this folder last said was in force."""
        try:
            return msgspec.json.decode(read_private(self.folder / PAUSED), type=list[PauseOrdered])
        except FileNotFoundError:
            return []

    def show(self, pauses: Pauses) -> None:
        """Say what is in force."""
        write_private(self.folder / PAUSED, msgspec.json.encode(pauses.in_force))


class Switch:
    """Keeps `pauses` up to date. `on_change` hears of every change."""

    def __init__(
        self, journal: Store, folder: Path, telemetry: Telemetry, clock: Clock, on_change: Callable[[Pauses], None]
    ) -> None:
        self.pauses = Pauses()
        self._journal = journal
        self._desk = Desk(folder)
        self._telemetry = telemetry
        self._clock = clock
        self._on_change = on_change
        self._shown: list[PauseOrdered] | None = None

    async def refresh(self) -> None:
        """Carry out what was ordered since, here and elsewhere. Raises what the journal raises."""
        for path in await asyncio.to_thread(self._desk.orders):
            await self._carry_out(path)
        if self._shown is None or self._journal.shared:
            await self._hear()

    async def _carry_out(self, path: Path) -> None:
        try:
            order = check_order(_ORDER.decode(read_private(path)))
        except (HaifError, msgspec.DecodeError, OSError) as error:
            _log.warning("the order %s is none, and was deleted: %s", path.name, error)
            self._telemetry.dropped(Dropped(getattr(error, "reason", Reason.MALFORMED), detail="order"))
        else:
            order = replace(order, at=self._clock.wall())
            await self._journal.append([events.encode(order)], subject=SUBJECT)
            self._take([order])
        await asyncio.to_thread(remove, path)

    async def _hear(self) -> None:
        found = [events.decode(entry) for entry in await self._journal.everywhere(SUBJECT)]
        self._take([order for order in found if isinstance(order, PauseOrdered)])

    def _take(self, orders: list[PauseOrdered]) -> None:
        self.pauses.take(orders)
        now = self.pauses.in_force
        if now == self._shown:
            return
        for order in orders:
            verb = "paused" if order.paused else "resumed"
            _log.warning("%s %s was %s by %s: %s", order.kind, order.name, verb, order.by, order.reason or "no reason")
        self._shown = now
        self._telemetry.gauge(names.PAUSES, len(now))
        self._on_change(self.pauses)
        try:
            self._desk.show(self.pauses)
        except OSError as error:  # it holds all the same
            _log.warning("what is paused could not be written down: %s", error)
