"""An orchestrator that is told verdicts, on real sockets, with a real journal."""

from pathlib import Path

import pytest

from haif.base import codec, limits
from haif.base.errors import NoWorker
from haif.identity.signing import Domain, evidence_digest, open_sealed, seal
from haif.proof import lottery
from haif.protocol import audits
from haif.protocol.audits import Ended, EndedJob, Judge, ListEnded, Reveal, Verdict
from haif.protocol.jobs import FinaliseJob
from haif.protocol.receipts import Countersignature, Receipt
from tests.unit.orchestrator.live import House, Peer, house, peer, working
from tests.unit.orchestrator.scene import ANNE, GATEWAY, ORCHESTRATOR, WORKERS, receipt, submission, ticket
from tests.unit.orchestrator.test_audits import ROOT, TRUSTED, VALIDATOR, WORK


async def finish(gateway: Peer, job: int) -> None:
    placed = await gateway.submit(submission(job))
    evidence = receipt(placed, transcript=ROOT)
    hand = Countersignature(ticket(placed).job, evidence_digest(evidence), auditable=True)
    await gateway.finalise(FinaliseJob(ticket(placed).job, evidence, seal(GATEWAY, Domain.COUNTERSIGNATURE, hand)))


async def listed(validator: Peer) -> list[EndedJob]:
    return codec.decode(Ended, await validator.call(audits.ENDED_METHOD, codec.encode(ListEnded(0)))).jobs


async def judge(validator: Peer, job: EndedJob, finding: str, cause: str) -> None:
    said = open_sealed(Receipt, Domain.RECEIPT, job.receipt)
    verdict = Verdict(
        ORCHESTRATOR.peer, said.payload.job, said.digest, said.signer, said.payload.model, finding, cause, 0,
        "an engine", ROOT, WORK, lottery.epoch_of(job.at), job.at,
    )  # fmt: skip
    await validator.call(audits.JUDGE_METHOD, codec.encode(Judge(seal(VALIDATOR, Domain.VERDICT, verdict))))


async def reveal(home: House, validator: Peer, epoch: int) -> None:
    proof, _ = lottery.draw(VALIDATOR, ORCHESTRATOR.peer, epoch)
    await validator.call(audits.REVEAL_METHOD, codec.encode(Reveal(epoch, proof)))


async def test_a_convicted_worker_gets_nothing_more_and_a_restart_does_not_forget_it(tmp_path: Path) -> None:
    async with house(tmp_path, validators=TRUSTED) as home, working(home, WORKERS[ANNE]) as (gateway, _):
        async with peer(home, VALIDATOR) as validator:
            await finish(gateway, 1)
            (job,) = await listed(validator)
            await judge(validator, job, "convicted", "tokens")
        assert 1 == home.metric("haif_workers_convicted")
        assert 1 == home.metric('haif_verdicts_total{cause="tokens",finding="convicted"}')
        with pytest.raises(NoWorker):
            await gateway.submit(submission(2))
    async with house(tmp_path, validators=TRUSTED) as home, peer(home, VALIDATOR) as validator:
        assert 1 == home.metric("haif_workers_convicted")
        assert [] == await listed(validator), "it judged this one already"
    async with house(tmp_path) as home:  # without that validator, whatever it said counts for nothing
        assert 0 == home.metric("haif_workers_convicted")


async def test_what_a_validator_left_out_is_counted_when_it_shows_its_draw(tmp_path: Path) -> None:
    async with house(tmp_path, validators=TRUSTED) as home, working(home, WORKERS[ANNE]) as (gateway, _):
        for number in (1, 2, 3):
            await finish(gateway, number)
        async with peer(home, VALIDATOR) as validator:
            jobs = await listed(validator)
            await judge(validator, jobs[0], "honest", "")
        home.clock.ahead += 2 * limits.AUDIT_EPOCH_MS / 1000
        async with peer(home, VALIDATOR) as validator:
            for _ in range(2):  # the second time changes nothing
                await reveal(home, validator, lottery.epoch_of(jobs[0].at))
        assert (3, 2, 0) == tuple(home.metric(f"haif_audits_{name}_total") for name in ("due", "missed", "undrawn"))
