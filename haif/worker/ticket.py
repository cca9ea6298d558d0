"""Whether a worker answers a run request: everything in it is checked before the engine hears of it.

1. The reservation is sealed by an orchestrator this worker honours.
2. It names this worker, the gateway at the other end of this session, and a model served here.
3. It is neither expired nor redeemed before.
4. The request is the one whose digest the reservation names, and stays within its token limit. A reservation for text
   is none for vectors: their digests are made differently.
5. There are as many tokens to go on after as the reservation says.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

from haif.base import codec, limits
from haif.base.clock import WallTime
from haif.base.errors import BadSignature, Expired, Forbidden, InvalidRequest, Malformed, Replayed, WrongState
from haif.base.ids import Digest, JobId, ModelDigest, PeerId
from haif.identity.signing import Domain, Verified, open_sealed
from haif.protocol import inference
from haif.protocol.embeddings import EmbedRequest, embed_digest
from haif.protocol.inference import Request, Run
from haif.protocol.jobs import Reservation


@dataclass(frozen=True, slots=True)
class Ticket:
    """A reservation that holds, the request it was made for, and the answer's tokens that there are already."""

    reservation: Verified[Reservation]
    request: Request
    resumed: list[int]


@dataclass(frozen=True, slots=True)
class EmbedTicket:
    """A reservation that holds, and the request for vectors it was made for."""

    reservation: Verified[Reservation]
    request: EmbedRequest


def check_ticket(
    run: Run,
    *,
    me: PeerId,
    gateway: PeerId,
    orchestrators: Collection[PeerId],
    models: Collection[ModelDigest],
    now: WallTime,
) -> Ticket:
    """The ticket in a run request. Raises a `PeerFault` or `Refusal` that says what does not hold."""
    reservation = _reservation(run, inference.request_digest(run.request), me, gateway, orchestrators, models, now)
    request = codec.decode(Request, run.request)
    if request.tokens_max > reservation.payload.tokens_max:
        raise InvalidRequest(f"the reservation allows {reservation.payload.tokens_max} tokens", param="max_tokens")
    if (request.chat is None) == (request.text is None):
        raise InvalidRequest("a request holds either a chat or a text")
    return Ticket(reservation, request, run.resumed)


def check_embed_ticket(
    run: Run,
    *,
    me: PeerId,
    gateway: PeerId,
    orchestrators: Collection[PeerId],
    models: Collection[ModelDigest],
    now: WallTime,
) -> EmbedTicket:
    """The ticket in a request for vectors. Raises as `check_ticket` does."""
    reservation = _reservation(run, embed_digest(run.request), me, gateway, orchestrators, models, now)
    if run.resumed:
        raise WrongState("an answer in vectors begins anew", gateway)
    return EmbedTicket(reservation, codec.decode(EmbedRequest, run.request))


def _reservation(
    run: Run, request: Digest, me: PeerId, gateway: PeerId, orchestrators: Collection[PeerId],
    models: Collection[ModelDigest], now: WallTime,
) -> Verified[Reservation]:  # fmt: skip
    """The reservation, once it holds here and now for the request of this digest."""
    reservation = open_sealed(Reservation, Domain.RESERVATION, run.reservation)
    terms = reservation.payload
    if reservation.signer not in orchestrators:
        raise Forbidden(f"this worker does not honour reservations of orchestrator {reservation.signer.short}…")
    if terms.drawn_by not in {None, *orchestrators}:
        raise Forbidden("the reservation's seed was drawn by an orchestrator that this worker does not honour")
    if terms.worker != me:
        raise WrongState("the reservation is for another worker", gateway)
    if terms.gateway != gateway:
        raise WrongState("the reservation was made for another gateway", gateway)
    if terms.model not in models:
        raise WrongState("the reservation is for a model that is not served here", gateway)
    if not terms.issued - limits.CLOCK_SKEW_MS <= now < min(terms.expires, terms.deadline):
        raise Expired("the reservation is outside its time", gateway)
    if request != terms.request_digest:
        raise BadSignature("the request is not the one the reservation was made for", gateway)
    if len(run.resumed) != terms.resumed:
        raise WrongState(f"the reservation is to go on after {terms.resumed} tokens, not {len(run.resumed)}", gateway)
    if not all(0 <= token < limits.VOCABULARY_MAX for token in run.resumed):
        raise Malformed("no vocabulary has a token with such an id", gateway)
    return reservation


class Redeemed:
    """The tickets redeemed so far: each (job, attempt) once. Bounded; a ticket forgotten here has long expired."""

    def __init__(self, most: int = limits.RESERVATIONS_REMEMBERED_MAX) -> None:
        self._seen: OrderedDict[tuple[JobId, int], None] = OrderedDict()
        self._most = most

    def redeem(self, terms: Reservation, gateway: PeerId) -> None:
        """Remember the ticket. Raises `Replayed` if it was redeemed before."""
        key = (terms.job, terms.attempt)
        if key in self._seen:
            raise Replayed("the reservation was redeemed before", gateway)
        self._seen[key] = None
        if len(self._seen) > self._most:
            self._seen.popitem(last=False)
