"""Engines for tests: real children on tiny models, and children that lie."""

import os
from pathlib import Path

import blake3

from haif.base.conversation import Turn
from haif.base.ids import JobId, ModelDigest, Seed
from haif.base.sampling import Sampling
from haif.engine.embed import Embed, Embedded, Vectors
from haif.engine.request import Finished, Generate, Piece
from haif.engine.service import CHILD_PROGRAM, Engine, EngineSettings
from haif.runtime.clock import SystemClock

LIAR = """
import os, select, sys
sys.path += sys.argv.pop(1).split(os.pathsep)
from haif.engine.sandbox.jail import seal
from haif.engine.sandbox.layers import LAYERS, Statement
from haif.engine.frames import End, Failed, Output, Ready, Refused, Report, Sealed, Step, frame
unsealed = lambda *_: Statement(tuple(set(LAYERS) - {"cgroups"}), {"cgroups": ""}, (), os.getpid())
parent, orders, reports, model, _ = map(int, sys.argv[1:6])
sleep = lambda seconds: select.poll().poll(int(1000 * seconds))
say = lambda report: os.write(reports, frame(report))
told = seal(parent, frozenset({orders, reports, model}), 1000)
say(Report(sealed=Sealed(list(told.enforced), dict(told.missing), [], told.pid)))
os.read(orders, 9999)
say(Report(ready=Ready("liar", "llama", 1, 100, 100, False, "build", True, tasks=3)))
os.read(orders, 9999)
LIE
os.read(orders, 9999)
"""
"""A child that behaves until it has a request, and then does LIE."""

LIAR_OF_VECTORS = LIAR.replace("tasks=3", "tasks=8, dimensions=4").replace(
    "import End,", "import Batch, EmbedEnd, Part, End,"
)
"""The same, of a model that makes vectors of four numbers."""


def digest_of(path: Path) -> ModelDigest:
    return ModelDigest(blake3.blake3(path.read_bytes()).digest())


def engine(
    model: Path,
    *,
    slots=8,
    context_tokens=512,
    died=None,
    program=CHILD_PROGRAM,
    digest=None,
    insecure_no_sandbox=False,
    **settings,
) -> Engine:
    return Engine(
        EngineSettings(
            model,
            digest or digest_of(model),
            slots=slots,
            context_tokens=context_tokens,
            threads=1,
            insecure_no_sandbox=insecure_no_sandbox,
            **settings,
        ),
        clock=SystemClock(),
        entropy=os.urandom,
        on_died=(lambda cause: None) if died is None else died,
        program=program,
    )


def request(
    text="once upon a time",
    *,
    chat=None,
    tokens_max=24,
    temperature=0.0,
    stop=(),
    seed=0,
    logprobs=None,
    scope=b"",
    json_schema=None,
    resumed=(),
    draft=(),
    tools=None,
    settings=(),
    adapter=None,
    **options,
) -> Generate:
    return Generate(
        JobId(bytes(16)), chat and [turn if isinstance(turn, Turn) else Turn(*turn) for turn in chat],
        None if chat else text, tokens_max, Sampling(temperature, **options), list(stop),
        Seed(seed.to_bytes(32, "big")), logprobs=logprobs, scope=scope, json_schema=json_schema,
        resumed=list(resumed), draft=list(draft), tools=tools, settings=list(settings), adapter=adapter,
    )  # fmt: skip


async def read_vectors(running: Engine, what: Embed) -> tuple[list[bytes], Embedded]:
    """All vectors and the end of a request for them."""
    vectors: list[bytes] = []
    embedded = None
    async with running.embed(what) as events:
        async for event in events:
            if isinstance(event, Vectors):
                assert event.first == len(vectors)
                vectors += event.vectors
            else:
                embedded = event
    assert embedded is not None
    return vectors, embedded


def embed(*inputs: str | bytes, query=None, dimensions=None, scope=b"") -> Embed:
    tokens = [each for each in inputs if isinstance(each, bytes)]
    return Embed(JobId(bytes(16)), query, None if tokens else list(inputs), tokens or None, dimensions, scope)


async def read(running: Engine, what: Generate) -> tuple[list[int], str, Finished]:
    """All tokens, the whole text and the end of an answer."""
    tokens: list[int] = []
    text = ""
    finished = None
    async with running.generate(what) as pieces:
        async for piece in pieces:
            if isinstance(piece, Piece):
                assert piece.first == len(tokens)
                tokens += piece.tokens
                text += piece.text
            else:
                finished = piece
    assert finished is not None
    return tokens, text, finished
