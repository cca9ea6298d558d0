"""A real validator over real sockets, between an orchestrator and a gateway that are scripted, and lie."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from haif.base import codec, limits
from haif.base.errors import BadSignature, ConnectionLost, EngineDied, Forbidden, HaifError, Unsupported, WrongState
from haif.base.ids import NetId, PeerId
from haif.base.machine import Address
from haif.identity.keys import Identity, NoiseKey
from haif.identity.signing import Verified
from haif.proof import lottery
from haif.proof.compare import Cause, Difference
from haif.protocol import audits, methods
from haif.protocol.audits import AskWanted, Ended, EndedJob, Judge, ListEnded, Payload, Reveal, Taken, Verdict, Wanted
from haif.protocol.offers import Presence
from haif.protocol.reach import Place
from haif.protocol.receipts import CheckedBundle
from haif.protocol.records import Record, RecordKind
from haif.runtime.clock import entropy
from haif.telemetry.service import Telemetry
from haif.validator.service import Validator
from haif.validator.verdict import Answered
from haif.wire.service import Call, Wire
from tests.support.reach_peers import reach_of
from tests.unit.orchestrator.live import Clock
from tests.unit.validator.cases import (
    ANNE,
    BOB,
    GATEWAY,
    ORCHESTRATOR,
    ROOT,
    STRANGER,
    VALIDATOR,
    case,
    evidence,
    payload,
)

NET = NetId(b"n" * 32)
SAME = Answered("an engine", ROOT, 3, None)
OTHER = replace(SAME, difference=Difference(Cause.TOKENS, 2, "token 2 is another"))


@dataclass
class Directory:
    """Stands where the DHT stands."""

    at: dict[PeerId, Address] = field(default_factory=dict)

    async def lookup(self, topic: bytes) -> tuple[Verified[Record], ...]:
        return tuple(
            Verified(
                Record(RecordKind.PRESENCE, topic, peer, 1, 2, False, codec.encode(Presence("", Place((at,)), b""))),
                peer, b"",
            )
            for peer, at in self.at.items()
        )  # fmt: skip


@dataclass
class Scene:
    """What the orchestrator lists and hears, and what the validator's engine would compute."""

    validator: Validator
    clock: Clock
    gateway: Wire
    at: Address
    jobs: list[EndedJob] = field(default_factory=list)
    heard: list[Verified[Verdict]] = field(default_factory=list)
    reveals: list[Reveal] = field(default_factory=list)
    refusals: list[HaifError] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    computes: Callable[[CheckedBundle, bool], Answered] = lambda *_: SAME
    fresh: list[bool] = field(default_factory=list)
    files: list[dict[str, str]] = field(default_factory=list)

    def list(self, number: int, worker: Identity = ANNE, *, per_mille: int = 1000, ago_ms: int = 0) -> None:
        """A job of this number ended so long ago."""
        self.jobs.append(EndedJob(*evidence(number, worker), self.clock.wall() - ago_ms, per_mille))

    async def call(self, method: str, argument: bytes, by: Wire | None = None) -> bytes:
        session = await (by or self.gateway).connect(self.at, VALIDATOR.peer, timeout=5)
        return await session.call(method, argument, timeout=5)

    async def wanted(self, count: int) -> Wanted:
        """What the gateway is asked for, once it is so many."""
        while True:
            found = codec.decode(Wanted, await self.call(audits.WANTED_METHOD, codec.encode(AskWanted())))
            if len(found.receipts) == count:
                return found

    async def give(self, number: int, worker: Identity = ANNE) -> None:
        given = payload(number, case(number, worker))
        await self.call(audits.GIVE_METHOD, codec.encode(given))

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not holds():
                self.news.clear()
                await self.news.wait()

    async def verdict(self, count: int = 1) -> Verdict:
        """The latest, once there are so many."""
        await self.until(lambda: len(self.heard) >= count)
        assert count == len(self.heard)
        return self.heard[-1].payload

    async def read_again(self) -> None:
        """The orchestrator was asked twice since: what it lists was read and what followed was done."""
        before = len(self.asked)
        await self.until(lambda: len(self.asked) >= before + 2)

    # the orchestrator's side

    async def ended(self, call: Call) -> bytes:
        after = codec.decode(ListEnded, call.argument).after
        self.asked.append(after)
        self.news.set()
        return codec.encode(Ended(self.jobs[after:], len(self.jobs)))

    async def judge(self, call: Call) -> bytes:
        if self.refusals:
            raise self.refusals.pop(0)
        self.heard.append(audits.open_verdict(codec.decode(Judge, call.argument).verdict, call.peer))
        self.news.set()
        return codec.encode(Taken())

    async def reveal(self, call: Call) -> bytes:
        self.reveals.append(codec.decode(Reveal, call.argument))
        self.news.set()
        return codec.encode(Taken())

    async def recompute(self, bundle: CheckedBundle, fresh: bool) -> Answered:
        self.fresh.append(fresh)
        return self.computes(bundle, fresh)


def wire_of(identity: Identity, port: int | None = None) -> Wire:
    return Wire(
        identity=identity, noise_key=NoiseKey(entropy(32)), net=NET, clock=Clock(), entropy=entropy,
        on_dropped=lambda _: None, port=port,
    )  # fmt: skip


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    clock, directory = Clock(), Directory()
    async with AsyncExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(limits, "AUDITS_POLL_SECONDS", 0.01)
        orchestrator = await stack.enter_async_context(wire_of(ORCHESTRATOR, 0))
        gateway = await stack.enter_async_context(wire_of(GATEWAY))
        wire = await stack.enter_async_context(wire_of(VALIDATOR, 0))
        directory.at[ORCHESTRATOR.peer] = orchestrator.address
        made: Scene

        async def recompute(bundle: CheckedBundle, fresh: bool) -> Answered:
            return await made.recompute(bundle, fresh)

        validator = Validator(
            orchestrators=(ORCHESTRATOR.peer,), identity=VALIDATOR, net=NET, wire=wire,
            reach=reach_of(VALIDATOR, wire, NET), dht=directory, recompute=recompute,
            on_convicted=lambda _verdict, file, _words: made.files.append(file),
            telemetry=Telemetry(role="validator", instance="test"), clock=clock,
        )  # fmt: skip
        made = Scene(validator, clock, gateway, wire.address)
        for method, handler in (
            (methods.AUDITS_ENDED, made.ended), (methods.AUDITS_JUDGE, made.judge),
            (methods.AUDITS_REVEAL, made.reveal),
        ):  # fmt: skip
            orchestrator.serve(method.name, handler, method.terms)
        await stack.enter_async_context(validator)
        yield made


async def test_a_drawn_answer_is_asked_for_computed_and_judged() -> None:
    async with scene() as at:
        at.list(1)
        assert [case(1).receipt] == (await at.wanted(1)).receipts
        await at.give(1)
        said = await at.verdict()
        assert ("honest", case(1).receipt, ANNE.peer) == (said.finding, said.receipt, said.worker)
        assert [False] == at.fresh, "one computation is enough to find nothing"
        assert [] == (await at.wanted(0)).receipts
        assert 1 == at.validator.statistics().judged


async def test_a_receipt_that_is_listed_twice_is_judged_once() -> None:
    """Else a validator that keeps its word would be made to say it again, and to ask for a request again."""
    async with scene() as at:
        at.list(1)
        await at.wanted(1)
        await at.give(1)
        await at.verdict()
        at.list(1)
        at.list(2)
        assert [case(2).receipt] == (await at.wanted(1)).receipts


async def test_what_is_not_drawn_is_never_asked_for() -> None:
    async with scene() as at:
        at.list(1, per_mille=0)
        await at.read_again()
        assert (1, 0) == (at.validator.statistics().seen, at.validator.statistics().drawn)
        await at.wanted(0)


async def test_a_lie_is_computed_twice_before_anybody_is_accused_and_once_is_enough_for_a_worker() -> None:
    async with scene() as at:
        at.computes = lambda *_: OTHER
        at.list(1)
        at.list(2)
        await at.wanted(2)
        await at.give(1)
        said = await at.verdict()
        assert ("convicted", "tokens", 2) == (said.finding, said.cause, said.place)
        assert [False, True] == at.fresh
        checked, verdict = audits.check_conviction(at.files[0])
        assert (at.heard[0], case(1).receipt) == (verdict, checked.receipt.digest)
        await at.wanted(0)  # its other case is closed
        at.list(3)
        at.list(4, BOB)
        assert [case(4, BOB).receipt] == (await at.wanted(1)).receipts


async def test_a_machine_that_errs_accuses_nobody() -> None:
    async with scene() as at:
        at.computes = lambda _, fresh: SAME if fresh else OTHER
        at.list(1)
        await at.wanted(1)
        await at.give(1)
        said = await at.verdict()
        assert ("undecided", "engine", None) == (said.finding, said.cause, said.transcript)
        assert [] == at.files


@pytest.mark.parametrize(("error", "why"), [(Unsupported("no"), "recipe"), (EngineDied("no"), "engine")])
async def test_what_cannot_be_computed_is_said_so(error: HaifError, why: str) -> None:
    def fails(*_: object) -> Answered:
        raise error

    async with scene() as at:
        at.computes = fails
        at.list(1)
        await at.wanted(1)
        await at.give(1)
        assert ("undecided", why) == ((said := await at.verdict()).finding, said.cause)


async def test_p_8_a_gateway_that_withholds_what_it_promised_leaves_the_answer_undecided() -> None:
    async with scene() as at:
        at.list(1)
        await at.wanted(1)
        at.clock.ahead += limits.AUDIT_PAYLOAD_SECONDS
        assert ("undecided", "payload") == ((said := await at.verdict()).finding, said.cause)
        with pytest.raises(WrongState, match="not wanted"):
            await at.give(1)


async def test_x_8_a_gateway_that_gives_something_else_is_refused_and_the_case_stays_open() -> None:
    async with scene() as at, wire_of(STRANGER) as stranger:
        at.list(1)
        await at.wanted(1)
        false = Payload(case(1).receipt, b"another request", [7])
        with pytest.raises(BadSignature):
            await at.call(audits.GIVE_METHOD, codec.encode(false))
        with pytest.raises(WrongState):
            await at.call(audits.GIVE_METHOD, codec.encode(payload(1)), stranger)
        await at.give(1)
        assert "honest" == (await at.verdict()).finding


async def test_an_orchestrator_that_lists_nonsense_learns_nothing_and_stops_nothing() -> None:
    async with scene() as at:
        ticket, signed, hand = evidence(1)
        other = evidence(2)
        now = at.clock.wall()
        for job in (
            EndedJob(b"", b"", b"", now, 1000),
            EndedJob(ticket, signed, other[2], now, 1000),
            EndedJob(other[0], signed, hand, now, 1000),
            EndedJob(*evidence(3, VALIDATOR), now, 1000),  # its own work
            EndedJob(ticket, signed, hand, -1, 1000),
            EndedJob(ticket, signed, hand, (1 << 64) - 1, 1000),
            EndedJob(ticket, signed, hand, now - 1000 * int(limits.PAYLOAD_SECONDS) - 1, 1000),
        ):
            at.jobs.append(job)
        await at.read_again()
        assert 0 == at.validator.statistics().drawn
        at.list(9)
        await at.wanted(1)


async def test_a_verdict_is_told_until_it_is_taken_or_refused_for_good() -> None:
    async with scene() as at:
        at.refusals = [ConnectionLost("not now"), Forbidden("never")]
        at.list(1)
        at.list(2)
        await at.wanted(2)
        await at.give(1)
        await at.until(lambda: at.refusals == [] or len(at.asked) > 10_000)
        await at.give(2)
        assert case(2).receipt == (await at.verdict()).receipt
        await at.read_again()
        assert 0 == at.validator.statistics().untold


async def test_the_draw_of_an_epoch_is_shown_when_the_next_one_is_over() -> None:
    async with scene() as at:
        await at.until(lambda: len(at.reveals) == 1)  # of the epoch before it began
        at.clock.ahead += 3 * limits.AUDIT_EPOCH_MS / 1000
        await at.until(lambda: len(at.reveals) == 2)
        for said in at.reveals:
            lottery.check_draw(VALIDATOR.peer, ORCHESTRATOR.peer, said.epoch, said.proof)
        assert lottery.epoch_of(at.clock.wall()) - 2 == at.reveals[-1].epoch
        at.list(1, per_mille=500)
        await at.read_again()
        _, output = lottery.draw(VALIDATOR, ORCHESTRATOR.peer, lottery.epoch_of(at.jobs[-1].at))
        assert lottery.is_drawn(output, case(1).receipt, 500) == (at.validator.statistics().drawn == 1)
