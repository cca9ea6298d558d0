"""A real worker with a real engine, between a scripted orchestrator and a scripted gateway on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from haif.base import codec, limits
from haif.base.adapters import Adapted
from haif.base.codec import Message
from haif.base.errors import ContextTooLong, Forbidden, ModelLoading, Reason, Replayed, Unsupported, WrongState
from haif.base.ids import Digest, JobId, ModelDigest, NetId, Nonce, PeerId, Seed
from haif.base.sampling import Sampling
from haif.base.tasks import Task, tasks_of
from haif.dht.service import Dht
from haif.identity.keys import Identity, NoiseKey
from haif.identity.signing import Domain, Verified, open_sealed, seal
from haif.identity.voice import Voice
from haif.node.worker import repute_text
from haif.protocol import embeddings, heartbeats, inference
from haif.protocol.embeddings import EmbedAnswer, EmbedRequest, embed_digest, vectors_digest
from haif.protocol.heartbeats import Acknowledged, Heartbeat, Repute
from haif.protocol.inference import Answer, OutputHash, Request, Run, request_digest
from haif.protocol.jobs import Reservation
from haif.protocol.offers import Offer, Presence
from haif.protocol.prefixes import prefix_tags
from haif.protocol.reach import Place
from haif.protocol.receipts import Receipt, check_receipt
from haif.protocol.records import RecordKind, offer_topic, presence_topic
from haif.runtime.clock import SystemClock, entropy
from haif.telemetry.service import Telemetry
from haif.wire.service import Call, Wire
from haif.worker.service import Pool, Worker, WorkerSettings
from haif.worker.standing import State
from tests.support.engines import digest_of
from tests.support.pools import pool_of, served, states, until
from tests.support.reach_peers import reach_of
from tests.support.tiny_encoder import build_tiny_encoder
from tests.support.tiny_model import build_tiny_model
from tools.random_adapter import random_adapter

NET = NetId(b"n" * 32)
CLOCK = SystemClock()
WORKER, ORCHESTRATOR, GATEWAY = (Identity(bytes([n]) * 32) for n in (1, 2, 3))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@dataclass
class Scene:
    """A worker at work, and what the orchestrator heard."""

    worker: Worker
    pool: Pool
    model: ModelDigest
    wire: Wire
    orchestrator: Wire
    gateway: Wire
    dht: Dht
    telemetry: Telemetry
    heard: list[Heartbeat] = field(default_factory=list)

    def ticket(
        self, request: Message, signer: Identity = ORCHESTRATOR, *, digest: Any = request_digest, **changes: Any
    ) -> bytes:  # fmt: skip
        """A run request with a reservation for just that."""
        body = codec.encode(request)
        now = CLOCK.wall()
        fields: dict[str, Any] = {
            "job": JobId(entropy(16)), "attempt": 1, "gateway": GATEWAY.peer, "worker": WORKER.peer,
            "model": self.model, "request_digest": digest(body), "tokens_max": 64, "seed": Seed(bytes(32)),
            "tenant_seed": None, "seed_proof": b"",
            "issued": now, "expires": now + 30_000, "deadline": now + 60_000,
        }  # fmt: skip
        return codec.encode(Run(seal(signer, Domain.RESERVATION, Reservation(**(fields | changes))), body))

    async def run(self, argument: bytes) -> list[Answer]:
        session = await self.gateway.connect(self.wire.address, WORKER.peer, timeout=10)
        async with session.stream(inference.METHOD, argument, timeout=60) as messages:
            return [codec.decode(Answer, message) async for message in messages]


def wire_of(identity: Identity, port: int | None) -> Wire:
    return Wire(
        identity=identity, noise_key=NoiseKey(entropy(32)), net=NET, clock=CLOCK, entropy=entropy,
        on_dropped=lambda _: None, port=port,
    )  # fmt: skip


def dht_of(identity: Identity, *bootstrap: tuple[str, int]) -> Dht:
    return Dht(identity=identity, net=NET, clock=CLOCK, entropy=entropy, bootstrap=bootstrap, on_dropped=lambda _: None)


@asynccontextmanager
async def scene(
    model: Path,
    *more: Path,
    memory_bytes: int = 1 << 40,
    context_tokens: int = 512,
    adapters: Sequence[Path] = (),
    reputes: Sequence[Repute] = (Repute.FINE,),
    told: Callable[[PeerId, Repute], None] = lambda *_: None,
) -> AsyncIterator[Scene]:
    """The worker's neighbours first, as in a mesh; then the worker.

    With each heartbeat the orchestrator says the next of `reputes`, of which the worker tells `told`.
    """
    heard: list[Heartbeat] = []
    ear = Voice(ORCHESTRATOR, NET, CLOCK, entropy)

    async def beat(call: Call) -> bytes:
        live = ear.hear(Heartbeat, heartbeats.HEARTBEAT, call.argument, call.scope)
        assert live.header.sender == call.peer == WORKER.peer
        heard.append(live.body)
        return codec.encode(Acknowledged(live.header.nonce, reputes[min(len(heard), len(reputes)) - 1]))

    async with AsyncExitStack() as stack:
        orchestrator = await stack.enter_async_context(wire_of(ORCHESTRATOR, 0))
        orchestrator.serve(heartbeats.METHOD, beat)
        directory = await stack.enter_async_context(dht_of(ORCHESTRATOR))
        presence = codec.encode(Presence("orchestrator", Place((orchestrator.address,)), orchestrator.certificate))
        topic = presence_topic(NET, ORCHESTRATOR.peer)
        await directory.publish(RecordKind.PRESENCE, topic, presence, ttl_ms=60_000)
        gateway = await stack.enter_async_context(wire_of(GATEWAY, None))
        pool = await stack.enter_async_context(
            pool_of(
                served(model, context_tokens=context_tokens, adapters=adapters),
                *map(served, more),
                memory_bytes=memory_bytes,
            )
        )
        telemetry = await stack.enter_async_context(Telemetry(role="worker", instance="test"))
        wire = await stack.enter_async_context(wire_of(WORKER, 0))
        dht = await stack.enter_async_context(dht_of(WORKER, directory.address))
        worker = Worker(
            settings=WorkerSettings(orchestrators=frozenset({ORCHESTRATOR.peer})),
            identity=WORKER, net=NET, wire=wire, reach=reach_of(WORKER, wire, NET), dht=dht,
            voice=Voice(WORKER, NET, CLOCK, entropy), pool=pool,
            telemetry=telemetry, clock=CLOCK, entropy=entropy, on_repute=told,
        )  # fmt: skip
        async with worker:
            yield Scene(worker, pool, digest_of(model), wire, orchestrator, gateway, directory, telemetry, heard)
        assert heard[-1] == Heartbeat([])  # it says goodbye
        for each in (model, *more):
            assert await directory.lookup(offer_topic(NET, digest_of(each))) == ()


def asked(**changes: Any) -> Request:
    fields: dict[str, Any] = {
        "nonce": Nonce(bytes(16)), "chat": None, "text": "once upon", "tokens_max": 12, "sampling": Sampling(),
        "stop": [],
    }  # fmt: skip
    return Request(**(fields | changes))


async def test_a_worker_is_met_in_one_round_trip_at_the_very_first_contact(model: Path) -> None:
    """Noise IK both ways: what the directory says of a peer has the certificate of its key."""
    async with scene(model) as at:
        assert len(at.orchestrator._machines.times) == 1  # the worker had never met it
        (record,) = await at.dht.lookup(offer_topic(NET, at.model))
        offer = codec.decode(Offer, record.payload.body)
        assert len(record.payload.body) <= limits.RECORD_BODY_BYTES_MAX
        await at.gateway.connect(offer.place.addresses[0], WORKER.peer, timeout=10, certificate=offer.certificate)
        assert len(at.wire._machines.times) == 1


async def test_its_owner_is_told_what_an_orchestrator_thinks_of_it_when_that_changes(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HEARTBEAT_SECONDS", 0.01)
    told: list[tuple[PeerId, Repute]] = []
    changed = asyncio.Event()

    def hear(orchestrator: PeerId, repute: Repute) -> None:
        told.append((orchestrator, repute))
        changed.set()

    reputes = (Repute.FINE, Repute.INCOMPARABLE, Repute.INCOMPARABLE, Repute.FINE)
    async with scene(model, reputes=reputes, told=hear), asyncio.timeout(20):
        while len(told) < 2:
            changed.clear()
            await changed.wait()
    assert [(ORCHESTRATOR.peer, Repute.INCOMPARABLE), (ORCHESTRATOR.peer, Repute.FINE)] == told
    texts = [repute_text(*each) for each in told]
    assert "no validator there computes by its recipe" in texts[0]
    assert "all kinds of work again" in texts[1]


async def test_a_worker_offers_the_key_it_has_now(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEARTBEAT_SECONDS", 0.05)
    async with scene(model) as at:
        at.wire._machines.statics._kept = ()
        renewed = at.wire.certificate
        async with asyncio.timeout(20):
            while True:
                (record,) = await at.dht.lookup(offer_topic(NET, at.model))
                if codec.decode(Offer, record.payload.body).certificate == renewed:
                    break


def pulses() -> int:
    return sum("Worker._pulse" in repr(task.get_coro()) for task in asyncio.all_tasks())


async def test_a_worker_that_is_stopped_while_it_enters_leaves_no_task_behind(model: Path) -> None:
    other = Identity(b"o" * 32)
    async with scene(model) as at, wire_of(other, 0) as wire, dht_of(other, at.dht.address) as dht:
        worker = Worker(
            settings=WorkerSettings(orchestrators=frozenset({GATEWAY.peer})),
            identity=other, net=NET, wire=wire, reach=reach_of(other, wire, NET), dht=dht,
            voice=Voice(other, NET, CLOCK, entropy), pool=at.pool, telemetry=at.telemetry, clock=CLOCK,
            entropy=entropy,
        )  # fmt: skip
        before = pulses()
        entering = asyncio.create_task(worker.__aenter__())
        while pulses() == before:
            await asyncio.sleep(0)
        entering.cancel()
        await asyncio.wait([entering])
        assert entering.cancelled()
        assert before == pulses()


async def test_a_worker_is_offered_heard_and_answers_with_a_receipt(model: Path) -> None:
    async with scene(model) as at:
        assert at.worker.heard_by == {ORCHESTRATOR.peer}
        assert [load.slots for load in at.heard[0].loads] == [4]
        (record,) = await at.dht.lookup(offer_topic(NET, at.model))
        offer = codec.decode(Offer, record.payload.body)
        assert offer.place == Place((at.wire.address,))

        argument = at.ticket(asked())
        answers = await at.run(argument)
        output = OutputHash()
        for answer in answers[:-1]:
            assert answer.chunk is not None
            output.add(answer.chunk)
        end = answers[-1].end
        assert end is not None
        reservation: Verified[Reservation] = open_sealed(
            Reservation, Domain.RESERVATION, codec.decode(Run, argument).reservation
        )
        receipt = check_receipt(
            end.receipt, reservation, output.tokens_digest(), output.text_digest(), output.tokens
        ).payload
        assert (receipt.finish_reason, receipt.sandbox) == (end.finish_reason, offer.sandbox)
        assert 'haif_worker_requests_total{outcome="ok"} 1.0' in at.telemetry.exposition().decode()


async def test_beginnings_that_were_computed_are_told_in_the_next_heartbeat(model: Path) -> None:
    async with scene(model) as at:
        assert [[]] == [load.hot for load in at.heard[0].loads]
        request = asked(text="once upon a time " * 20, scope=b"a tenant's")
        await at.run(at.ticket(request))
        assert [prefix_tags(request)] == [load.hot for load in at.worker._loads()]
        assert prefix_tags(request)


async def test_a_ticket_is_redeemed_once_even_if_the_answer_was_lost(model: Path) -> None:
    async with scene(model) as at:
        argument = at.ticket(asked())
        await at.run(argument)
        with pytest.raises(Replayed):
            await at.run(argument)
        assert f'haif_dropped_total{{reason="{Reason.REPLAYED}"}} 1.0' in at.telemetry.exposition().decode()


async def test_a_strangers_reservation_is_not_honoured(model: Path) -> None:
    async with scene(model) as at:
        with pytest.raises(Forbidden):
            await at.run(at.ticket(asked(), signer=GATEWAY))


async def test_what_the_engine_refuses_reaches_the_gateway_by_its_reason(model: Path) -> None:
    async with scene(model) as at:
        with pytest.raises(ContextTooLong) as caught:
            await at.run(at.ticket(asked(text="the " * 2000)))
        assert caught.value.reason is Reason.CONTEXT_TOO_LONG
        assert caught.value.param == "max_tokens"


async def test_a_gateway_that_leaves_frees_the_slot(model: Path) -> None:
    async with scene(model) as at:
        session = await at.gateway.connect(at.wire.address, WORKER.peer, timeout=10)
        argument = at.ticket(asked(tokens_max=400), tokens_max=400)
        async with session.stream(inference.METHOD, argument, timeout=60) as messages:
            assert codec.decode(Answer, await anext(messages)).chunk is not None
        async with asyncio.timeout(30):
            while 'outcome="cancelled"} 1.0' not in at.telemetry.exposition().decode():
                await asyncio.sleep(0)


# --- several models ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model") / "other.gguf", seed=2)


async def test_each_model_has_an_offer_a_load_and_tickets_of_its_own(model: Path, other: Path) -> None:
    async with scene(model, other) as at:
        await until(at.pool, lambda: set(states(at.pool).values()) == {State.WARM})
        second = digest_of(other)
        for each in (at.model, second):
            (record,) = await at.dht.lookup(offer_topic(NET, each))
            assert codec.decode(Offer, record.payload.body).model == each
        texts = []
        for each in (at.model, second):
            answers = await at.run(at.ticket(asked(), model=each))
            texts.append("".join(answer.chunk.text for answer in answers if answer.chunk))
            receipt = open_sealed(Receipt, Domain.RECEIPT, answers[-1].end.receipt).payload  # type: ignore[union-attr]
            assert receipt.model == each
        assert texts[0] != texts[1]
        assert {at.model, second} == {load.model for load in at.heard[-1].loads}
        with pytest.raises(WrongState, match="not served here"):
            await at.run(at.ticket(asked(), model=ModelDigest(bytes(32))))


async def test_a_model_with_an_adapter_has_them_too_and_the_receipt_names_both_files(
    model: Path, tmp_path: Path
) -> None:
    adapter = random_adapter(model, tmp_path / "tuned.gguf")
    adapted = Adapted(digest_of(model), Digest(digest_of(adapter)))
    async with scene(model, adapters=[adapter]) as at:
        (record,) = await at.dht.lookup(offer_topic(NET, adapted.model))
        offered = codec.decode(Offer, record.payload.body)
        assert (adapted.model, adapted) == (offered.model, offered.adapted)
        texts = []
        for each in (at.model, adapted.model):
            answers = await at.run(at.ticket(asked(), model=each))
            texts.append("".join(answer.chunk.text for answer in answers if answer.chunk))
            receipt = open_sealed(Receipt, Domain.RECEIPT, answers[-1].end.receipt).payload  # type: ignore[union-attr]
            assert (each, None if each == at.model else adapted) == (receipt.model, receipt.adapted)
        assert texts[0] != texts[1]
        assert {at.model, adapted.model} == {load.model for load in at.heard[-1].loads}


async def test_a_cold_model_is_offered_with_the_time_it_takes_to_load_and_its_tickets_load_it(
    model: Path, other: Path
) -> None:
    needed = served(model).needs.total
    async with scene(model, other, memory_bytes=int(1.5 * needed)) as at:
        second = digest_of(other)
        ready = {load.model: load.ready_seconds for load in at.heard[-1].loads}
        assert 0.0 == ready[at.model] < ready[second]
        (record,) = await at.dht.lookup(offer_topic(NET, second))
        offer = codec.decode(Offer, record.payload.body)
        (warm,) = await at.dht.lookup(offer_topic(NET, at.model))
        assert ("", 512) == (offer.engine, offer.context_tokens)
        assert codec.decode(Offer, warm.payload.body).sandbox == offer.sandbox
        assert (await at.run(at.ticket(asked(), model=second)))[-1].end
        async with asyncio.timeout(30):  # told at once, not at the next beat
            while {load.model: load.ready_seconds for load in at.heard[-1].loads}[second] != 0.0:
                await asyncio.sleep(0)


async def test_a_model_that_takes_too_long_to_load_is_refused_with_the_time_to_come_back(
    model: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MODEL_WAIT_SECONDS", 0.0)
    async with scene(model, other, memory_bytes=int(1.5 * served(model).needs.total)) as at:
        with pytest.raises(ModelLoading) as told:
            await at.run(at.ticket(asked(), model=digest_of(other)))
        assert told.value.reason is Reason.MODEL_LOADING
        assert told.value.retry_after


async def test_a_worker_makes_vectors_with_a_receipt_and_offers_what_it_can_do(tmp_path: Path) -> None:
    async with scene(build_tiny_encoder(tmp_path / "bert.gguf"), context_tokens=0) as at:
        (record,) = await at.dht.lookup(offer_topic(NET, at.model))
        offer = codec.decode(Offer, record.payload.body)
        assert (tasks_of(offer.tasks), offer.dimensions) == ({Task.EMBED}, 64)
        request = EmbedRequest(Nonce(bytes(16)), None, ["the cat", "a dog"], None, None)
        argument = at.ticket(request, digest=embed_digest, tokens_max=0)
        session = await at.gateway.connect(at.wire.address, WORKER.peer, timeout=10)
        async with session.stream(embeddings.METHOD, argument, timeout=60) as messages:
            answers = [codec.decode(EmbedAnswer, message) async for message in messages]
        vectors = [vector for answer in answers[:-1] if answer.vectors for vector in answer.vectors.vectors]
        end = answers[-1].end
        assert end is not None
        reservation: Verified[Reservation] = open_sealed(
            Reservation, Domain.RESERVATION, codec.decode(Run, argument).reservation
        )
        nothing = OutputHash()
        receipt = check_receipt(
            end.receipt,
            reservation,
            nothing.tokens_digest(),
            nothing.text_digest(),
            0,
            output_vectors=vectors_digest(vectors),
        ).payload
        assert (receipt.prompt_tokens, receipt.finish_reason) == (end.prompt_tokens, "stop") == (8, "stop")
        with pytest.raises(Unsupported, match="cannot do completion"):
            await at.run(at.ticket(asked()))
        assert "haif_worker_tokens_in_total" in at.telemetry.exposition().decode()
