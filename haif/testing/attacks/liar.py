"""What a worker computes that lies, in engines that are real, and what it signs for all the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final

from msgspec import structs

from haif.artifacts.service import StoredModel
from haif.base import codec
from haif.base.clock import WallTime
from haif.base.ids import Digest, JobId, Nonce
from haif.base.sampling import Sampling
from haif.engine.profile import Recipe
from haif.engine.request import Finished, ModelInfo, Piece
from haif.engine.service import Engine
from haif.identity.keys import Identity
from haif.identity.signing import Domain, Verified, open_sealed, seal
from haif.protocol.inference import Chunk, OutputHash, Request, request_digest
from haif.protocol.jobs import Reservation
from haif.protocol.receipts import Countersignature, Receipt, bundle, transcript
from haif.protocol.seeds import drawn_seed
from haif.worker.answer import seal_receipt
from haif.worker.offer import sandbox_of
from haif.worker.service import generate
from haif.worker.ticket import Ticket

ORCHESTRATOR, WORKER, GATEWAY = (Identity(bytes([n]) * 32) for n in range(1, 4))
File = dict[str, str]  # what a tenant is given who asked for a transcript

_WORDS: Final = (
    "The river runs slowly through the", "Once upon a time there was a", "The baker opened the", "Early in the morning",
    "On the way to the mill", "The old bridge", "When the bell rang, the", "Nobody in the village knew why the",
    "The miller's daughter", "It was raining, and the", "Behind the inn", "The well in the market",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Order:
    """What a tenant asked for, and the ticket that was reserved for it."""

    request: Request
    encoded: bytes
    ticket: Ticket
    model: StoredModel


@dataclass(frozen=True, slots=True)
class Said:
    """An answer as an engine gave it."""

    chunks: tuple[Chunk, ...]
    done: Finished

    @property
    def tokens(self) -> list[int]:
        """All of them."""
        return [token for chunk in self.chunks for token in chunk.tokens]


def ask(random: Random, *, tokens_max: int = 32, sentences: int = 1, **options: Any) -> Request:
    """A tenant's request for the beginning of a story to be gone on with."""
    text = " ".join(random.choice(_WORDS) for _ in range(sentences))
    asked = Request(Nonce(random.randbytes(16)), None, text, tokens_max, Sampling(1.0), [])
    return structs.replace(asked, **options)


def order(random: Random, model: StoredModel, request: Request, resumed: Sequence[int] = ()) -> Order:
    """The request with a reservation whose seed was drawn as seeds are."""
    encoded, job = codec.encode(request), JobId(random.randbytes(16))
    seed, proof = drawn_seed(ORCHESTRATOR, job, request_digest(encoded))
    terms = Reservation(
        job, 1, GATEWAY.peer, WORKER.peer, model.digest, request_digest(encoded), request.tokens_max, seed, None, proof,
        1, 2, 3, len(resumed),
    )  # fmt: skip
    sealed = open_sealed(Reservation, Domain.RESERVATION, seal(ORCHESTRATOR, Domain.RESERVATION, terms))
    return Order(request, encoded, Ticket(sealed, request, list(resumed)), model)


async def compute(engine: Engine, what: Order, **changed: Any) -> Said:
    """The engine's answer to the order, or to what it was `changed` into."""
    chunks: list[Chunk] = []
    async with engine.generate(structs.replace(generate(what.ticket, what.model.adapted), **changed)) as events:
        async for event in events:
            if isinstance(event, Piece):
                chunks.append(Chunk(event.first, event.tokens, event.text, [], event.asides))
            else:
                return Said(tuple(chunks), event)
    raise AssertionError("an engine's answer ends with Finished")


def sign(
    what: Order, said: Said, about: ModelInfo, *, rows: Sequence[Digest] | None = None, engine: str = "",
    exact: bool = True, alter: Callable[[Receipt], Receipt] = lambda receipt: receipt, signer: Identity = WORKER,
) -> File:  # fmt: skip
    """The answer's file: receipt, reservation, the gateway's countersignature, request and tokens.

    The receipt is made as a worker's is. A liar may claim other `rows` or another `engine`, that it is not `exact`, or
    `alter` what it signs.
    """
    output, resumed = OutputHash(), what.ticket.resumed
    for chunk in said.chunks:
        output.add(chunk)
    done = said.done if rows is None else replace(said.done, rows=tuple(rows))
    made = seal_receipt(
        signer, what.ticket.reservation, output, done, resumed, engine=engine or about.engine, exact=exact,
        sandbox=sandbox_of(about), verifiable=True, adapted=what.model.adapted, started=WallTime(1), now=WallTime(2),
    )  # fmt: skip
    altered = seal(signer, Domain.RECEIPT, alter(open_sealed(Receipt, Domain.RECEIPT, made).payload))
    receipt: Verified[Receipt] = open_sealed(Receipt, Domain.RECEIPT, altered)
    hand = seal(GATEWAY, Domain.COUNTERSIGNATURE, Countersignature(receipt.payload.job, receipt.digest))
    return bundle(receipt, what.ticket.reservation, hand) | transcript(what.encoded, output.token_ids)


# --- engines whose owner changed them ---------------------------------------------------------------------------------

_BEGIN: Final = "import os, sys; sys.path += sys.argv.pop(1).split(os.pathsep)\n"
_END: Final = "from haif.engine.child import main; main()"

_UNDECLARED: Final = """
from haif.engine import llama, profile
from haif.engine.llama import context
context._KV_TYPES["q4_0"] = 2  # ggml's number for it
recipe = profile.Recipe({fields})
profile.PROFILES.update(dict.fromkeys(profile.PROFILES, (recipe,)))
honest = llama.climb
def climb(*told, **named):
    return honest(*told, **named | {{"kv": recipe.kv}})[0], True
llama.climb = climb
"""

_PARROT: Final = """
from haif.engine import core
honest = core.sample
class Told:
    def __init__(self, token): self.token = token
    def choose(self, *_): return self.token
def sample(model, answer, logits, now_ns):
    ahead = answer.tokens[answer.sure:answer.sure + 1] or list(answer.draft)[:1]
    if ahead:
        answer.sampler = Told(ahead[0])
    return honest(model, answer, logits, now_ns)
core.sample = sample
"""

PARROT: Final = _BEGIN + _PARROT + _END
"""A child that says its draft, whatever the model would say, and digests the logits that the model has there."""


def undeclared(recipe: Recipe) -> str:
    """A child that computes by `recipe` what it says it computes exactly. Its KV cache may be in q4_0, too."""
    fields = ", ".join(f"{name}={getattr(recipe, name)!r}" for name in ("repack", "flash", "tiled", "unified", "kv"))
    return _BEGIN + _UNDECLARED.format(fields=fields) + _END
