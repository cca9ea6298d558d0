"""The models of a pool: which there are, by name and digest, and what they take and have computed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from haif.base import limits
from haif.base.adapters import Adapted
from haif.base.amounts import bytes_text
from haif.base.clock import Instant
from haif.base.errors import Misuse, Overloaded, UnknownModel
from haif.base.ids import ModelDigest
from haif.worker.room import Resident
from haif.worker.service.entry import IN_MEMORY, Entry, Served


class Roster:
    """One `Entry` for each engine, by its model; its variants are found by theirs.

    Raises `Misuse` for more models than a worker serves, and for those that cannot fit into `memory_bytes`.
    """

    def __init__(self, models: Iterable[Served], memory_bytes: int, now: Instant) -> None:
        self.memory_bytes = memory_bytes
        self.entries = {each.model: Entry(each, each.pinned, each.needs.total, now, now) for each in models}
        self._variants = {
            variant.model: (variant, entry) for entry in self.entries.values() for variant in entry.served.variants
        }
        self._check()

    def _check(self) -> None:
        if not 1 <= len(self.models) <= limits.WORKER_MODELS_MAX:
            raise Misuse(
                f"a worker serves 1 to {limits.WORKER_MODELS_MAX} models, those with adapters counted, "
                f"not {len(self.models)}"
            )
        for entry in self.entries.values():
            if entry.size > self.memory_bytes:
                raise Misuse(
                    f"{entry.served.name} needs about {bytes_text(entry.size)}, and this worker has "
                    f"{bytes_text(self.memory_bytes)} for models: give --memory more, or it fewer --slots or "
                    "--context-tokens"
                )
        if sum(entry.size for entry in self.entries.values() if entry.pinned) > self.memory_bytes:
            raise Misuse(f"the pinned models need more than the {bytes_text(self.memory_bytes)} for models")

    @property
    def models(self) -> Collection[ModelDigest]:
        """All that are served, those with an adapter among them."""
        return [*self.entries, *self._variants]

    def find(self, name: str) -> ModelDigest:
        """The model of a name or digest. Raises `UnknownModel` naming those there are."""
        for model in self.models:
            if name in (self.name(model), str(model)):
                return model
        known = ", ".join(sorted(map(self.name, self.models)))
        raise UnknownModel(f"this worker does not serve {name[: limits.MODEL_NAME_CHARS_MAX]!r}; it serves: {known}")

    def name(self, model: ModelDigest) -> str:
        """What people call a model that is served here."""
        return self._variants[model][0].name if model in self._variants else self.entry(model).served.name

    def adapted(self, model: ModelDigest) -> Adapted | None:
        """The base and the adapter of a model that is served here, where it has one."""
        return self._variants[model][0].adapted if model in self._variants else None

    def entry(self, model: ModelDigest) -> Entry:
        """The entry of a model, or of whose variant it is. Raises `UnknownModel`."""
        if model in self._variants:
            return self._variants[model][1]
        if model not in self.entries:
            raise UnknownModel("this worker does not serve that model")
        return self.entries[model]

    def residents(self) -> Sequence[Resident]:
        """Those that take memory."""
        return [entry.resident() for entry in self.entries.values() if entry.state in IN_MEMORY]

    def pin(self, model: ModelDigest, *, pinned: bool) -> None:
        """Keep a model in memory once it is there, or no longer. Raises `Overloaded` if the pinned would not fit."""
        entry = self.entry(model)
        others = sum(each.size for each in self.entries.values() if each.pinned and each is not entry)
        if pinned and others + entry.size > self.memory_bytes:
            raise Overloaded(f"with it, pinned models need more than the {bytes_text(self.memory_bytes)} for models")
        entry.pinned = pinned

    def fits(self, entry: Entry) -> bool:
        """Whether a model can be loaded beside what is pinned."""
        pinned = sum(each.size for each in self.entries.values() if each.pinned)
        return entry.pinned or pinned + entry.size <= self.memory_bytes

    @property
    def memory_used(self) -> int:
        """Bytes that the models in memory take, or will."""
        return sum(entry.size for entry in self.entries.values() if entry.state in IN_MEMORY)

    @property
    def preemptions(self) -> int:
        """How often an answer gave its KV cells up for others, in all engines there were."""
        return sum(entry.meter.preemptions for entry in self.entries.values())

    def tokens(self) -> tuple[int, int]:
        """Prompt tokens and answer tokens computed, by all engines there were."""
        meters = [entry.meter for entry in self.entries.values()]
        return sum(meter.prompt_tokens for meter in meters), sum(meter.completion_tokens for meter in meters)
