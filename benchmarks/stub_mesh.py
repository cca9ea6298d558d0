"""A mesh that computes nothing: an orchestrator and workers in one process, for a real gateway to be put in front of.

They speak the real protocols over the real wire and sign what is signed: reservations, receipts. What they are told
they believe, for only the gateway is measured; they keep no journal and have no engine. The process is told its state
folder and how many workers to be, prints the orchestrator's peer and the DHT's address, and serves until its standard
input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import cycle
from pathlib import Path
from typing import Final

import uvloop

from benchmarks.stub_answers import MODEL, TOKEN, WHOLE, Beat, many_files, wanted
from haif.base import codec, limits
from haif.base.ids import Digest, ModelDigest, PeerId
from haif.base.tasks import Task
from haif.dht.service import Dht
from haif.identity.keys import Identity, NoiseKey
from haif.identity.service import Networks
from haif.identity.signing import Domain, evidence_digest, seal
from haif.protocol import methods
from haif.protocol.inference import Answer, Chunk, End, OutputHash, Request, Run
from haif.protocol.jobs import FailJob, Finalised, FinaliseJob, ModelCard, Models, Placed, Reservation, SubmitJob
from haif.protocol.offers import Presence
from haif.protocol.reach import Place
from haif.protocol.receipts import Receipt
from haif.protocol.records import RecordKind, presence_topic
from haif.protocol.sandbox import Sandbox
from haif.protocol.seeds import drawn_seed, given_seed
from haif.runtime.clock import SystemClock, entropy
from haif.wire.service import Call, Wire

DIGEST: Final = ModelDigest(b"stub" * 8)
CARD: Final = ModelCard(MODEL, DIGEST, 4096, 1, 0, [Task.CHAT, Task.TEXT])
_CLOCK: Final = SystemClock()
_SAID: Final = 178 + 64  # header and signature of a live message, before its body (`identity.signing`)


class StubWorker:
    """Answers whoever has a reservation, with what its prompt wants."""

    def __init__(self, identity: Identity, wire: Wire, beat: Beat) -> None:
        self.identity, self.wire = identity, wire
        self._beat = beat
        self.issued: dict[Digest, Reservation] = {}  # by what redeems them
        wire.serve_stream(methods.RUN.name, self._run, methods.RUN.terms)

    async def _run(self, call: Call) -> AsyncIterator[bytes]:
        run = codec.decode(Run, call.argument)
        ticket = self.issued.pop(evidence_digest(run.reservation))
        request = codec.decode(Request, run.request)
        seconds, tokens = wanted(request.chat[0].content if request.chat else request.text or "")
        output, started = OutputHash(), _CLOCK.wall()
        if tokens:
            for number in range(tokens):
                await self._beat.wait(seconds)
                yield _next(output, Chunk(number, [number], TOKEN))
        else:
            yield _next(output, Chunk(0, list(range(16)), WHOLE))
        digest = evidence_digest(run.reservation)
        yield codec.encode(Answer(end=self._end(ticket, digest, output, started)))

    def _end(self, terms: Reservation, reservation: Digest, output: OutputHash, started: int) -> End:
        receipt = Receipt(
            job=terms.job, attempt=terms.attempt, gateway=terms.gateway, reservation=reservation,
            request=terms.request_digest, model=terms.model, prompt_tokens=16, completion_tokens=output.tokens,
            finish_reason="stop", output_tokens=output.tokens_digest(), output_text=output.text_digest(),
            engine="stub", sandbox=Sandbox("none", ["seccomp"]), started=started, finished=_CLOCK.wall(),
        )  # fmt: skip
        return End("stop", 16, 0, output.tokens, seal(self.identity, Domain.RECEIPT, receipt))


class StubOrchestrator:
    """Places every job on the next worker, and takes every receipt."""

    def __init__(self, identity: Identity, wire: Wire, workers: list[StubWorker]) -> None:
        self.identity = identity
        self._workers = cycle(workers)
        wire.serve(methods.SUBMIT.name, self._submit, methods.SUBMIT.terms)
        wire.serve(methods.FINALISE.name, self._finalise, methods.FINALISE.terms)
        wire.serve(methods.FAIL.name, self._fail, methods.FAIL.terms)
        wire.serve(methods.MODELS.name, self._models, methods.MODELS.terms)

    async def _submit(self, call: Call) -> bytes:
        asked = codec.decode(SubmitJob, call.argument[_SAID:])
        return codec.encode(self._place(asked, call.peer))

    def _place(self, asked: SubmitJob, gateway: PeerId) -> Placed:
        worker, now = next(self._workers), _CLOCK.wall()
        given = asked.tenant_seed
        seed, proof = (
            drawn_seed(self.identity, asked.job, asked.request_digest) if given is None else (given_seed(given), b"")
        )
        ticket = Reservation(
            job=asked.job, attempt=1, gateway=gateway, worker=worker.identity.peer, model=DIGEST,
            request_digest=asked.request_digest, tokens_max=asked.tokens_max, seed=seed, tenant_seed=given,
            seed_proof=proof, issued=now, expires=now + limits.RESERVATION_TTL_MS, deadline=now + asked.deadline_ms,
        )  # fmt: skip
        sealed = seal(self.identity, Domain.RESERVATION, ticket)
        worker.issued[evidence_digest(sealed)] = ticket
        return Placed(sealed, Place((worker.wire.address,)), worker.wire.certificate)

    async def _finalise(self, call: Call) -> bytes:
        ended = codec.decode(FinaliseJob, call.argument)
        return codec.encode(Finalised(ended.job))

    async def _fail(self, call: Call) -> bytes:
        failed = codec.decode(FailJob, call.argument[_SAID:])
        return codec.encode(Finalised(failed.job))

    async def _models(self, call: Call) -> bytes:
        del call
        return codec.encode(Models([CARD]))


def _next(output: OutputHash, chunk: Chunk) -> bytes:
    output.add(chunk)
    return codec.encode(Answer(chunk=chunk))


async def serve(state: Path, workers: int) -> None:
    """Serve until standard input ends."""
    many_files()
    charter = Networks(state / "networks").find("local", _CLOCK.wall())
    net = charter.network.net
    async with AsyncExitStack() as stack:

        async def wire() -> tuple[Identity, Wire]:
            identity = Identity(entropy(32))
            own = Wire(
                identity=identity, noise_key=NoiseKey(entropy(32)), net=net, clock=_CLOCK, entropy=entropy,
                on_dropped=lambda event: print(event, file=sys.stderr),
            )  # fmt: skip
            return identity, await stack.enter_async_context(own)

        beat = Beat()
        staff = [StubWorker(*await wire(), beat) for _ in range(workers)]
        identity, at = await wire()
        orchestrator = StubOrchestrator(identity, at, staff)
        directory = Dht(
            identity=identity, net=net, clock=_CLOCK, entropy=entropy, bootstrap=(), on_dropped=lambda _: None,
            key=charter.key,
        )  # fmt: skip
        dht = await stack.enter_async_context(directory)
        presence = codec.encode(Presence("orchestrator", Place((at.address,)), at.certificate))
        topic = presence_topic(net, identity.peer)
        await dht.publish(RecordKind.PRESENCE, topic, presence, ttl_ms=limits.RECORD_TTL_MS_MAX)
        host, port = dht.address
        print(json.dumps({"peer": str(orchestrator.identity.peer), "dht": f"{host}:{port}"}), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
