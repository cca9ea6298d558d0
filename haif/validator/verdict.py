"""What a validator says of a receipt, from what it computed or why it could not; and the file that lets others check.

A conviction is signed only after the answer was computed twice, the second time by an engine that was never used, and
came out the same: a machine whose memory errs accuses nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from haif.base.clock import WallTime
from haif.base.errors import (
    ContextTooLong,
    EngineDied,
    HaifError,
    InvalidRequest,
    Malformed,
    Misuse,
    Overloaded,
    Oversize,
    Timeout,
    UnknownModel,
    Unsupported,
)
from haif.base.ids import Digest
from haif.identity.keys import Identity
from haif.identity.signing import Domain, Verified, seal
from haif.proof.compare import Difference
from haif.protocol import audits
from haif.protocol.audits import CONVICTED, HONEST, UNDECIDED, Verdict, open_verdict
from haif.validator.docket import Case

_WHY: Final[Mapping[type[HaifError], str]] = {
    UnknownModel: audits.MODEL, InvalidRequest: audits.REQUEST, ContextTooLong: audits.REQUEST,
    Malformed: audits.REQUEST, Oversize: audits.REQUEST, EngineDied: audits.ENGINE, Timeout: audits.ENGINE,
    Overloaded: audits.OVERLOADED, Unsupported: audits.RECIPE, Misuse: audits.REQUEST,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answered:
    """What the validator's engine computed: root and logits, and where its answer parts from the signed one."""

    engine: str
    transcript: Digest
    work: Digest
    tokens: int
    difference: Difference | None


@dataclass(frozen=True, slots=True)
class Undecided:
    """Why nothing can be said: one of `audits.WHY_UNDECIDED`."""

    why: str


def undecided(error: HaifError) -> Undecided:
    """What an error of the validator's own engine means for the receipt: nothing, and why."""
    return Undecided(next((why for kind, why in _WHY.items() if isinstance(error, kind)), audits.ENGINE))


def confirmed(first: Answered, second: Answered | Undecided) -> Answered | Undecided:
    """What two computations of one answer say together."""
    return first if first == second else Undecided(audits.ENGINE)


def signed(validator: Identity, case: Case, found: Answered | Undecided, now: WallTime) -> Verified[Verdict]:
    """The sealed verdict."""
    said, orchestrator = case.bundle.receipt.payload, case.bundle.reservation.signer
    parts = found.difference if isinstance(found, Answered) else None
    if isinstance(found, Undecided):
        finding, cause = UNDECIDED, found.why
    else:
        finding, cause = (HONEST, "") if parts is None else (CONVICTED, parts.cause.value)
    verdict = Verdict(
        orchestrator=orchestrator, job=said.job, receipt=case.receipt, worker=case.worker, model=said.model,
        finding=finding, cause=cause, place=parts.place if parts else 0,
        engine=found.engine if isinstance(found, Answered) else "",
        transcript=found.transcript if isinstance(found, Answered) else None,
        work=found.work if isinstance(found, Answered) else None, epoch=case.epoch, judged=now,
    )  # fmt: skip
    return open_verdict(seal(validator, Domain.VERDICT, verdict), validator.peer)
