"""What a worker says of one model, from where it stands: its offer in the directory, its load in a heartbeat."""

from __future__ import annotations

from haif.base.tasks import bits_of
from haif.engine.request import ModelInfo
from haif.protocol.heartbeats import Load
from haif.protocol.offers import Offer
from haif.protocol.reach import Place
from haif.protocol.sandbox import Sandbox
from haif.worker.standing import Standing, State


def offer_of(standing: Standing, place: Place, certificate: bytes) -> Offer:
    """The offer. A model that was never loaded has no engine to name yet."""
    about = standing.about
    return Offer(
        model=standing.model,
        place=place,
        context_tokens=standing.context_tokens,
        slots=standing.slots,
        sandbox=sandbox_of(about or standing.sibling),
        engine=about.engine if about else "",
        certificate=certificate,
        verifiable=standing.verifiable,
        tasks=bits_of(standing.tasks),
        dimensions=standing.dimensions,
        adapted=standing.adapted,
    )


def load_of(standing: Standing, hot: list[bytes]) -> Load | None:
    """The load; None for a model that no work is to be placed on now.

    Who waits for the model to be loaded is queued, as far as an orchestrator is concerned. `hot`: tags of beginnings
    that its cache may have.
    """
    now = standing.statistics
    if not standing.is_offered or (standing.state is State.WARM and not (now and now.usable)):
        return None
    return Load(
        model=standing.model,
        slots=standing.slots,
        running=now.running if now else 0,
        queued=(now.queued if now else 0) + standing.waiting,
        tokens_per_second=now.tokens_per_second if now else 0.0,
        sandbox=sandbox_of(standing.about or standing.sibling),
        hot=hot if now else [],
        ready_seconds=standing.ready_seconds,
    )


def sandbox_of(about: ModelInfo | None) -> Sandbox:
    """What is said of the jail; where there is none at all, or none known yet, in two words instead of every layer."""
    if about is None:
        return Sandbox("none", ["every layer"])
    return Sandbox(about.sandbox, list(about.missing) if about.enforced else ["every layer"])
