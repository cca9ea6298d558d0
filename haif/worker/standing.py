"""Where each model of a worker stands, as everybody is told: the directory, orchestrators, operators."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from haif.base.adapters import Adapted
from haif.base.ids import ModelDigest
from haif.base.tasks import Task, Tasks
from haif.engine.request import EngineStatistics, ModelInfo
from haif.worker.quarantine import Case


class State(StrEnum):
    """Where a model stands: on disk only, on its way into memory, in it, about to leave, or kept apart."""

    COLD = "cold"
    LOADING = "loading"
    WARM = "warm"
    LEAVING = "leaving"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class Standing:
    """One model as it stands now. `size` is in bytes: what it takes, or is expected to.

    `percent` is that of the stage under way ("checking" the file, or "loading" it). `ready_seconds`: until a request
    given now could begin; `fits`: whether it can be loaded beside what is pinned. `about` is known once it was loaded.
    `case` is why it is kept apart, `sibling` another model of this worker that was loaded, in a jail built alike.
    """

    model: ModelDigest
    name: str
    slots: int
    state: State
    pinned: bool
    fits: bool
    size: int
    context_tokens: int
    stage: str
    percent: int
    ready_seconds: float
    waiting: int
    about: ModelInfo | None
    statistics: EngineStatistics | None
    case: Case | None = None
    sibling: ModelInfo | None = None
    verifiable: bool = True
    tasks: Tasks = frozenset({Task.CHAT, Task.TEXT})
    dimensions: int = 0  # of its vectors
    life: int = 0  # another number for each child; what one computed, the next has not
    adapted: Adapted | None = None  # for a model that another's engine computes, with an adapter on

    @property
    def is_offered(self) -> bool:
        """Whether work on it may come here."""
        return self.fits and self.case is None
