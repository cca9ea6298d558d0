"""Workers that sign for what they did not compute: who computes it again sees it, at the first token that differs."""

import asyncio
import ctypes
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp as api
import pytest
from msgspec import structs

from haif import config
from haif.artifacts.service import DEMO_NAME
from haif.base import codec
from haif.base.clock import Instant, WallTime
from haif.base.conversation import Tool, Toolbox, Turn
from haif.base.errors import BadProof, BadSignature, ContextTooLong, Misuse, Unsupported
from haif.base.hashing import digest
from haif.base.ids import Digest, JobId, Nonce
from haif.base.sampling import Sampling
from haif.cli.main import main
from haif.cli.model import add_model
from haif.engine.request import Finished, Piece
from haif.engine.service import AdapterFile, Engine, EngineSettings
from haif.identity.keys import Identity
from haif.identity.signing import Domain, Verified, open_sealed, seal
from haif.node.replay import replay
from haif.node.settings import model_store
from haif.proof.compare import Cause, Difference
from haif.protocol.audits import conviction
from haif.protocol.inference import Chunk, OutputHash, Request, request_digest
from haif.protocol.jobs import Reservation
from haif.protocol.receipts import Countersignature, Receipt, bundle, check_bundle, transcript
from haif.protocol.seeds import drawn_seed
from haif.runtime.clock import SystemClock, entropy
from haif.validator.docket import Case
from haif.validator.verdict import Answered, signed
from haif.worker.answer import seal_receipt
from haif.worker.offer import sandbox_of
from haif.worker.service import generate
from haif.worker.ticket import Ticket
from tests.support.engines import digest_of
from tests.support.templates import HERMES, THINKING
from tests.support.tiny_model import build_tiny_model
from tools.random_adapter import random_adapter

ORCHESTRATOR, WORKER, GATEWAY = (Identity(bytes([n]) * 32) for n in range(1, 4))
ASKED = Request(Nonce(bytes(16)), None, "The river runs slowly through the", 40, Sampling(1.0), [])


@dataclass
class Cheat:
    """A worker with the model that it should have, and its own idea of what to compute with it."""

    settings: config.WorkerSettings
    engine: Engine
    name: str = DEMO_NAME

    def ticket(self, request: Request, resumed: list[int], model: str) -> Ticket:
        encoded, job = codec.encode(request), JobId(bytes(16))
        seed, proof = drawn_seed(ORCHESTRATOR, job, request_digest(encoded))
        terms = Reservation(
            job, 1, GATEWAY.peer, WORKER.peer, model_store(self.settings).find(model).digest,
            request_digest(encoded), request.tokens_max, seed, None, proof, 1, 2, 3, len(resumed),
        )  # fmt: skip
        sealed = seal(ORCHESTRATOR, Domain.RESERVATION, terms)
        return Ticket(open_sealed(Reservation, Domain.RESERVATION, sealed), request, resumed)

    async def signed(
        self, request: Request = ASKED, *, rows: tuple[Digest, ...] = (), exact: bool = True, model: str = "",
        alter: Callable[[Receipt], Receipt] = lambda receipt: receipt, claim: Callable[[Chunk], Chunk] = lambda c: c,
        resumed: Sequence[int] = (), **changed: Any,
    ) -> dict[str, str]:  # fmt: skip
        """What a tenant is given who asked for `request`, where `changed` was computed instead.

        Of what was computed, `claim` is what the worker says it was; `alter` is what it does to its receipt.
        """
        ticket, output = self.ticket(request, list(resumed), model or self.name), OutputHash()
        async with self.engine.generate(structs.replace(generate(ticket), **changed)) as events:
            async for event in events:
                if isinstance(event, Piece):
                    output.add(claim(Chunk(event.first, event.tokens, event.text, [], event.asides)))
                else:
                    done = event
        about = self.engine.model
        done = Finished(**{name: getattr(done, name) for name in done.__slots__} | ({"rows": rows} if rows else {}))
        receipt: Verified[Receipt] = open_sealed(
            Receipt,
            Domain.RECEIPT,
            seal_receipt(
                WORKER, ticket.reservation, output, done, resumed, engine=about.engine, exact=exact,
                sandbox=sandbox_of(about), verifiable=True, started=WallTime(1), now=WallTime(2),
            ),
        )  # fmt: skip
        altered = seal(WORKER, Domain.RECEIPT, alter(receipt.payload))
        receipt = open_sealed(Receipt, Domain.RECEIPT, altered)
        hand = seal(GATEWAY, Domain.COUNTERSIGNATURE, Countersignature(receipt.payload.job, receipt.digest))
        return bundle(receipt, ticket.reservation, hand) | transcript(codec.encode(request), output.token_ids)


@asynccontextmanager
async def cheat(
    folder: Path, model: Path | None = None, *, context_tokens: int = 0, adapters: Sequence[Path] = ()
) -> AsyncIterator[Cheat]:
    """With another model than it should have, if that is named."""
    settings = config.WorkerSettings(state=folder, insecure_no_sandbox=True, threads=1)
    path = model or model_store(settings).find(DEMO_NAME).path
    chosen = EngineSettings(
        path, digest_of(path), slots=2, context_tokens=context_tokens, threads=1, insecure_no_sandbox=True,
        adapters=tuple(AdapterFile(each, Digest(digest_of(each))) for each in adapters),
    )  # fmt: skip
    async with Engine(chosen, clock=SystemClock(), entropy=entropy, on_died=lambda _: None) as engine:
        yield Cheat(settings, engine)


async def test_an_honest_answer_is_proved_to_the_last_bit(tmp_path: Path) -> None:
    async with cheat(tmp_path) as worker:
        done = await replay(worker.settings, check_bundle(await worker.signed()))
        assert (40, 2) == (done.tokens, done.windows)


async def test_p_1_another_model_is_caught(tmp_path: Path) -> None:
    async with cheat(tmp_path, build_tiny_model(tmp_path / "tiny.gguf")) as worker:
        with pytest.raises(BadProof, match="the model gives"):
            await replay(worker.settings, check_bundle(await worker.signed()))


async def test_p_2_a_quantisation_one_step_lower_is_caught_though_its_tokens_are_right(tmp_path: Path) -> None:
    """At temperature 0 the weaker model may well say the same; its logits are not the same."""
    lower = tmp_path / "lower.gguf"
    demo = model_store(config.WorkerSettings(state=tmp_path)).find(DEMO_NAME).path
    params = api.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.allow_requantize = api.LLAMA_FTYPE_MOSTLY_Q4_0, 1, True
    assert api.llama_model_quantize(str(demo).encode(), str(lower).encode(), ctypes.byref(params)) == 0
    request = structs.replace(ASKED, sampling=Sampling(0.0), tokens_max=8)
    async with cheat(tmp_path, lower) as worker:
        with pytest.raises(BadProof):
            await replay(worker.settings, check_bundle(await worker.signed(request)))


@pytest.mark.parametrize(
    "changed",
    [
        {"text": "The river runs slowly"},
        {"text": "Be brief. The river runs slowly through the"},
        {"sampling": Sampling(0.7)},
        {"sampling": Sampling(1.0, top_p=0.9)},
        {"seed": digest("another seed", b"")},
        {"tokens_max": 30},
    ],
    ids=["prompt cut", "prompt injected", "temperature", "top-p", "seed", "shorter"],
)
async def test_p_5_an_answer_to_another_request_is_caught(tmp_path: Path, changed: dict[str, Any]) -> None:
    async with cheat(tmp_path) as worker:
        file = await worker.signed(**changed)
        with pytest.raises(BadProof):
            await replay(worker.settings, check_bundle(file))


@pytest.mark.parametrize("worn", ["another", "none", "weaker", "the base for it"])
async def test_p_1_a_swapped_dropped_or_scaled_adapter_is_caught(tmp_path: Path, worn: str) -> None:
    settings = config.WorkerSettings(state=tmp_path, insecure_no_sandbox=True, threads=1)
    demo = model_store(settings).find(DEMO_NAME)
    right = random_adapter(demo.path, tmp_path / "right.gguf")
    tuned = add_model(right, settings, "tuned", base=DEMO_NAME)
    swapped = {
        "another": random_adapter(demo.path, tmp_path / "another.gguf", seed=2),
        "none": None,
        "weaker": random_adapter(demo.path, tmp_path / "weaker.gguf", alpha=12.0, strength=0.375),
        "the base for it": None,
    }[worn]
    assert tuned.adapted is not None
    async with cheat(tmp_path, adapters=[right, *([swapped] if swapped else [])]) as worker:
        name = "tuned" if worn != "the base for it" else DEMO_NAME
        instead = tuned.adapted.adapter if name == DEMO_NAME else Digest(digest_of(swapped)) if swapped else None
        honest = tuned.adapted.adapter if name == "tuned" else None
        done = await replay(settings, check_bundle(await worker.signed(model=name, adapter=honest)))
        assert 40 == done.tokens
        with pytest.raises(BadProof):
            await replay(settings, check_bundle(await worker.signed(model=name, adapter=instead)))


async def test_p_5_logits_that_were_never_computed_are_caught(tmp_path: Path) -> None:
    async with cheat(tmp_path) as worker:
        invented = (digest("invented", b"1"), digest("invented", b"2"))
        with pytest.raises(BadProof, match="the logits that the worker signed for are not"):
            await replay(worker.settings, check_bundle(await worker.signed(rows=invented)))


async def test_an_answer_that_was_gone_on_with_is_proved_from_there(tmp_path: Path) -> None:
    async with cheat(tmp_path) as worker:
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
    settings = config.WorkerSettings(state=tmp_path, insecure_no_sandbox=True, threads=1)
    name = add_model(path, settings, None).name
    async with cheat(tmp_path, path) as worker:
        worker.name = name
        done = await replay(worker.settings, check_bundle(await worker.signed(request_)))
        assert done.tokens > 0


async def test_p_5_words_that_its_tokens_do_not_mean_are_caught(tmp_path: Path) -> None:
    """Tokens and logits are right to the last bit; what the tenant read is another text."""

    def told(chunk: Chunk) -> Chunk:
        return structs.replace(chunk, text=chunk.text.upper())

    async with cheat(tmp_path) as worker:
        with pytest.raises(BadProof, match="the text that was signed for is not theirs"):
            await replay(worker.settings, check_bundle(await worker.signed(claim=told)))


async def test_p_5_a_token_that_no_vocabulary_has_is_caught(tmp_path: Path) -> None:
    def told(chunk: Chunk) -> Chunk:
        return structs.replace(chunk, tokens=[1 << 31 for _ in chunk.tokens])

    async with cheat(tmp_path) as worker:
        with pytest.raises(BadProof, match="the model gives"):
            await replay(worker.settings, check_bundle(await worker.signed(claim=told)))


async def test_p_5_a_prompt_that_is_counted_longer_than_it_is_is_caught(tmp_path: Path) -> None:
    async with cheat(tmp_path) as worker:
        file = await worker.signed(alter=lambda said: structs.replace(said, prompt_tokens=said.prompt_tokens + 1))
        with pytest.raises(BadProof, match="the worker counts"):
            await replay(worker.settings, check_bundle(file))


async def test_an_honest_worker_with_a_short_context_is_proved_where_the_request_leaves_the_length_to_it(
    tmp_path: Path,
) -> None:
    """Its answer ends where its context does; here there would be room for more, and nobody is accused of that."""
    request = structs.replace(ASKED, tokens_max=200, fit=True)
    async with cheat(tmp_path, context_tokens=64) as worker:
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
    async with cheat(tmp_path) as worker:
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
    async with cheat(tmp_path) as worker:
        file = await worker.signed()
        other = await worker.signed(structs.replace(ASKED, tokens_max=39))
        for name in ("request", "tokens"):
            with pytest.raises(BadSignature, match="another request or other tokens"):
                check_bundle(file | {name: other[name]})


async def test_where_nothing_can_be_said_nothing_is(tmp_path: Path) -> None:
    async with cheat(tmp_path) as worker:
        file = await worker.signed()
        bare = {name: text for name, text in file.items() if name not in ("request", "tokens")}
        with pytest.raises(Misuse, match="transcript"):
            await replay(worker.settings, check_bundle(bare))
        with pytest.raises(Unsupported, match="does not claim to be exact"):
            await replay(worker.settings, check_bundle(await worker.signed(exact=False)))
