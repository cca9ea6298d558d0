"""The lines of all models, as those who wait in them see them: come, be called, go, and say what was used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from haif.base import limits
from haif.base.clock import Clock, Deadline
from haif.base.errors import Timeout
from haif.gateway.errand import Errand
from haif.gateway.line import ModelLine, Wish, gave_way
from haif.gateway.service.mesh import Mesh
from haif.telemetry import names
from haif.telemetry.service import Telemetry


@dataclass(slots=True)
class Turn:
    """A slot that is ours. `used`: the tokens that the answer took, once there is one."""

    used: int | None = None


class Lines:
    """One line for each model that there are slots of. What is asked of other models waits nowhere."""

    def __init__(self, mesh: Mesh, telemetry: Telemetry, clock: Clock) -> None:
        self._mesh = mesh
        self._telemetry = telemetry
        self._clock = clock
        self._lines: dict[str, ModelLine] = {}  # of models in the catalogues of our orchestrators
        self._waiting: dict[Wish, asyncio.Future[None]] = {}

    @asynccontextmanager
    async def turn(self, errand: Errand, deadline: Deadline) -> AsyncIterator[Turn]:
        """Hold a slot of the errand's model inside the block, once it is its turn.

        Raises `Overloaded`, with when to come back, for one whose turn would come too late or who had to give way, and
        `Timeout` at its deadline.
        """
        turn, order = Turn(), errand.order
        line = self._line(order.model)
        if line is None:
            yield turn
            return
        now = self._clock.now()
        wish = Wish(order.service, order.tenant, order.weight, errand.cost, deadline.at)
        out = line.come(wish, now)
        if out is not None:
            self._waiting.pop(out).set_exception(gave_way(line.wait(out)))
        if not self._call(line, wish):
            await self._called(line, wish, order.model, deadline)
        self._telemetry.observe(
            names.GATEWAY_QUEUE_SECONDS, self._clock.now() - now, model=order.model, service=order.service.word
        )
        try:
            yield turn
        finally:
            line.done(wish, turn.used, self._clock.now())
            self._call(line)

    def _line(self, model: str) -> ModelLine | None:
        """The line of a model, with the slots there are now; None where nobody knows of any, and nobody waits."""
        slots = next((card.slots for card in self._mesh.models if card.name == model), 0)
        line = self._lines.get(model)
        if line is None:
            if not slots:
                return None
            line = self._lines[model] = ModelLine()
        line.resize(slots)
        return line

    def _call(self, line: ModelLine, newcomer: Wish | None = None) -> bool:
        """Call whose turn it is; whether that is the newcomer's, too, who need not wait then."""
        at_once = False
        for wish in line.called(self._clock.now()):
            if wish is newcomer:
                at_once = True
            else:
                self._waiting.pop(wish).set_result(None)
        return at_once

    def _left(self, deadline: Deadline) -> float:
        left = deadline.remaining(self._clock.now())
        if left <= 0:
            raise Timeout("no slot of this model was free for this tenant in time")
        return left

    async def _called(self, line: ModelLine, wish: Wish, model: str, deadline: Deadline) -> None:
        """Wait until it is the wish's turn. However else this ends, it is not in the line any more."""
        called = self._waiting[wish] = asyncio.get_running_loop().create_future()
        try:
            while not called.done():
                left = self._left(deadline)
                await asyncio.wait([called], timeout=min(left, limits.MODELS_REFRESH_SECONDS))
                self._line(model)  # workers come and go
                self._call(line)
            called.result()
        except BaseException:
            if self._waiting.pop(wish, None) is not None:
                line.leave(wish)
            elif called.exception() is None:  # it was called just when it left
                line.done(wish, None, self._clock.now())
                self._call(line)
            raise
