"""Panels on real sockets, with a real journal: a worker is set aside, judged by several, and out or back at work."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from haif.base import codec, limits
from haif.base.errors import NoWorker, WrongState
from haif.identity.signing import Domain, evidence_digest, open_sealed, seal
from haif.proof import lottery
from haif.proof.committee import Elector
from haif.proof.ruling import check_ruling
from haif.protocol import audits
from haif.protocol.audits import RECIPE, UNDECIDED, Commit, EndedJob, Judge, ListPanels, Share, Show, Summoned, Verdict
from haif.protocol.heartbeats import Repute
from haif.protocol.receipts import Receipt
from tests.unit.orchestrator.live import House, Peer, house, peer, working
from tests.unit.orchestrator.scene import ANNE, ORCHESTRATOR, WORKERS, load, submission
from tests.unit.orchestrator.test_audits import ROOT, WORK
from tests.unit.orchestrator.test_audits_live import finish, listed
from tests.unit.orchestrator.test_panels import NAMES, VALIDATORS, convicted

SIX = NAMES[:6]
SETTINGS = {"validators": frozenset(SIX), "roster": tuple(Elector(each) for each in SIX)}
TRUTH, LIE = ("convicted", "tokens"), ("honest", "")


@asynccontextmanager
async def sessions(home: House) -> AsyncIterator[list[Peer]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(peer(home, VALIDATORS[each])) for each in SIX]


def said(receipt: bytes, at: int, finding: str, cause: str) -> Verdict:
    opened = open_sealed(Receipt, Domain.RECEIPT, receipt)
    return Verdict(
        ORCHESTRATOR.peer, opened.payload.job, opened.digest, opened.signer, opened.payload.model, finding, cause, 0,
        *(("", None, None) if finding == UNDECIDED else ("an engine", ROOT, WORK)), lottery.epoch_of(at), at,
    )  # fmt: skip


async def judge(validator: Peer, job: EndedJob, finding: str, cause: str) -> None:
    verdict = seal(validator.identity, Domain.VERDICT, said(job.receipt, job.at, finding, cause))
    await validator.call(audits.JUDGE_METHOD, codec.encode(Judge(verdict)))


async def told(validator: Peer, since: int = 0) -> Summoned:
    return codec.decode(Summoned, await validator.call(audits.PANELS_METHOD, codec.encode(ListPanels(since))))


async def sit(validators: list[Peer], finding: str, cause: str) -> None:
    """Whoever has a seat commits, and then shows."""
    for phase in (False, True):
        for each in validators:
            for seat in (await told(each)).panels:
                sealed = seal(each.identity, Domain.VERDICT, said(seat.receipt, seat.at, finding, cause))
                if phase:
                    await each.call(audits.SHOW_METHOD, codec.encode(Show(sealed)))
                else:
                    commit = Commit(evidence_digest(seat.receipt), evidence_digest(sealed))
                    await each.call(audits.COMMIT_METHOD, codec.encode(commit))


async def test_who_is_accused_waits_and_who_a_panel_convicts_is_out_also_after_a_restart(tmp_path: Path) -> None:
    async with house(tmp_path, **SETTINGS) as home, working(home, WORKERS[ANNE]) as (gateway, worker):
        async with sessions(home) as six:
            await finish(gateway, 1)
            (job,) = await listed(six[0])
            await judge(six[0], job, *TRUTH)
            assert Repute.FINE is await worker.beat(load()), "it is told of nothing that is not decided"
            assert (0, 1, 1) == tuple(
                home.metric(f"haif_{name}") for name in ("workers_convicted", "workers_aside", "panels_open")
            )
            with pytest.raises(NoWorker):
                await gateway.submit(submission(2))
            assert [] == (await told(six[0])).panels, "the accuser has no seat"
            await sit(six, *TRUTH)
            (ruling,) = (await told(six[3])).rulings
            _, signers = check_ruling(ruling, ORCHESTRATOR.peer)
            assert {*SIX[1:]} == {*signers}
            assert [] == (await told(six[3], (await told(six[3])).until)).rulings
        assert (1, 0, 0) == tuple(
            home.metric(f"haif_{name}") for name in ("workers_convicted", "workers_aside", "panels_open")
        )
        assert 1 == home.metric('haif_panels_total{finding="convicted"}')
        assert Repute.CONVICTED is await worker.beat(load())
    async with house(tmp_path, **SETTINGS) as home:
        assert (1, 0) == (home.metric("haif_workers_convicted"), home.metric("haif_workers_aside"))


async def test_n_3_a_lying_validator_keeps_a_worker_out_only_until_the_panel_has_looked(tmp_path: Path) -> None:
    async with house(tmp_path, **SETTINGS) as home, working(home, WORKERS[ANNE]) as (gateway, _), sessions(home) as six:
        await finish(gateway, 1)
        (job,) = await listed(six[0])
        await judge(six[0], job, *TRUTH)
        await sit(six, *LIE)
        assert (0, 0, 1) == tuple(
            home.metric(f"haif_{name}") for name in ("workers_convicted", "workers_aside", "validators_refuted")
        )
        await finish(gateway, 2)
        _, second = await listed(six[1])
        await judge(six[0], second, *TRUTH)  # it may say so, and nobody listens
        assert 0 == home.metric("haif_workers_aside")
        await finish(gateway, 3)


async def test_a_panel_that_sat_when_the_process_ended_sits_again_and_one_that_nobody_attends_ends(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, **SETTINGS) as home, working(home, WORKERS[ANNE]) as (gateway, _), sessions(home) as six:
        await finish(gateway, 1)
        await judge(six[0], (await listed(six[0]))[0], *TRUTH)
    async with house(tmp_path, **SETTINGS) as home, sessions(home) as six:
        assert (1, 1) == (home.metric("haif_workers_aside"), home.metric("haif_panels_open"))
        assert 1 == len((await told(six[1])).panels)
        home.clock.ahead += limits.PANEL_COMMIT_MS / 1000
        while home.metric("haif_panels_open"):
            await told(six[1])
        assert 1 == home.metric('haif_panels_total{finding="undecided"}')
        assert (0, 0) == (home.metric("haif_workers_aside"), home.metric("haif_workers_convicted"))


async def test_what_nobody_doubts_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PANEL_LOOK_PER_MILLE", 1000)
    async with house(tmp_path, **SETTINGS) as home, working(home, WORKERS[ANNE]) as (gateway, _), sessions(home) as six:
        await finish(gateway, 1)
        await judge(six[0], (await listed(six[0]))[0], *LIE)
        assert (0, 1) == (home.metric("haif_workers_aside"), home.metric("haif_panels_open"))
        await sit(six, *TRUTH)
        assert (1, 1) == (home.metric("haif_workers_convicted"), home.metric("haif_validators_refuted"))


async def test_where_each_convicts_alone_no_panel_sits(tmp_path: Path) -> None:
    async with house(tmp_path, validators=frozenset(SIX)) as home, sessions(home) as six:
        assert Summoned([], [], 0) == await told(six[0])
        with pytest.raises(WrongState, match="no panels sit here"):
            await six[0].call(audits.COMMIT_METHOD, codec.encode(Commit(ROOT, ROOT)))


async def test_a_conviction_that_a_validator_brings_from_elsewhere_counts_here_too(tmp_path: Path) -> None:
    ruled = convicted()  # in a simulated court of nine, of which six are ours
    async with house(tmp_path, **SETTINGS) as home, sessions(home) as six:
        home.clock.ahead = (ruled.at - home.clock.wall()) / 1000
        for _ in range(2):
            await six[0].call(audits.SHARE_METHOD, codec.encode(Share(ruled.ruling)))
        assert 1 == home.metric("haif_workers_convicted")
        assert [ruled.ruling] == (await told(six[1])).rulings


async def test_a_worker_that_no_validator_can_compare_is_told_so(tmp_path: Path) -> None:
    async with (
        house(tmp_path, **SETTINGS) as home,
        working(home, WORKERS[ANNE]) as (gateway, worker),
        sessions(home) as six,
    ):
        for number in range(1, limits.RECIPE_UNDECIDED_MAX + 1):
            await finish(gateway, number)
            for each in six[:3]:  # more of six than may lie
                (job,) = await listed(each)
                await judge(each, job, UNDECIDED, RECIPE)
        assert Repute.INCOMPARABLE is await worker.beat(load())
        assert 1 == home.metric("haif_workers_incomparable")
        with pytest.raises(NoWorker, match="by a recipe that no validator here has"):
            await gateway.submit(submission(99))
