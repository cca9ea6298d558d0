"""Attacks on what is said of an answer: another model's tokens, old answers, texts, ends and counts that are not so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, Final

from msgspec import structs

from haif.base.hashing import digest
from haif.base.ids import Digest, ModelDigest
from haif.base.sampling import Sampling
from haif.engine.request import Piece
from haif.engine.service import Engine
from haif.protocol.inference import Chunk, Request
from haif.protocol.receipts import Receipt
from haif.testing.attacks.arena import Arena
from haif.testing.attacks.contest import Case, Lie, Stand, contest
from haif.testing.attacks.court import judge
from haif.testing.attacks.liar import PARROT, File, Order, Said, ask, compute, order
from haif.testing.attacks.served import changed, half
from haif.testing.attacks.tally import Outcome, Trial
from haif.worker.service import generate

_INEXACT: Final = (
    "bits of another recipe cannot be compared, so that who names one is neither convicted nor ever known; statistics "
    "of sketches and margins are to judge it"
)
_CONTEXT: Final = (
    "how long its context is, a worker says in its offer and in no receipt: nobody can tell that it was longer"
)


async def parrot(arena: Arena) -> Sequence[Engine]:
    """An engine of the claimed model that says what it is told, over that model's own logits; and a smaller model's."""
    return await arena.engine(program=PARROT), await arena.engine(half(arena))


async def _repeated(stand: Stand, what: Order, tokens: Sequence[int]) -> Said:
    """These tokens as the claimed model's answer: its text for them, its logits at each of them."""
    return await compute(stand.others[0], what, draft=list(tokens), tokens_max=len(tokens), fit=False)


# --- 10, 11: the right logits under the wrong tokens ------------------------------------------------------------------


def prefilled() -> Iterator[Case]:
    """A small model's tokens, drawn with the same noise, then prefilled with the right model for its logits."""

    async def lie(stand: Stand, what: Order, _: Said) -> File:
        cheap = await compute(stand.others[1], what)
        return stand.sign(what, await _repeated(stand, what, cheap.tokens))

    yield contest("a small model's tokens over the right logits", lie, others=parrot)


def within_tolerance() -> Iterator[Case]:
    """The runner-up where it is closest to the best, and then honestly on: what tolerances cannot see."""

    async def lie(stand: Stand, what: Order, _: Said) -> File:
        forked = await _closest_fork(stand.honest, what)
        on = await compute(stand.honest, what, resumed=forked) if len(forked) < what.request.tokens_max else None
        return stand.sign(what, await _repeated(stand, what, on.tokens if on else forked))

    yield contest("one token, the closest runner-up", lie, others=parrot, asked=_greedy)


def _greedy(random: Random) -> Request:
    return ask(random, sampling=Sampling(0.0))


async def _closest_fork(engine: Engine, what: Order) -> list[int]:
    """The answer's tokens up to where its second choice was closest, and that second choice."""
    tokens: list[int] = []
    forks: list[tuple[float, list[int]]] = []
    async with engine.generate(structs.replace(generate(what.ticket), logprobs=2)) as events:
        async for event in events:
            if isinstance(event, Piece):
                for token, scores in zip(event.tokens, event.scores, strict=True):
                    chosen, *likely = scores
                    runner = next(each for each in likely if each.token != token)
                    forks.append((chosen.logprob - runner.logprob, [*tokens, runner.token]))
                    tokens.append(token)
    return min(forks)[1]


# --- 12, 18: answers and parts of answers that were not computed for this ---------------------------------------------


def cached() -> Iterator[Case]:
    """An answer that was there already: to another prompt, or to the same prompt of another job."""

    async def to_another_prompt(stand: Stand, what: Order, _: Said) -> File:
        other = order(stand.random, what.model, ask(stand.random))
        return stand.sign(what, await compute(stand.honest, other))

    async def of_another_job(stand: Stand, what: Order, _: Said) -> File:
        other = order(stand.random, what.model, what.request)
        return stand.sign(what, await compute(stand.honest, other))

    yield contest("an old answer to another prompt", to_another_prompt)
    yield contest("an old answer to the same prompt", of_another_job, asked=lambda random: ask(random, tokens_max=96))


def in_part() -> Iterator[Case]:
    """Most of an answer is honest; its end is a small model's."""
    for last in (32, 8, 1):
        yield contest(
            f"the last {last} {'token' if last == 1 else 'tokens'}",
            _ending(last),
            others=parrot,
            asked=lambda random: ask(random, tokens_max=64),
        )


def _ending(last: int) -> Lie:
    async def lie(stand: Stand, what: Order, said: Said) -> File:
        kept = said.tokens[:-last]
        cheap = await compute(stand.others[1], what, resumed=kept)
        return stand.sign(what, await _repeated(stand, what, cheap.tokens))

    return lie


# --- 14, 17: what is signed beside the tokens -------------------------------------------------------------------------


def labels() -> Iterator[Case]:
    """Another model's name, or another recipe's, on an answer."""
    yield contest("another model's digest", _altered(lambda said: {"model": ModelDigest(bytes(said.model)[::-1])}))
    for name, claims in (
        ("a small model, under a recipe that nobody has", {"engine": "an engine of its own"}),
        ("a small model, said not to be exact", {"exact": False}),
    ):
        yield contest(name, _unjudgeable(claims), others=parrot, must=Outcome.UNDECIDED, open=_INEXACT)


def bills() -> Iterator[Case]:
    """Texts, ends, counts and logits that are not the tokens'."""
    yield contest("another text", _retold(lambda chunk: structs.replace(chunk, text=chunk.text.swapcase())))
    yield contest(
        "tokens of no vocabulary", _retold(lambda chunk: structs.replace(chunk, tokens=[1 << 31 for _ in chunk.tokens]))
    )
    yield contest("logits that were never computed", _invented)
    yield contest("ends early", changed(lambda _, request: {"tokens_max": request.tokens_max // 2}))
    yield contest(
        "ends early, where its context sets the length", changed(lambda *_: {"tokens_max": 16, "fit": False}),
        asked=lambda random: ask(random, tokens_max=64, fit=True), must=Outcome.PASSED, open=_CONTEXT,
    )  # fmt: skip
    yield contest("goes on behind its end", changed(lambda *_: {"stop": []}), asked=_stopping)
    yield contest("another reason to end", _altered(_other_reason))
    yield contest("more tokens of the prompt", _altered(lambda said: {"prompt_tokens": said.prompt_tokens + 7}))
    yield contest("more tokens of the answer", _altered(lambda said: {"completion_tokens": 2 * said.completion_tokens}))


def _stopping(random: Random) -> Request:
    return ask(random, tokens_max=64, stop=[" the", ".", ","])


def _other_reason(said: Receipt) -> dict[str, Any]:
    return {"finish_reason": "length" if said.finish_reason == "stop" else "stop"}


def _altered(change: Callable[[Receipt], dict[str, Any]]) -> Lie:
    async def lie(stand: Stand, what: Order, said: Said) -> File:
        return stand.sign(what, said, alter=lambda receipt: structs.replace(receipt, **change(receipt)))

    return lie


def _retold(change: Callable[[Chunk], Chunk]) -> Lie:
    async def lie(stand: Stand, what: Order, said: Said) -> File:
        return stand.sign(what, Said(tuple(map(change, said.chunks)), said.done))

    return lie


async def _invented(stand: Stand, what: Order, said: Said) -> File:
    rows: list[Digest] = [digest("haif v1 invented", stand.random.randbytes(8)) for _ in said.done.rows]
    return stand.sign(what, said, rows=rows)


def _unjudgeable(claims: dict[str, Any]) -> Lie:
    async def lie(stand: Stand, what: Order, _: Said) -> File:
        return stand.sign(what, await compute(stand.others[1], what), **claims)

    return lie


# --- 24: what is to bring the validator down --------------------------------------------------------------------------


def oversized() -> Iterator[Case]:
    """Files that are too much for whoever judges them; it goes on judging."""
    yield contest("a prompt of several batches", by_nobody, asked=_huge, must=Outcome.SAME)
    yield Case("a transcript of a million tokens", _judged_after(_flood))
    yield Case("a request of no end", _judged_after(_endless))


async def by_nobody(stand: Stand, what: Order, said: Said) -> File:
    """No lie: what counts is the honest control."""
    return stand.sign(what, said)


def _huge(random: Random) -> Request:
    return ask(random, sentences=110)


def _flood(file: File) -> File:
    return file | {"tokens": "A" * (16 << 18)}


def _endless(file: File) -> File:
    return file | {"request": file["request"] * 4096}


def _judged_after(spoil: Callable[[File], File]) -> Callable[..., Any]:
    """Each spoilt file is judged, and then the one it was made of."""

    async def play(arena: Arena, random: Random, tries: int, tell: Callable[[Trial], None]) -> None:
        engine = await arena.engine()
        for _ in range(tries):
            what = order(random, arena.model, ask(random))
            said = await compute(engine, what)
            file = Stand(arena, arena.model, engine, (), random).sign(what, said)
            tell(Trial(False, await judge(arena.bench, spoil(file))))
            tell(Trial(True, await judge(arena.bench, file)))

    return play
