"""Attacks on the lot: workers that lie now and then, foresee or try receipts; validators that choose."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from random import Random
from typing import Final

from haif.base.hashing import digest
from haif.base.ids import Digest, PeerId
from haif.identity.keys import Identity
from haif.proof.lottery import check_draw, draw, is_drawn
from haif.proof.standing import Standing
from haif.testing.attacks.arena import Arena
from haif.testing.attacks.contest import Case, Tell
from haif.testing.attacks.court import refused
from haif.testing.attacks.liar import ORCHESTRATOR
from haif.testing.attacks.tally import Finding, Outcome, Trial

TRIES: Final = 100_000
WORKERS: Final = 1000
_RATE: Final = 50  # in 1000: how often a worker that is known is audited
_SIGMAS: Final = 3.0
_EPOCH: Final = 7
_RECEIPT_BYTES: Final = 600  # about as long as one is
_SMALL_ORDER: Final = PeerId(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"))

Play = Callable[[Arena, Random, int, Tell], Awaitable[None]]


# --- 18 ---------------------------------------------------------------------------------------------------------------


def now_and_then() -> Iterator[Case]:
    """A share of the answers of a thousand workers are lies: newcomers, and known ones, audited less."""
    for share in (0.5, 0.1, 0.05, 0.01):
        for name, passed in (("a newcomer", 0), ("known", 300)):
            play = _lying(share, passed)
            yield Case(f"{share:.0%} of the answers, {name}", play, tries=WORKERS, quick=share > 0.01, unit="answers")


def _lying(share: float, passed: int) -> Play:
    """Each worker is followed until its conviction."""

    async def play(arena: Arena, random: Random, tries: int, tell: Tell) -> None:
        del arena  # no engine is needed
        known = Standing()
        for _ in range(passed):
            known = known.honest(0)
        for _ in range(tries):
            standing, output, answers = known, random.randbytes(64), 0
            while not standing.convicted:
                answers += 1
                if is_drawn(output, Digest(random.randbytes(32)), standing.per_mille(0)):
                    standing = standing.guilty(1) if random.random() < share else standing.honest(0)
            tell(Trial(False, Finding(Outcome.CAUGHT, "lot, replay", answers)))

    return play


# --- 19, 20 -----------------------------------------------------------------------------------------------------------


def foreseen() -> Iterator[Case]:
    """Lies where no audit is expected."""
    yield Case("by the draw of the epoch before", _even(_by_an_old_draw), tries=1, unit="receipts")
    yield Case("by another validator's draw", _even(_by_another_draw), tries=1, unit="receipts")
    yield Case("by a shown proof's bytes", _even(_by_the_proof), tries=1, unit="receipts")


def ground() -> Iterator[Case]:
    """Receipts tried one after the other: other times, other order, one bit flipped, until one looks lucky."""
    yield Case("a hundred thousand receipts", _even(_any), tries=1, unit="receipts")
    yield Case("one bit flipped", _even(_one_bit), tries=1, unit="receipts")
    yield Case("the lowest digests", _even(_lowest), tries=1, unit="receipts")


def _even(choose: Callable[[Random, Identity], list[Digest]]) -> Play:
    """Whether what a worker chose is drawn as often as anything: the lot must keep its rate within three sigmas."""

    async def play(arena: Arena, random: Random, tries: int, tell: Tell) -> None:
        del arena  # no engine is needed
        for _ in range(tries):
            validator = Identity(random.randbytes(32))
            _, secret = draw(validator, ORCHESTRATOR.peer, _EPOCH)
            chosen = choose(random, validator)
            tell(Trial(False, _within(sum(is_drawn(secret, each, _RATE) for each in chosen), len(chosen))))
            plain = _receipts(random)
            accused = (
                _within(sum(is_drawn(secret, each, _RATE) for each in plain), len(plain)).outcome is Outcome.PASSED
            )
            tell(Trial(True, Finding(Outcome.CAUGHT if accused else Outcome.PASSED, "lot", len(plain))))

    return play


def _within(drawn: int, of: int) -> Finding:
    """Caught, where no more of the chosen escape than of any."""
    sigma = (of * _RATE / 1000 * (1 - _RATE / 1000)) ** 0.5
    away = (drawn - of * _RATE / 1000) / sigma
    return Finding(Outcome.CAUGHT if away > -_SIGMAS else Outcome.PASSED, f"lot: {away:+.1f} sigma", of)


def _receipts(random: Random) -> list[Digest]:
    begin = random.randbytes(8)
    return [digest("haif v1 evidence", begin, number.to_bytes(4, "big")) for number in range(TRIES)]


def _avoiding(output: bytes, random: Random) -> list[Digest]:
    return [each for each in _receipts(random) if not is_drawn(output, each, _RATE)]


def _by_an_old_draw(random: Random, validator: Identity) -> list[Digest]:
    return _avoiding(draw(validator, ORCHESTRATOR.peer, _EPOCH - 1)[1], random)


def _by_another_draw(random: Random, _: Identity) -> list[Digest]:
    return _avoiding(draw(Identity(random.randbytes(32)), ORCHESTRATOR.peer, _EPOCH)[1], random)


def _by_the_proof(random: Random, validator: Identity) -> list[Digest]:
    return _avoiding(draw(validator, ORCHESTRATOR.peer, _EPOCH - 1)[0][:64], random)


def _any(random: Random, _: Identity) -> list[Digest]:
    return _receipts(random)


def _one_bit(random: Random, _: Identity) -> list[Digest]:
    number, size = random.getrandbits(8 * _RECEIPT_BYTES), _RECEIPT_BYTES
    return [digest("haif v1 evidence", (number ^ 1 << bit).to_bytes(size, "big")) for bit in range(8 * size)]


def _lowest(random: Random, _: Identity) -> list[Digest]:
    return sorted(_receipts(random))[: TRIES // 2]


# --- 21 ---------------------------------------------------------------------------------------------------------------


def draws_forged() -> Iterator[Case]:
    """A validator that shows a draw which is not its only one."""
    for name, forge in (
        ("another key's proof", _other_key), ("another epoch's proof", _other_epoch), ("a bit of the proof", _bit),
        ("a key of small order", _small_order), ("the proof of another's orchestrator", _other_orchestrator),
        ("a proof cut short", _cut), ("a scalar over the group's order", _large_scalar),
    ):  # fmt: skip
        yield Case(name, _shown(forge), tries=200)


Forgery = Callable[[Random, Identity, bytes], tuple[PeerId, bytes]]


def _shown(forge: Forgery) -> Play:
    async def play(arena: Arena, random: Random, tries: int, tell: Tell) -> None:
        del arena  # no engine is needed
        for _ in range(tries):
            validator = Identity(random.randbytes(32))
            proof, _output = draw(validator, ORCHESTRATOR.peer, _EPOCH)
            key, forged = forge(random, validator, proof)
            true, false = _check(validator.peer, proof), _check(key, forged)
            tell(Trial(True, refused(true, "draw")))
            tell(Trial(False, refused(false, "draw")))

    return play


def _check(key: PeerId, proof: bytes) -> Callable[[], object]:
    return lambda: check_draw(key, ORCHESTRATOR.peer, _EPOCH, proof)


def _other_key(random: Random, validator: Identity, _: bytes) -> tuple[PeerId, bytes]:
    return validator.peer, draw(Identity(random.randbytes(32)), ORCHESTRATOR.peer, _EPOCH)[0]


def _other_epoch(random: Random, validator: Identity, _: bytes) -> tuple[PeerId, bytes]:
    return validator.peer, draw(validator, ORCHESTRATOR.peer, _EPOCH + 1 + random.randrange(1000))[0]


def _other_orchestrator(random: Random, validator: Identity, _: bytes) -> tuple[PeerId, bytes]:
    return validator.peer, draw(validator, PeerId(random.randbytes(32)), _EPOCH)[0]


def _bit(random: Random, validator: Identity, proof: bytes) -> tuple[PeerId, bytes]:
    bit = random.randrange(8 * len(proof))
    return validator.peer, bytes(each ^ (1 << bit % 8) * (place == bit // 8) for place, each in enumerate(proof))


def _small_order(_: Random, __: Identity, proof: bytes) -> tuple[PeerId, bytes]:
    return _SMALL_ORDER, proof


def _cut(random: Random, validator: Identity, proof: bytes) -> tuple[PeerId, bytes]:
    return validator.peer, proof[: random.randrange(len(proof))]


def _large_scalar(_: Random, validator: Identity, proof: bytes) -> tuple[PeerId, bytes]:
    order = 2**252 + 27742317777372353535851937790883648493
    return validator.peer, proof[:48] + (int.from_bytes(proof[48:], "little") + order).to_bytes(32, "little")
