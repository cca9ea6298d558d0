"""Workers that sign for what they did not compute: who computes it again sees it, at the first token that differs."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec import structs

from haif import config
from haif.artifacts.service import StoredModel
from haif.base.clock import Instant, WallTime
from haif.base.conversation import Tool, Toolbox, Turn
from haif.base.errors import BadProof, BadSignature, ContextTooLong, Misuse, Unsupported
from haif.base.hashing import digest
from haif.base.ids import Nonce
from haif.base.sampling import Sampling
from haif.cli.main import main
from haif.engine.service import Engine
from haif.engine.service.settings import NATIVE
from haif.identity.keys import Identity
from haif.node.replay import replay
from haif.proof.compare import Cause, Difference
from haif.protocol.audits import conviction
from haif.protocol.inference import Request
from haif.protocol.receipts import check_bundle
from haif.testing.attacks import matrix
from haif.testing.attacks.arena import Arena
from haif.testing.attacks.liar import compute, order, sign
from haif.testing.attacks.tally import Outcome
from haif.validator.docket import Case
from haif.validator.verdict import Answered, signed
from tests.support.templates import HERMES, THINKING
from tests.support.tiny_model import build_tiny_model

HONEST = 26  # the row without an attack
ASKED = Request(Nonce(bytes(16)), None, "The river runs slowly through the", 40, Sampling(1.0), [])


@pytest.mark.parametrize("row", matrix.ROWS, ids=lambda row: f"{row.number} {row.attack}")
async def test_every_row_of_the_attack_matrix_is_caught_and_no_honest_answer_is_accused(
    tmp_path: Path, row: matrix.Row
) -> None:
    """The short run of `haif attack`; `make attack` is the whole."""
    async with Arena(tmp_path) as arena:
        cases = matrix.chosen([row.number], quick=True)
        (result,) = await matrix.play(arena, cases, tries=matrix.TRIES, quick=True, seed=1, tell=lambda row, case: None)
    assert result.broken() == []
    assert result.tally.caught > 0 or row.number == HONEST
    assert result.tally.caught == result.tally.tries
    for played in result.cases:
        if played.lacking and "exact-native" in played.case.name and not NATIVE.exists():
            continue  # that build is an extra (`make native`)
        assert not played.lacking
        assert played.tally.controls or played.tally.tries, played.case.name
        assert played.case.must is not Outcome.UNDECIDED or played.tally.undecided > 0, played.case.name


@dataclass
class Worker:
    """One with the model that it should have, and perhaps its own idea of what to compute with it."""

    arena: Arena
    engine: Engine
    model: StoredModel

    async def signed(
        self, request: Request = ASKED, *, exact: bool = True, resumed: Sequence[int] = (), **changed: Any
    ) -> dict[str, str]:
        """What a tenant is given who asked for `request`, where `changed` was computed instead."""
        what = order(Random(9), self.model, request, resumed)
        return sign(what, await compute(self.engine, what, **changed), self.engine.model, exact=exact)

    @property
    def settings(self) -> config.WorkerSettings:
        return self.arena.settings


@asynccontextmanager
async def at_work(folder: Path, model: Path | None = None, *, context_tokens: int = 0) -> AsyncIterator[Worker]:
    async with Arena(folder, model) as arena:
        yield Worker(arena, await arena.engine(context_tokens=context_tokens), arena.model)


async def test_an_honest_answer_is_proved_to_the_last_bit(tmp_path: Path) -> None:
    async with at_work(tmp_path) as worker:
        done = await replay(worker.settings, check_bundle(await worker.signed()))
        assert (40, 2) == (done.tokens, done.windows)


async def test_an_answer_that_was_gone_on_with_is_proved_from_there(tmp_path: Path) -> None:
    async with at_work(tmp_path) as worker:
        whole = check_bundle(await worker.signed())
        file = await worker.signed(resumed=whole.tokens[:13])
        assert whole.tokens == check_bundle(file).tokens
        done = await replay(worker.settings, check_bundle(file))
        assert (27, 1) == (done.tokens, done.windows)
        lie = await worker.signed(resumed=whole.tokens[:13], sampling=Sampling(0.7))
        with pytest.raises(BadProof):
            await replay(worker.settings, check_bundle(lie))


CHAT = [Turn("user", "What is the weather in Paris?")]
CITY = '{"type": "object", "properties": {"city": {"type": "string"}}}'
TOOLS = Toolbox([Tool("weather", None, CITY, strict=True)], required=True)


@pytest.mark.parametrize(
    "request_", [
        structs.replace(ASKED, text=None, chat=CHAT, tools=TOOLS), structs.replace(ASKED, text=None, chat=CHAT),
        structs.replace(ASKED, text=None, chat=CHAT, stop=["a", "the"]),
    ], ids=["calls", "thoughts", "stop"],
)  # fmt: skip
@pytest.mark.parametrize("template", [HERMES, THINKING])
async def test_honest_calls_and_thoughts_are_proved_too(tmp_path: Path, request_: Request, template: str) -> None:
    """What is said beside the text is in the digest of the text, and comes out the same."""
    path = build_tiny_model(tmp_path / "speaker.gguf", template=template)
    async with at_work(tmp_path, path) as worker:
        done = await replay(worker.settings, check_bundle(await worker.signed(request_)))
        assert done.tokens > 0


async def test_an_honest_worker_with_a_short_context_is_proved_where_the_request_leaves_the_length_to_it(
    tmp_path: Path,
) -> None:
    """Its answer ends where its context does; here there would be room for more, and nobody is accused of that."""
    request = structs.replace(ASKED, tokens_max=200, fit=True)
    async with at_work(tmp_path, context_tokens=64) as worker:
        file = await worker.signed(request)
        done = await replay(worker.settings, check_bundle(file))
        assert 0 < done.tokens < 64
        narrow = config.WorkerSettings(state=tmp_path, insecure_no_sandbox=True, threads=1, context_tokens=32)
        with pytest.raises(ContextTooLong):
            await replay(narrow, check_bundle(file))


async def test_x_6_a_false_conviction_is_seen_by_whoever_computes_the_answer_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A validator accuses an honest worker: its file is whole, and what it says is not true."""
    monkeypatch.setenv("HAIF_WORKER_INSECURE_NO_SANDBOX", "true")
    async with at_work(tmp_path) as worker:
        checked = check_bundle(await worker.signed())
    told = Answered(
        "an engine", digest("root", b""), digest("work", b""), 40, Difference(Cause.TOKENS, 3, "token 3 is another")
    )
    verdict = signed(Identity(b"v" * 32), Case(checked, 1, Instant(0)), told, WallTime(3))
    file = tmp_path / "conviction.json"
    file.write_text(json.dumps(conviction(verdict, checked)))
    command = ["verdict", "verify", str(file), "--state", str(tmp_path), "--threads", "1"]
    assert 0 == await asyncio.to_thread(main, command)
    assert 6 == await asyncio.to_thread(main, [*command, "--replay"])
    assert "the validator's verdict does not hold: nothing differs here" in capsys.readouterr().err


async def test_what_a_transcript_says_must_be_what_was_signed(tmp_path: Path) -> None:
    async with at_work(tmp_path) as worker:
        file = await worker.signed()
        other = await worker.signed(structs.replace(ASKED, tokens_max=39))
        for name in ("request", "tokens"):
            with pytest.raises(BadSignature, match="another request or other tokens"):
                check_bundle(file | {name: other[name]})


async def test_where_nothing_can_be_said_nothing_is(tmp_path: Path) -> None:
    async with at_work(tmp_path) as worker:
        file = await worker.signed()
        bare = {name: text for name, text in file.items() if name not in ("request", "tokens")}
        with pytest.raises(Misuse, match="transcript"):
            await replay(worker.settings, check_bundle(bare))
        with pytest.raises(Unsupported, match="does not claim to be exact"):
            await replay(worker.settings, check_bundle(await worker.signed(exact=False)))
