"""Workers that fail in the middle of answers: real core, tickets, receipts, orchestrator and journeys, and no socket.

The model is a toy whose next token depends on every token before; its vocabulary cuts UTF-8 characters in pieces. So a
token that is lost, doubled or computed after the wrong ones changes everything that follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import blake3
import numpy as np

from haif.base import codec, limits
from haif.base.clock import Deadline, Instant
from haif.base.errors import ConnectionLost, EngineDied, HaifError, Reason, Timeout
from haif.base.ids import JobId, Nonce, PeerId
from haif.base.sampling import Sampling, Scores
from haif.engine.core import Core
from haif.engine.mailbox import Mailbox
from haif.engine.request import Piece
from haif.gateway.ask import Ask
from haif.gateway.service.mesh import Trip
from haif.gateway.service.travel import travel
from haif.gateway.session import Journey, Ticket
from haif.identity.signing import Domain, Verified, seal
from haif.protocol.audits import Payload
from haif.protocol.inference import Answer, Chunk, End, OutputHash, Request, Run
from haif.protocol.jobs import FailJob, FinaliseJob, JobView, ModelCard, RetryJob
from haif.protocol.receipts import Countersignature, Receipt, check_bundle
from haif.protocol.sandbox import Sandbox
from haif.telemetry.service import Telemetry
from haif.worker.answer import seal_receipt
from haif.worker.service import generate
from haif.worker.ticket import Redeemed, check_ticket
from tests.support.poured import Poured
from tests.unit.orchestrator.scene import GATEWAY, MODEL, ORCHESTRATOR, WORKERS, Desk

_CHARACTERS = "etaoin shrdlu,.é水🌍"
PIECES = [b"", *(bytes([byte]) for byte in sorted(set(_CHARACTERS.encode()))), b"the ", b" and", "é".encode(), b"\n\n"]
CONTEXT_TOKENS = 600


class Babble:
    """A model: after every sequence of tokens others are likely. Token 0 ends an answer."""

    size = len(PIECES)
    apart = True

    def __init__(self) -> None:
        self._cells: dict[int, list[int]] = {}

    def decode(self, spans: Any, _adapter: Any = None) -> Any:
        rows = []
        for slot, start, tokens, due in spans:
            cells = self._cells.setdefault(slot, [])
            assert start == len(cells), "tokens are computed in order and once"
            cells.extend(tokens)
            if due:
                seed = blake3.blake3(bytes(cells)).digest()[:8]
                rows.append(3 * np.random.default_rng(int.from_bytes(seed, "big")).standard_normal(self.size))
        return np.array(rows, np.float32).reshape(-1, self.size)

    def forget(self, slot: int) -> None:
        self._cells.pop(slot, None)

    def keep(self, slot: int, count: int) -> bool:
        del self._cells[slot][count:]
        return True

    def copy(self, source: int, target: int) -> None:
        self._cells[target] = list(self._cells[source])

    def piece(self, token: int) -> bytes:
        return PIECES[token]

    def ends(self, token: int) -> bool:
        return token == 0

    def grammar(self, schema: str) -> Turns:
        return Turns()


class Turns:
    """Rules with a memory: which tokens may come depends on how many came before."""

    def __init__(self) -> None:
        self._came = 0

    def allows(self, token: int) -> bool:
        return token % 3 != self._came % 3

    def masked(self, z: Any) -> Any:
        return np.where(np.arange(len(z)) % 3 == self._came % 3, -np.inf, z)

    def accept(self, token: int) -> None:
        assert self.allows(token)
        self._came += 1


class Worker:
    """Redeems tickets on a core of its own."""

    def __init__(self, peer: PeerId) -> None:
        self.peer = peer
        self._core = Core(Babble(), slots=2, context_tokens=CONTEXT_TOKENS)
        self._redeemed = Redeemed()
        self._number = 0
        self._now = 0

    def _clock(self) -> int:
        self._now += 1
        return self._now

    async def answers(self, argument: bytes, desk: Desk) -> AsyncIterator[Answer]:
        ticket = check_ticket(
            codec.decode(Run, argument), me=self.peer, gateway=GATEWAY.peer, orchestrators={ORCHESTRATOR.peer},
            models=[MODEL], now=desk.wall,
        )  # fmt: skip
        self._redeemed.redeem(ticket.reservation.payload, GATEWAY.peer)
        wanted = generate(ticket)
        number, self._number = self._number, self._number + 1
        box = Mailbox(wanted, vocabulary=Babble.size, context_tokens=CONTEXT_TOKENS, submitted_ns=0)
        self._core.submit(number, wanted, [byte % Babble.size for byte in (wanted.text or "").encode()], self._clock())
        output = OutputHash()
        try:
            while not box.complete:
                step = self._core.step(self._clock)
                assert step.refused == []
                for each in step.retold:
                    box.retell(each)
                for each in step.outputs:
                    box.put(each)
                while (found := box.take()) is not None:
                    await asyncio.sleep(0)
                    if isinstance(found, Piece):
                        chunk = Chunk(found.first, found.tokens, found.text, found.scores)
                        output.add(chunk)
                        yield Answer(chunk=chunk)
                        continue
                    receipt = seal_receipt(
                        WORKERS[self.peer], ticket.reservation, output, found, ticket.resumed,
                        engine="babble", exact=True, sandbox=Sandbox("none", ["seccomp"]), started=desk.wall,
                        now=desk.wall,
                    )  # fmt: skip
                    yield Answer(end=End(found.finish_reason, found.prompt_tokens, 0, output.tokens, receipt))
        finally:
            self._core.cancel(number)


@dataclass(frozen=True)
class Break:
    """An attempt that ends after so many messages of the worker, and how."""

    after: int
    error: HaifError


@dataclass
class BrittleMesh:
    """Implements `gateway.service.mesh.Mesh`: an orchestrator, three workers, and a list of what breaks when."""

    breaks: list[Break] = field(default_factory=list)
    desk: Desk = field(default_factory=lambda: Desk().staffed())
    models: tuple[ModelCard, ...] = ()
    failed: list[str] = field(default_factory=list)
    finalised: int = 0

    def __post_init__(self) -> None:
        self._workers = {peer: Worker(peer) for peer in WORKERS}
        self._left = list(self.breaks)

    async def submit(self, journey: Journey, trip: Trip) -> Ticket:
        placed = self.desk.submit(journey.submission(60.0))
        return journey.placed(placed, {ORCHESTRATOR.peer}, self.desk.wall)

    async def retry(self, journey: Journey, reason: Reason, trip: Trip) -> Ticket:
        assert journey.ticket is not None
        asked = RetryJob(journey.job, journey.ticket.attempt, reason.value, journey.tokens)
        return journey.placed(self.desk.retry(asked), {ORCHESTRATOR.peer}, self.desk.wall)

    @asynccontextmanager
    async def run(self, ticket: Ticket, request: bytes, trip: Trip) -> AsyncIterator[Poured[Answer]]:
        argument = codec.encode(Run(ticket.reservation.evidence, request, list(ticket.resumed)))
        broken = self._left.pop(0) if self._left else None
        async with aclosing(self._heard(ticket.worker, argument, broken)) as answers:
            yield Poured(answers)

    async def _heard(self, worker: PeerId, argument: bytes, broken: Break | None) -> AsyncIterator[Answer]:
        count = 0
        async with aclosing(self._workers[worker].answers(argument, self.desk)) as answers:
            async for answer in answers:
                if broken is not None and count == broken.after:
                    raise broken.error
                count += 1
                yield answer

    async def finalise(
        self, ticket: Ticket, receipt: Verified[Receipt], trip: Trip, payload: Payload | None = None
    ) -> bytes:
        hand = seal(GATEWAY, Domain.COUNTERSIGNATURE, Countersignature(receipt.payload.job, receipt.digest))
        self.desk.finalise(FinaliseJob(receipt.payload.job, receipt.evidence, hand))
        self.finalised += 1
        return hand

    def report_failure(self, ticket: Ticket, reason: str) -> None:
        self.failed.append(reason)
        self.desk.fail(FailJob(ticket.reservation.payload.job, ticket.attempt, reason))

    async def show(self, job: JobId) -> JobView | None:
        return None


@dataclass(frozen=True)
class Told:
    """What a tenant got: the tokens in the order they came, the text, the logprobs, and why it ended."""

    tokens: list[int]
    text: str
    scores: list[Scores]
    finish_reason: str


def any_ask(random: Random) -> Ask:
    """Some request: sampling, penalties, stop strings, rules and logprobs as it comes."""
    request = Request(
        Nonce(random.randbytes(16)), None, "".join(random.choices("abc ", k=random.randint(1, 12))),
        random.randint(1, 80),
        Sampling(
            temperature=random.choice((0.0, 0.7, 1.3)), top_p=random.choice((1.0, 0.9)),
            repeat_penalty=random.choice((1.0, 1.3)), presence_penalty=random.choice((0.0, 0.5)),
            frequency_penalty=random.choice((0.0, 0.8)),
        ),
        random.sample(["the end", "水t", "e e", " and the", "\n\nt"], random.randint(0, 3)),
        logprobs=random.choice((None, None, 0, 3)), json_schema=random.choice((None, None, "{}")),
    )  # fmt: skip
    return Ask(
        dialect="text", model="tiny", request=request, seed=random.getrandbits(32), stream=True, include_usage=False,
        ignored=(),
    )  # fmt: skip


def any_breaks(random: Random) -> list[Break]:
    """Some ends of attempts, mostly in the middle of the stream; of few enough engines that the job is no poison."""
    kinds: list[Callable[[str], HaifError]] = [EngineDied] * (limits.POISON_DEATHS - 1)
    kinds += [ConnectionLost, ConnectionLost, Timeout, Timeout]
    return [
        Break(min(random.randint(0, 40), random.randint(0, 80)), kind("it is gone"))
        for kind in random.sample(kinds, random.randint(1, limits.ATTEMPTS_MAX - 1))
    ]


async def tell(ask: Ask, breaks: list[Break], telemetry: Telemetry) -> tuple[Told, BrittleMesh]:
    """One answer through attempts that break, its receipt checked as a stranger would."""
    mesh = BrittleMesh(breaks)
    journey = Journey(ask, job=JobId(b"j" * 16), tenant="ada", gateway=GATEWAY.peer)
    chunks: list[Chunk] = []

    async def deliver(chunk: Chunk) -> None:
        chunks.append(chunk)

    trip = Trip(Deadline.after(60.0, Instant(0.0)), "")
    settled = await travel(journey, mesh, trip, telemetry, deliver, bytes)
    text = "".join(chunk.text for chunk in chunks)
    check_bundle(settled.proof, text)
    assert mesh.finalised == 1
    return Told(
        [token for chunk in chunks for token in chunk.tokens], text,
        [scores for chunk in chunks for scores in chunk.scores], settled.receipt.finish_reason,
    ), mesh  # fmt: skip
