"""What can happen to a job, as the journal keeps it: one byte that says which event, then its fields in msgpack.

The bytes are for ever: a journal written today must be read by every later version. An event is never changed; a new
one gets the next number. Times are ms since the epoch.
"""

from __future__ import annotations

from typing import Final

from haif.base import codec, limits
from haif.base.codec import Message
from haif.base.errors import Malformed
from haif.base.execution import VERIFIABLE
from haif.base.ids import Digest, JobId, ModelDigest, PeerId, Seed
from haif.base.tasks import Task


class JobSubmitted(Message, frozen=True):
    """A gateway asked for a job, and it was taken on. `seed` (`protocol.seeds`) determines its sampling."""

    job: JobId
    gateway: PeerId
    tenant: str
    model: str
    model_digest: ModelDigest
    request_digest: Digest
    tokens_max: int
    tenant_seed: int | None
    seed: Seed
    seed_proof: bytes
    deadline: int
    at: int
    sandbox_min: str = "none"
    execution: str = VERIFIABLE
    task: Task = Task.TEXT


class AttemptReserved(Message, frozen=True):
    """A worker was chosen for attempt `attempt` (from 1). `reservation` is the sealed ticket, `digest` its name.

    It goes on after the answer's first `resumed` tokens.
    """

    job: JobId
    attempt: int
    worker: PeerId
    host: str
    port: int
    reservation: bytes
    digest: Digest
    expires: int
    resumed: int
    at: int


class AttemptFailed(Message, frozen=True):
    """The gateway said that this attempt came to nothing."""

    job: JobId
    attempt: int
    reason: str
    at: int


class JobFinalised(Message, frozen=True):
    """The end: an answer of `tokens` tokens was received.

    The worker's sealed receipt, and the gateway's signature under it. A validator audits it with a chance of
    `per_mille` in 1000; 0 where it may not.
    """

    job: JobId
    attempt: int
    tokens: int
    receipt: bytes
    countersignature: bytes
    at: int
    per_mille: int = 0


class JobFailed(Message, frozen=True):
    """The end: there is no answer."""

    job: JobId
    reason: str
    at: int


class VerdictGiven(Message, frozen=True):
    """A validator judged the receipt of a job's worker; `verdict` is sealed."""

    job: JobId
    validator: PeerId
    worker: PeerId
    finding: str
    cause: str
    verdict: bytes
    at: int


class LotteryRevealed(Message, frozen=True):
    """A validator showed its draw of one epoch (`proof.lottery`). It is about no job."""

    validator: PeerId
    epoch: int
    proof: bytes
    at: int


class PanelRuled(Message, frozen=True):
    """A panel about the receipt of a job is over. It is about the worker, for the job may be forgotten by then.

    `finding` honest, convicted, or undecided where there was no quorum; `ruling` the sealed one of a conviction, else
    empty. `refuted`: validators that had said otherwise.
    """

    job: JobId
    worker: PeerId
    finding: str
    ruling: bytes
    refuted: tuple[PeerId, ...]
    at: int


class AttemptKept(Message, frozen=True):
    """An attempt as the state has it."""

    number: int
    worker: PeerId
    host: str
    port: int
    reservation: bytes
    digest: Digest
    expires: int
    resumed: int
    reserved: int
    failure: str


class VerdictKept(Message, frozen=True):
    """A verdict as the state has it."""

    validator: PeerId
    verdict: bytes


class JobKept(Message, frozen=True):
    """A job as the state has it, whole."""

    job: JobId
    gateway: PeerId
    tenant: str
    model: str
    model_digest: ModelDigest
    request_digest: Digest
    tokens_max: int
    tenant_seed: int | None
    seed: Seed
    seed_proof: bytes
    deadline: int
    sandbox_min: str
    execution: str
    task: Task
    state: str
    attempts: list[AttemptKept]
    reason: str
    receipt: bytes
    countersignature: bytes
    ended: int
    per_mille: int
    verdicts: list[VerdictKept]
    drawn_by: PeerId | None
    ruled: str = ""
    passed: bool = False


class JobLeft(Message, frozen=True):
    """The orchestrator of this journal was gone, and `to` took the job over: it is in that journal from here on."""

    job: JobId
    to: PeerId
    at: int


class JobArrived(Message, frozen=True):
    """The job was taken over from the orchestrator `left`, which was gone, as it stood in that journal."""

    job: JobId
    left: PeerId
    kept: JobKept
    at: int


class StandingKept(Message, frozen=True):
    """What one validator said of a worker, as the state has it (`proof.standing`)."""

    worker: PeerId
    validator: PeerId
    passed: float
    at: int
    convicted: int


class PauseOrdered(Message, frozen=True):
    """The operator's order that a thing of this kind and name gets no work (`paused`), or that it does again.

    `kind` is model, worker, tenant or all; `by` is who said so on the orchestrator's machine.
    """

    kind: str
    name: str
    paused: bool
    reason: str
    by: str
    at: int


class StateKept(Message, frozen=True):
    """A snapshot: what the first `sequence` entries come to is kept in `parts` parts, and `digest` is over them all."""

    sequence: int
    parts: int
    digest: Digest
    at: int


Event = JobSubmitted | AttemptReserved | AttemptFailed | JobFinalised | JobFailed | VerdictGiven
Entry = Event | LotteryRevealed | PanelRuled | JobLeft | JobArrived | StateKept | PauseOrdered

_KINDS: Final[dict[int, type[Entry]]] = {
    1: JobSubmitted, 2: AttemptReserved, 3: AttemptFailed, 4: JobFinalised, 5: JobFailed, 6: StateKept,
    7: VerdictGiven, 8: LotteryRevealed, 9: JobLeft, 10: JobArrived,
    11: PanelRuled, 12: PauseOrdered,
}  # fmt: skip
_NUMBERS: Final = {kind: number for number, kind in _KINDS.items()}


def encode(event: Entry) -> bytes:
    """The journal entry of an event."""
    return bytes([_NUMBERS[type(event)]]) + codec.encode(event)


def decode(entry: bytes) -> Entry:
    """The event of a journal entry. Raises `Malformed` for an entry that is none, or of a kind not known here."""
    kind = _KINDS.get(entry[0]) if entry else None
    if kind is None:
        raise Malformed(f"not an event this program knows: {entry[:1].hex() or 'nothing'}")
    return codec.decode(kind, entry[1:], size_max=limits.JOURNAL_ENTRY_BYTES_MAX)
