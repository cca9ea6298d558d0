"""Audits: answers that nobody asked about are computed again, by a validator that drew them after they were signed for.

    orchestrator ◄── audits.ended    ListEnded        validator    which jobs ended that may be drawn
    validator    ◄── audits.wanted   AskWanted        gateway      which of my answers did you draw?
    validator    ◄── audits.give     Payload          gateway      the request and the tokens of one of them
    orchestrator ◄── audits.judge    Judge            validator    what came of it: a sealed `Verdict`
    orchestrator ◄── audits.reveal   Reveal           validator    the draw of an epoch that is over, for all to check
    orchestrator ◄── audits.panels   ListPanels       validator    where do I sit? what did panels find?
    orchestrator ◄── audits.commit   Commit           validator    I have found something: its digest
    orchestrator ◄── audits.show     Show             validator    what I had committed to
    orchestrator ◄── audits.share    Share            validator    whom a panel of another orchestrator convicted

A worker has no part in it. The orchestrator sees no request; a validator sees those that it drew, and a gateway gives
them only to validators it was started with, of answers for which it signed that it would.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from haif.base.codec import Message
from haif.base.errors import BadSignature, Malformed
from haif.base.ids import Digest, JobId, ModelDigest, PeerId
from haif.identity.signing import Domain, Verified, open_sealed
from haif.protocol.inference import request_digest, tokens_digest
from haif.protocol.receipts import CheckedBundle, bundle, check_bundle, evidence_of, text_of, transcript

ENDED_METHOD: Final = "audits.ended"
WANTED_METHOD: Final = "audits.wanted"
GIVE_METHOD: Final = "audits.give"
JUDGE_METHOD: Final = "audits.judge"
PANELS_METHOD: Final = "audits.panels"
COMMIT_METHOD: Final = "audits.commit"
SHOW_METHOD: Final = "audits.show"
SHARE_METHOD: Final = "audits.share"
REVEAL_METHOD: Final = "audits.reveal"

HONEST: Final = "honest"
CONVICTED: Final = "convicted"
UNDECIDED: Final = "undecided"
FINDINGS: Final = (HONEST, CONVICTED, UNDECIDED)

# Why nothing could be decided.
PAYLOAD: Final = "payload"  # the gateway did not give request and tokens
RECIPE: Final = "recipe"  # the validator computes by another recipe, so bits cannot be compared
MODEL: Final = "model"  # the validator does not have it
REQUEST: Final = "request"  # the validator's engine does not take the request, or has no room for it
ENGINE: Final = "engine"  # the validator's engine died of it, or its two computations differ
OVERLOADED: Final = "overloaded"  # the validator had too much to do
WHY_UNDECIDED: Final = (PAYLOAD, RECIPE, MODEL, REQUEST, ENGINE, OVERLOADED)
WHY_CONVICTED: Final = ("tokens", "end", "text", "prompt", "logits")  # `proof.compare.Cause`
CAUSES: Final = {HONEST: ("",), CONVICTED: WHY_CONVICTED, UNDECIDED: WHY_UNDECIDED}


class Verdict(Message, frozen=True):
    """A validator's statement about one receipt, sealed under `Domain.VERDICT`. `judged` in ms since the epoch.

    `finding` is honest, convicted or undecided, `cause` what differs or why nothing could be decided, `place` the token
    of the answer where it differs. `engine` computed it again and came to the root `transcript`; empty and nil where
    none did. It says of the validator's own: this is what I computed. Whoever has the request can compute it too.
    `work` is the digest of the logits that the root is over: a worker's receipt names its root and not these, so who
    did not compute them does not know them.
    """

    orchestrator: PeerId
    job: JobId
    receipt: Digest
    worker: PeerId
    model: ModelDigest
    finding: str
    cause: str
    place: int
    engine: str
    transcript: Digest | None
    work: Digest | None
    epoch: int
    judged: int


class ListEnded(Message, frozen=True):
    """The jobs that ended from number `after` on, and may be drawn."""

    after: int


class EndedJob(Message, frozen=True):
    """A job that may be drawn: its evidence, when its end was recorded (ms), and the chance it is drawn with, in 1000.

    The epoch of the draw follows from `at`, which the orchestrator cannot foresee the draw of either.
    """

    reservation: bytes
    receipt: bytes
    countersignature: bytes
    at: int
    per_mille: int


class Ended(Message, frozen=True):
    """Some of them, oldest first, and the number to ask from next."""

    jobs: list[EndedJob]
    next: int


class AskWanted(Message, frozen=True):
    """Which of the answers that I countersigned did you draw, and lack the payload of?"""


class Wanted(Message, frozen=True):
    """These, by the digests of their receipts."""

    receipts: list[Digest]


class Payload(Message, frozen=True):
    """What a receipt is about: the encoded request, as the worker had it, and the answer's tokens."""

    receipt: Digest
    request: bytes
    tokens: list[int]


class Judge(Message, frozen=True):
    """A sealed `Verdict`."""

    verdict: bytes


class Reveal(Message, frozen=True):
    """The VRF proof of a validator's draw of one epoch (`proof.lottery`), which is over."""

    epoch: int
    proof: bytes


class ListPanels(Message, frozen=True):
    """The panels that want something of me, and who was convicted by one since `until` of an earlier answer; or 0."""

    since: int


class Summons(Message, frozen=True):
    """A seat in a panel: the evidence of a job that ended then (ms). `shows`: the finding itself is wanted now."""

    reservation: bytes
    receipt: bytes
    countersignature: bytes
    at: int
    shows: bool


class Summoned(Message, frozen=True):
    """Where the validator sits and is waited for, and some sealed rulings that convict, oldest first.

    The orchestrator heard the last of them at `until` (ms).
    """

    panels: list[Summons]
    rulings: list[bytes]
    until: int


class Commit(Message, frozen=True):
    """The digest of the sealed verdict that a member will show."""

    receipt: Digest
    commitment: Digest


class Show(Message, frozen=True):
    """The sealed verdict that the member had committed to."""

    verdict: bytes


class Share(Message, frozen=True):
    """A sealed ruling that convicts."""

    ruling: bytes


class Voter(Message, frozen=True):
    """A validator that may sit, its weight, and the number of its owner; 0 where it is its own."""

    peer: PeerId
    weight: int
    owner: int


class Ruling(Message, frozen=True):
    """What a panel of `seats` of a `pool` found, sealed by the orchestrator that drew it under `Domain.RULING`.

    `proof` is the VRF's for the receipt, from which the members follow (`proof.committee`); `verdicts` are the sealed
    ones of the quorum, which say the same. `at` in ms since the epoch.
    """

    job: JobId
    receipt: Digest
    worker: PeerId
    model: ModelDigest
    finding: str
    pool: list[Voter]
    seats: int
    proof: bytes
    verdicts: list[bytes]
    at: int


class Taken(Message, frozen=True):
    """What was said is durable, or was known."""


def gist(said: Verdict) -> tuple[object, ...]:
    """What two validators that computed the same answer say alike."""
    return said.finding, said.cause, said.place, said.engine, said.transcript, said.work


def check_payload(payload: Payload, checked: CheckedBundle) -> CheckedBundle:
    """The bundle with its request and tokens. Raises `BadSignature` for those of another answer, `Malformed`."""
    said = checked.receipt.payload
    if any(not 0 <= token < 1 << 32 for token in payload.tokens):
        raise Malformed("a token id does not fit in 32 bits", said.gateway)
    if (payload.receipt, request_digest(payload.request), tokens_digest(payload.tokens)) != (
        checked.receipt.digest, said.request, said.output_tokens,
    ):  # fmt: skip
        raise BadSignature("the request or the tokens are not those of the receipt", said.gateway)
    return CheckedBundle(
        checked.reservation, checked.receipt, checked.countersignature, payload.request, tuple(payload.tokens)
    )


def open_verdict(evidence: bytes, signer: PeerId | None = None) -> Verified[Verdict]:
    """A verdict whose signature holds and that says what a verdict can say. Who signed is for the caller to judge.

    Raises `Malformed`, `Oversize` or `BadSignature`.
    """
    checked = open_sealed(Verdict, Domain.VERDICT, evidence, signer=signer)
    said = checked.payload
    if said.cause not in CAUSES.get(said.finding, ()):
        raise Malformed(f"no verdict is {said.finding[:20]!r} for {said.cause[:20]!r}", checked.signer)
    computed = said.finding != UNDECIDED
    if {computed} != {said.transcript is not None, said.work is not None, bool(said.engine)} or said.place < 0:
        raise Malformed("a verdict names the engine and what it came to, unless it is undecided", checked.signer)
    if checked.signer == said.worker:
        raise BadSignature("nobody judges its own work", checked.signer)
    return checked


def conviction(verdict: Verified[Verdict], checked: CheckedBundle) -> dict[str, str]:
    """Everything it takes to check a verdict again, the tenant's request included."""
    assert checked.request is not None, "what was judged was seen"
    evidence = bundle(checked.receipt, checked.reservation, checked.countersignature.evidence)
    return evidence | transcript(checked.request, checked.tokens) | {"verdict": text_of(verdict.evidence)}


def check_conviction(fields: Mapping[str, object]) -> tuple[CheckedBundle, Verified[Verdict]]:
    """A file of `conviction` whose parts hold and belong together. Raises as `check_bundle` and `open_verdict` do.

    Its ruling, where a panel made one, is for `proof.ruling` to check.
    """
    rest = {name: value for name, value in fields.items() if name not in {"verdict", "ruling"}}
    checked = check_bundle(rest)
    if checked.request is None:
        raise Malformed("a verdict's file holds the request and the tokens that it is about")
    verdict = open_verdict(evidence_of(str(fields.get("verdict", ""))))
    check_verdict(verdict, checked)
    return checked, verdict


def check_verdict(verdict: Verified[Verdict], checked: CheckedBundle) -> None:
    """Return if the verdict is about this very receipt. Raises `BadSignature`."""
    said, receipt = verdict.payload, checked.receipt
    if (said.orchestrator, said.job, said.receipt, said.worker, said.model) != (
        checked.reservation.signer, receipt.payload.job, receipt.digest, receipt.signer, receipt.payload.model,
    ):  # fmt: skip
        raise BadSignature("the verdict is about another receipt", verdict.signer)
