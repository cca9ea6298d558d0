"""A real validator over real sockets, between an orchestrator and a gateway that are scripted, and lie."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from haif.base import codec, limits
from haif.base.codec import Message
from haif.base.errors import (
    BadSignature,
    ConnectionLost,
    EngineDied,
    Forbidden,
    HaifError,
    Overloaded,
    Unsupported,
    WrongState,
)
from haif.base.ids import NetId, PeerId
from haif.base.machine import Address
from haif.identity.keys import Identity, NoiseKey
from haif.identity.signing import Domain, Verified, seal
from haif.proof import lottery
from haif.proof.compare import Cause, Difference
from haif.protocol import audits, methods
from haif.protocol.audits import (
    AskWanted,
    Commit,
    Ended,
    EndedJob,
    Judge,
    ListEnded,
    ListPanels,
    Payload,
    Reveal,
    Ruling,
    Share,
    Show,
    Summoned,
    Summons,
    Taken,
    Verdict,
    Wanted,
)
from haif.protocol.offers import Presence
from haif.protocol.reach import Place
from haif.protocol.receipts import CheckedBundle, Countersignature
from haif.protocol.records import Record, RecordKind
from haif.runtime.clock import entropy
from haif.telemetry.service import Telemetry
from haif.validator.service import Validator
from haif.validator.verdict import Answered
from haif.wire.service import Call, Wire
from tests.support.reach_peers import reach_of
from tests.unit.orchestrator.live import Clock
from tests.unit.orchestrator.test_panels import convicted
from tests.unit.validator.cases import (
    ANNE,
    BOB,
    GATEWAY,
    ORCHESTRATOR,
    ROOT,
    STRANGER,
    VALIDATOR,
    WORK,
    case,
    evidence,
    payload,
)

NET = NetId(b"n" * 32)
SAME = Answered("an engine", ROOT, WORK, 3, None)
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
    seats: list[Summons] = field(default_factory=list)
    rulings: list[bytes] = field(default_factory=list)
    committed: list[Commit] = field(default_factory=list)
    shown: list[Verified[Verdict]] = field(default_factory=list)
    shared: list[bytes] = field(default_factory=list)

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

    async def panels(self, call: Call) -> bytes:
        since = codec.decode(ListPanels, call.argument).since
        return codec.encode(Summoned(self.seats, [] if since else self.rulings, 1 if self.rulings else 0))

    async def commit(self, call: Call) -> bytes:
        self.committed.append(codec.decode(Commit, call.argument))
        self.seats.clear()
        self.news.set()
        return codec.encode(Taken())

    async def show(self, call: Call) -> bytes:
        self.shown.append(audits.open_verdict(codec.decode(Show, call.argument).verdict, call.peer))
        self.seats.clear()
        self.news.set()
        return codec.encode(Taken())

    async def share(self, call: Call) -> bytes:
        self.shared.append(codec.decode(Share, call.argument).ruling)
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
async def scene(*, second: bool = False) -> AsyncIterator[Scene]:
    """With a `second` orchestrator, which has nothing to tell."""
    clock, directory = Clock(), Directory()
    ruled: list[Verified[Ruling]] = []
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
            orchestrators=(ORCHESTRATOR.peer, STRANGER.peer)[: 1 + second], identity=VALIDATOR, net=NET, wire=wire,
            reach=reach_of(VALIDATOR, wire, NET), dht=directory, recompute=recompute,
            on_convicted=lambda _verdict, file, _words: made.files.append(file),
            on_ruled=ruled.append,
            telemetry=Telemetry(role="validator", instance="test"), clock=clock,
        )  # fmt: skip
        made = Scene(validator, clock, gateway, wire.address)
        for method, handler in (
            (methods.AUDITS_ENDED, made.ended), (methods.AUDITS_JUDGE, made.judge),
            (methods.AUDITS_REVEAL, made.reveal), (methods.AUDITS_PANELS, made.panels),
            (methods.AUDITS_COMMIT, made.commit), (methods.AUDITS_SHOW, made.show),
        ):  # fmt: skip
            orchestrator.serve(method.name, handler, method.terms)
        if second:
            other = await stack.enter_async_context(wire_of(STRANGER, 0))
            directory.at[STRANGER.peer] = other.address
            for method, answer in (
                (methods.AUDITS_ENDED, Ended([], 0)), (methods.AUDITS_PANELS, Summoned([], [], 0)),
                (methods.AUDITS_REVEAL, Taken()),
            ):  # fmt: skip
                other.serve(method.name, always(answer), method.terms)
            other.serve(methods.AUDITS_SHARE.name, made.share, methods.AUDITS_SHARE.terms)
        await stack.enter_async_context(validator)
        yield made


def always(answer: Message) -> Callable[[Call], Awaitable[bytes]]:
    async def handle(_: Call) -> bytes:
        return codec.encode(answer)

    return handle


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


# --- panels -----------------------------------------------------------------------------------------------------------


def seat_in(number: int, worker: Identity = ANNE, *, shows: bool = False) -> Summons:
    return Summons(*evidence(number, worker), Clock().wall(), shows)


async def test_a_member_commits_to_what_it_computed_before_it_shows_it_and_tells_it_nobody_else() -> None:
    async with scene() as at:
        at.computes = lambda *_: OTHER
        at.seats.append(seat_in(1))
        assert [case(1).receipt] == (await at.wanted(1)).receipts
        await at.give(1)
        await at.until(lambda: bool(at.committed))
        assert ([], [False, True]) == (at.shown, at.fresh)
        at.seats.append(seat_in(1, shows=True))
        await at.until(lambda: bool(at.shown))
        (verdict,) = at.shown
        assert (verdict.digest, case(1).receipt) == (at.committed[-1].commitment, at.committed[-1].receipt)
        assert ("convicted", WORK) == (verdict.payload.finding, verdict.payload.work)
        assert [] == at.heard, "what a panel asked for is the panel's"
        assert 1 == len(at.files)


async def test_what_was_judged_already_is_not_computed_again_for_a_panel_nor_for_a_lot_after_it() -> None:
    async with scene() as at:
        at.list(1)
        await at.wanted(1)
        await at.give(1)
        await at.verdict()
        at.seats.append(seat_in(1))
        await at.until(lambda: bool(at.committed))
        assert (at.heard[0].digest, [False]) == (at.committed[0].commitment, at.fresh)
        at.seats.append(seat_in(2))
        await at.wanted(1)
        await at.give(2)
        await at.until(lambda: len(at.committed) > 1)
        at.list(2)
        assert case(2).receipt == (await at.verdict(2)).receipt
        assert [False, False] == at.fresh


async def test_what_could_not_be_decided_by_lot_is_tried_again_for_a_panel() -> None:
    async with scene() as at:
        at.list(1)
        await at.wanted(1)
        at.clock.ahead += limits.AUDIT_PAYLOAD_SECONDS
        assert "undecided" == (await at.verdict()).finding
        at.seats.append(seat_in(1))
        await at.wanted(1)
        await at.give(1)
        await at.until(lambda: bool(at.committed))


async def test_a_seat_to_judge_ones_own_work_or_of_another_orchestrator_is_not_taken() -> None:
    async with scene() as at:
        at.seats.append(seat_in(1, VALIDATOR))
        await at.read_again()
        assert [] == (await at.wanted(0)).receipts
        for refused in (replace_signature(seat_in(2)), kept_back(seat_in(2))):
            at.seats[:] = [refused]
            await at.read_again()
            assert [] == (await at.wanted(0)).receipts


def kept_back(seat: Summons) -> Summons:
    """A seat about an answer that its tenant keeps to itself."""
    hand = Countersignature(case(2).bundle.receipt.payload.job, case(2).receipt, auditable=False)
    return Summons(seat.reservation, seat.receipt, seal(GATEWAY, Domain.COUNTERSIGNATURE, hand), seat.at, False)


def replace_signature(seat: Summons) -> Summons:
    return Summons(seat.reservation, seat.receipt[:-1] + bytes([seat.receipt[-1] ^ 1]), seat.countersignature, 1, False)


async def test_more_seats_than_there_may_be_at_once_are_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PANELS_LISTED_MAX", 1)
    async with scene() as at:
        at.seats += [seat_in(1), seat_in(2)]
        await at.read_again()
        await at.wanted(0)


async def test_whom_a_panel_convicted_is_told_to_the_other_orchestrators_once() -> None:
    async with scene(second=True) as at:
        ruled = convicted()
        at.rulings.append(ruled.ruling)
        await at.until(lambda: bool(at.shared))
        await at.read_again()
        assert [ruled.ruling] == at.shared


async def test_an_accusation_that_there_is_no_room_for_is_made_again() -> None:
    async with scene() as at:
        at.refusals.append(Overloaded("panels still sit"))
        at.list(1)
        await at.wanted(1)
        await at.give(1)
        await at.verdict()
