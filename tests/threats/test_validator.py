"""Workers that lie while nobody asked for an audit: a running validator convicts them, and nobody else."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from haif import config
from haif.artifacts.service import DEMO_NAME
from haif.base import codec
from haif.base.errors import Forbidden
from haif.base.hashing import digest
from haif.cli.main import main
from haif.identity.keys import Identity
from haif.node.settings import model_store
from haif.protocol import audits
from haif.protocol.receipts import check_bundle
from haif.testing.attacks.mesh import Inventor
from haif.testing.attacks.siblings import Siblings
from tests.support.audited_mesh import AuditedMesh, audited_mesh
from tests.support.tiny_model import build_tiny_model
from tests.unit.orchestrator.live import house, peer


def convicted(page: str) -> int:
    return sum(int(float(line.split()[-1])) for line in page.splitlines() if 'finding="convicted"' in line)


def honest_verdicts(page: str) -> int:
    return sum(int(float(line.split()[-1])) for line in page.splitlines() if 'finding="honest"' in line)


def verdicts(page: str) -> int:
    return sum(int(float(line.split()[-1])) for line in page.splitlines() if line.startswith("haif_verdicts_total{"))


async def another_model(mesh: AuditedMesh) -> None:
    await mesh.liar("liar", build_tiny_model(mesh.state / "tiny.gguf"))


async def a_lower_quantisation(mesh: AuditedMesh) -> None:
    demo = model_store(config.WorkerSettings(state=mesh.state)).find(DEMO_NAME).path
    await mesh.liar("liar", Siblings(demo, mesh.state).quantised("Q4_0"))


async def invented_tokens(mesh: AuditedMesh) -> None:
    await mesh.liar("liar", engine=Inventor)


@pytest.mark.parametrize("lie", [another_model, a_lower_quantisation, invented_tokens])
async def test_p_1_p_2_p_5_a_liar_is_convicted_unasked_and_gets_no_more_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lie: Callable[[AuditedMesh], Awaitable[None]]
) -> None:
    """Beside an honest worker, who is judged as often and never convicted, and to whom all the work goes after."""
    async with audited_mesh(tmp_path) as mesh:
        await mesh.worker("honest")
        await lie(mesh)
        await mesh.workers(2)
        asked: set[str] = set()
        while len(asked) < 2:  # both have lied or not, by now
            asked.add((await mesh.ask()).headers["x-haif-worker"])
        await mesh.until(lambda page: convicted(page) > 0)
        honest, liar = str(mesh.identity("honest").peer), str(mesh.identity("liar").peer)
        answers = [await mesh.ask() for _ in range(12)]
        assert {honest} == {answer.headers["x-haif-worker"] for answer in answers}
        await mesh.until(lambda page: honest_verdicts(page) > len(answers))
        files = list((tmp_path / "validator" / "convictions").glob("*.json"))
        assert {liar} == {json.loads(path.read_text())["worker"] for path in files}
    validator = str(mesh.identity("validator").peer)
    capsys.readouterr()
    command = ["verdict", "verify", str(files[0]), "--state", str(tmp_path), "--validator", validator]
    assert 0 == await asyncio.to_thread(main, command)
    assert liar in capsys.readouterr().out
    assert 0 == main(["verdict", "ls", "--state", str(tmp_path), "--json"])
    assert {liar} == {json.loads(line)["worker"] for line in capsys.readouterr().out.splitlines()}


async def test_what_its_tenant_keeps_to_itself_is_not_audited_and_the_receipt_says_so(tmp_path: Path) -> None:
    """The validator hears of one answer and not of the other; the worker could not tell them apart."""
    async with audited_mesh(tmp_path) as mesh:
        await mesh.worker("honest")
        await mesh.workers(1)
        secret = check_bundle((await mesh.ask(haif={"audit": False})).json()["haif"])
        open_ = check_bundle((await mesh.ask()).json()["haif"])
        assert (False, True) == tuple(each.countersignature.payload.auditable for each in (secret, open_))
        await mesh.until(lambda page: honest_verdicts(page) == 1)
        assert "haif_audits_seen_total 1.0" in await mesh.metrics("validator")


async def test_a_gateway_without_validators_gives_nothing_away(tmp_path: Path) -> None:
    async with audited_mesh(tmp_path, validator=False) as mesh:
        await mesh.worker("honest")
        await mesh.workers(1)
        assert not check_bundle((await mesh.ask()).json()["haif"]).countersignature.payload.auditable


async def test_x_6_a_stranger_is_told_nothing_and_believed_nothing(tmp_path: Path) -> None:
    """Who is no validator of this orchestrator learns of no job, convicts nobody and reveals nothing."""
    async with house(tmp_path) as home, peer(home, Identity(b"?" * 32)) as stranger:
        root = digest("root", b"")
        for method, argument in (
            (audits.ENDED_METHOD, audits.ListEnded(0)), (audits.JUDGE_METHOD, audits.Judge(b"")),
            (audits.REVEAL_METHOD, audits.Reveal(0, bytes(80))), (audits.PANELS_METHOD, audits.ListPanels(0)),
            (audits.COMMIT_METHOD, audits.Commit(root, root)), (audits.SHOW_METHOD, audits.Show(b"")),
        ):  # fmt: skip
            with pytest.raises(Forbidden):
                await stranger.call(method, codec.encode(argument))


SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object", "properties": {
    "name": {"type": "string", "maxLength": 8}, "age": {"type": "integer"}}, "required": ["name", "age"]}}}  # fmt: skip
CHATS = [
    {}, {"temperature": 0}, {"seed": 7, "top_p": 0.8, "top_k": 40, "min_p": 0.01}, {"stop": ["the", "."]}, {"n": 3},
    {"presence_penalty": 1.0, "frequency_penalty": 0.5, "repeat_penalty": 1.1}, {"logprobs": True, "top_logprobs": 3},
    {"logit_bias": {"5": -50, "9": 5}}, {"response_format": SCHEMA},
    {"max_tokens": 1}, {"max_tokens": 33}, {"stream": True},
]  # fmt: skip


async def test_honest_answers_of_every_kind_are_found_honest(tmp_path: Path) -> None:
    """What is asked for in how many ways, streamed or not, cached or not: nothing accuses an honest worker."""
    async with audited_mesh(tmp_path) as mesh:
        await mesh.worker("honest")
        await mesh.workers(1)
        turns = [{"role": "user", "content": "Tell me a story about the river."}]
        for _ in range(2):  # the second time from the cache
            for options in CHATS:
                answer = await mesh.chat(turns, **options)
                assert answer.status_code == 200, answer.text
        assert (await mesh.ask(max_tokens=None)).status_code == 200
        answers = 2 * (len(CHATS) + 2) + 1
        page = await mesh.until(lambda page: verdicts(page) == answers)
        assert answers == honest_verdicts(page), [line for line in page.splitlines() if "haif_verdicts" in line]
