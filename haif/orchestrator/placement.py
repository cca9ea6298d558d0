"""Which worker gets the next attempt: of two drawn from the least loaded live ones the one with less to do.

Two draws, because several orchestrators know each other's placements only from the next heartbeats: always taking the
least loaded would send them all to the same one (Mitzenmacher 2001, "The Power of Two Choices"). Passed over, as long
as there are others: workers whose breaker is open, and those that lost an attempt and were not heard since.

One that says it computed the request's beginning before counts as less loaded, by `limits.PREFIX_DEPTH` at most: so a
conversation stays where it is cached, and a worker cannot draw more than that to itself by what it says.
One that would have to load the model first counts as one whose slots are taken `limits.COLD_DEPTH` times over.

A worker is live for a model if its offer verified and its last heartbeat, not too long ago, names the model. Its load
is what it reported, corrected by what we know better: the reservations that were made or ended since.

    at a heartbeat     reported = others' + ours, where between `settled` and `all` of our reservations have arrived
                       correction = how far `reported` lies outside of that range (above: work of others; below: tickets
                       never redeemed)
    at any moment      load = our open reservations there + correction

so a burst placed between two heartbeats counts at once, and is not counted twice when the heartbeat comes to show it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from haif.base import codec, limits
from haif.base.clock import Instant, WallTime
from haif.base.confinement import LEVELS, suffices
from haif.base.errors import Forbidden, Malformed, NoWorker, Overloaded, Unsupported, WrongState
from haif.base.execution import UNVERIFIABLE, VERIFIABLE, meets
from haif.base.ids import BootId, Digest, JobId, ModelDigest, PeerId
from haif.base.tasks import Task, Tasks, listed, tasks_of
from haif.identity.signing import Verified
from haif.orchestrator.brakes import Brakes
from haif.orchestrator.pauses import Pauses
from haif.orchestrator.state import Job, Post
from haif.protocol.heartbeats import Heartbeat, Load
from haif.protocol.offers import Offer
from haif.protocol.prefixes import are_tags
from haif.protocol.reach import Place
from haif.protocol.records import Record, RecordKind
from haif.protocol.sandbox import check_sandbox

Busy = Mapping[Post, Mapping[JobId, int]]


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A live worker as placement sees it. `load` counts requests, running and waiting."""

    worker: PeerId
    place: Place
    slots: int
    load: int
    context_tokens: int
    sandbox: str  # the weaker level of what it says in offer and heartbeat
    hot: frozenset[bytes] = frozenset()  # tags of beginnings it computed lately
    ejected: bool = False
    doubted: bool = False
    ready_seconds: float = 0.0
    verifiable: bool = True
    tasks: Tasks = frozenset({Task.CHAT, Task.TEXT})
    dimensions: int = 0
    comparable: bool = True  # some validator computes by its recipe, as far as we know

    @property
    def depth(self) -> float:
        """How many times its slots are taken, or as good as taken while the model is not in memory."""
        return self.load / self.slots + (
            limits.COLD_DEPTH + self.ready_seconds / limits.COLD_SECONDS if self.ready_seconds else 0.0
        )

    @property
    def is_full(self) -> bool:
        """Whether it would refuse another request."""
        return self.load >= self.slots + limits.WORKER_QUEUE_MAX

    def meets(self, execution: str) -> bool:
        """Whether its answers can be checked as is demanded."""
        return meets(self.verifiable, execution) and (self.comparable or execution != VERIFIABLE)

    def wait(self, job_seconds: float) -> float:
        """Seconds until it has a slot for one more, where a job takes `job_seconds`."""
        return max(0, self.load - self.slots + 1) / self.slots * job_seconds


def able(views: Sequence[WorkerView], task: Task) -> list[WorkerView]:
    """Those that can do it. Raises `Unsupported` where there are workers, and none can."""
    found = [view for view in views if task in view.tasks]
    if views and not found:
        can = frozenset[Task]().union(*(view.tasks for view in views))
        raise Unsupported(f"this model cannot do {task.value}: it can do {listed(can)}", param="model")
    return found


def choose(
    views: Sequence[WorkerView],
    tried: Collection[PeerId],
    entropy: Callable[[int], bytes],
    *,
    sandbox_min: str = "none",
    execution: str = VERIFIABLE,
    prefixes: Sequence[bytes] = (),
    job_seconds: float = 0.0,
) -> WorkerView:
    """One of the least loaded workers that were not tried, of the demanded execution, and whose jail is good enough.

    One with the beginning goes first.

    Raises `NoWorker`, or `Overloaded` when all are full; `job_seconds`, how long a job takes, says until when.
    """
    untried = [view for view in views if view.worker not in tried and view.meets(execution)]
    if views and not any(view.meets(execution) for view in views):
        strange = any(meets(view.verifiable, execution) for view in views)
        raise NoWorker(_INCOMPARABLE if strange else _OTHER_EXECUTION[execution], retry_after=limits.HEARTBEAT_SECONDS)
    confined = [view for view in untried if suffices(view.sandbox, sandbox_min)]
    if untried and not confined:
        raise NoWorker(
            f"no live worker of this model says that its engine's sandbox is {sandbox_min!r}, as is demanded",
            retry_after=limits.HEARTBEAT_SECONDS,
        )
    if not confined:
        raise NoWorker(
            "no other live worker offers this model" if tried else "no live worker offers this model",
            retry_after=limits.HEARTBEAT_SECONDS,
        )
    able = [view for view in confined if not view.is_full]
    if not able:
        wait = min(view.wait(job_seconds) for view in confined)
        raise Overloaded(
            "the queues of all workers of this model are full",
            retry_after=min(max(limits.HEARTBEAT_SECONDS, wait), limits.WAIT_SECONDS_MAX),
        )
    admitted = [view for view in able if not view.ejected] or able
    sound = [view for view in admitted if not view.doubted] or admitted
    costs = {view.worker: view.depth - limits.PREFIX_DEPTH * _known(prefixes, view.hot) for view in sound}
    least = min(costs.values())
    near = [view for view in sound if costs[view.worker] <= least + 1 / view.slots]
    return min(_two(near, entropy), key=lambda view: costs[view.worker])


def part_of(views: Sequence[WorkerView], model: ModelDigest, jobs: Iterable[Job], gateway: PeerId) -> int:
    """How many slots of a model's workers a gateway may take for its own.

    All, or an equal part where other gateways have jobs of that model open.
    """
    sharing = {job.gateway for job in jobs if job.model_digest == model} | {gateway}
    slots = sum(view.slots for view in views if not view.ejected)
    return max(1, slots // len(sharing)) if slots else 0


def _two(views: list[WorkerView], entropy: Callable[[int], bytes]) -> list[WorkerView]:
    """Two of them at random, in a random order; the only one, where there is but one."""
    drawn = int.from_bytes(entropy(8), "big")
    first = views.pop(drawn % len(views))
    return [first, views[(drawn >> 32) % len(views)]] if views else [first]


def _known(prefixes: Sequence[bytes], hot: Collection[bytes]) -> float:
    """The share of a request's beginnings that somebody has: they have all up to the longest that they have."""
    longest = max((place for place, tag in enumerate(prefixes, start=1) if tag in hot), default=0)
    return longest / max(1, len(prefixes))


_OTHER_EXECUTION: Final = {
    VERIFIABLE: "every live worker of this model runs it unverifiably, in a program that is not ours: a tenant who "
    'wants that says "haif": {"execution": "any"}',
    UNVERIFIABLE: "no live worker of this model runs it in a program that is not ours, as is demanded",
}


_INCOMPARABLE: Final = (
    "every live worker of this model computes by a recipe that no validator here has, so that nobody can check it: a "
    'tenant who wants that says "haif": {"execution": "any"}'
)


@dataclass(frozen=True, slots=True)
class _Share:
    slots: int
    correction: int
    sandbox: str
    hot: frozenset[bytes]
    ready_seconds: float


@dataclass(frozen=True, slots=True)
class _Pulse:
    heard: Instant
    shares: Mapping[ModelDigest, _Share]


@dataclass(slots=True)
class Fleet:
    """The workers we heard of. None of it is kept: after a restart, offers and heartbeats bring it back in seconds.

    `out`: those that were convicted (`proof.standing`); they are as good as dead. `strange`: those whose answers no
    validator can compare; they get only what need not be checked.
    """

    workers_max: int = limits.WORKERS_MAX
    out: frozenset[PeerId] = frozenset()
    strange: frozenset[PeerId] = frozenset()
    pauses: Pauses = field(default_factory=Pauses)
    paused: frozenset[PeerId] = frozenset()
    brakes: Brakes = field(default_factory=Brakes)
    _pulses: dict[PeerId, _Pulse] = field(default_factory=dict)
    _offers: dict[ModelDigest, dict[PeerId, Offer]] = field(default_factory=dict)
    _boots: dict[PeerId, BootId] = field(default_factory=dict)

    def pause(self, pauses: Pauses) -> None:
        """What the operator paused has changed."""
        self.pauses, self.paused = pauses, pauses.workers

    def met(self, worker: PeerId, boot: BootId) -> bool:
        """A worker was heard in this start of its process; whether it was an earlier one before.

        Then it may listen elsewhere now: what it offers should be asked for again.
        """
        restarted = self._boots.get(worker, boot) != boot
        self._boots[worker] = boot
        return restarted

    def hear(self, worker: PeerId, heartbeat: Heartbeat, busy: Busy, now: Instant, wall: WallTime) -> None:
        """Take in a verified heartbeat. Raises `Malformed`, or `Overloaded` when too many workers are alive."""
        check_heartbeat(heartbeat, worker)
        if worker not in self._pulses and len(self._pulses) >= self.workers_max:
            self.forget_silent(now)
            if len(self._pulses) >= self.workers_max:
                raise Overloaded(f"{self.workers_max} workers are alive here; join another orchestrator")
        shares = {load.model: _share(load, busy.get((worker, load.model), {}), wall) for load in heartbeat.loads}
        self._pulses[worker] = _Pulse(now, shares)
        self.brakes.heard(worker)

    def lost(self, worker: PeerId) -> None:
        """Its last session with us ended: it gets no work until it is heard again."""
        self._pulses.pop(worker, None)

    def offered(self, worker: PeerId, offer: Offer) -> None:
        """A worker offers a model, or offers it anew."""
        self._offers.setdefault(offer.model, {})[worker] = offer

    def withdrawn(self, worker: PeerId, model: ModelDigest) -> None:
        """A worker does not offer a model, or not any more."""
        self._offers.get(model, {}).pop(worker, None)

    def live(self, model: ModelDigest, busy: Busy, now: Instant) -> list[WorkerView]:
        """The workers that can be given work on this model."""
        views: list[WorkerView] = []
        ejected = self.brakes.ejected([(worker, model) for worker in self._offers.get(model, {})], now)
        for worker, offer in self._offers.get(model, {}).items():
            pulse = self._pulses.get(worker)
            if (
                worker in self.out
                or worker in self.paused
                or pulse is None
                or _is_silent(pulse, now)
                or model not in pulse.shares
            ):
                continue
            share = pulse.shares[model]
            load = max(0, len(busy.get((worker, model), ())) + share.correction)
            sandbox = min(offer.sandbox.level, share.sandbox, key=LEVELS.index)
            views.append(
                WorkerView(
                    worker, offer.place, share.slots, load, offer.context_tokens, sandbox, share.hot,
                    ejected=(worker, model) in ejected, doubted=self.brakes.is_doubted(worker),
                    ready_seconds=share.ready_seconds, verifiable=offer.verifiable,
                    tasks=tasks_of(offer.tasks), dimensions=offer.dimensions, comparable=worker not in self.strange,
                )
            )  # fmt: skip
        return views

    def offer(self, worker: PeerId, model: ModelDigest) -> Offer | None:
        """What the worker offers for this model now, if that is known."""
        return self._offers.get(model, {}).get(worker)

    def live_count(self, now: Instant) -> int:
        """How many workers can be given work, on any model."""
        return len({view.worker for model in self._offers for view in self.live(model, {}, now)})

    def knows(self, worker: PeerId, model: ModelDigest) -> bool:
        """Whether an offer of this worker is known."""
        return worker in self._offers.get(model, {})

    def forget_silent(self, now: Instant) -> None:
        """Drop the pulses that stopped."""
        for worker in [worker for worker, pulse in self._pulses.items() if _is_silent(pulse, now)]:
            del self._pulses[worker]
            self._boots.pop(worker, None)


def _is_silent(pulse: _Pulse, now: Instant) -> bool:
    return now - pulse.heard >= limits.HEARTBEAT_SILENCE_SECONDS


def _share(load: Load, ours: Mapping[JobId, int], wall: WallTime) -> _Share:
    reported = load.running + load.queued
    settled = sum(1 for reserved in ours.values() if reserved <= wall - limits.REDEEM_MS)
    correction = reported - min(max(reported, settled), len(ours))
    return _Share(load.slots, correction, load.sandbox.level, frozenset(load.hot), load.ready_seconds)


def check_heartbeat(heartbeat: Heartbeat, worker: PeerId) -> None:
    """Return if the numbers can be true. Raises `Malformed`: invented slots would draw all work to them."""
    if len(heartbeat.loads) > limits.HEARTBEAT_LOADS_MAX:
        raise Malformed(f"a heartbeat reports on at most {limits.HEARTBEAT_LOADS_MAX} models", worker)
    if len({load.model for load in heartbeat.loads}) < len(heartbeat.loads):
        raise Malformed("a heartbeat reports twice on one model", worker)
    for load in heartbeat.loads:
        if not 1 <= load.slots <= limits.ENGINE_SLOTS_MAX:
            raise Malformed(f"a worker has 1 to {limits.ENGINE_SLOTS_MAX} slots, not {load.slots}", worker)
        if load.running < 0 or load.queued < 0:
            raise Malformed("a heartbeat counts fewer requests than none", worker)
        if not are_tags(load.hot, limits.HOT_PREFIXES_MAX):
            raise Malformed(f"a heartbeat names at most {limits.HOT_PREFIXES_MAX} beginnings, of 8 bytes each", worker)
        if not 0 <= load.tokens_per_second < float("inf"):
            raise Malformed("a heartbeat's tokens per second are no number", worker)
        check_sandbox(load.sandbox, worker)
        if not 0 <= load.ready_seconds < float("inf"):
            raise Malformed("a heartbeat says that a model is ready at no time", worker)


def check_offer(
    record: Verified[Record], model: ModelDigest, topic: Digest, admitted: Collection[PeerId] | None
) -> Offer:
    """What a record found at a model's topic offers. `admitted` None: any worker.

    Raises `WrongState` for a record that does not belong there, `Forbidden` for a worker that was not admitted,
    `Malformed` for a body that is no offer, or one without a way to its worker, or of what no model can do.
    """
    owner, stated = record.signer, record.payload
    if stated.kind != RecordKind.OFFER or stated.topic != topic or stated.tombstone:
        raise WrongState("not an offer of this model", owner)
    if admitted is not None and owner not in admitted:
        raise Forbidden(f"worker {owner.short}… is not admitted")
    offer = codec.decode(Offer, stated.body)
    if offer.model != model:
        raise WrongState("the offer is of another model than its topic", owner)
    if offer.adapted is not None and offer.adapted.model != model:
        raise Malformed("the offer names a base and an adapter that are not its model", owner)
    check_sandbox(offer.sandbox, owner)
    ways = [*offer.place.addresses, *(relay.address for relay in offer.place.relays)]
    if not ways or not all(host and 0 < port < 1 << 16 for host, port in ways):
        raise Malformed("the offer names no way to its worker, or one that cannot be dialled", owner)
    tasks_of(offer.tasks)
    if not 0 <= offer.dimensions <= limits.EMBEDDING_DIMENSIONS_MAX:
        raise Malformed(f"the offer is of vectors of {offer.dimensions} numbers, which no model makes", owner)
    return offer
