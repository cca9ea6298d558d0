"""The door of the orchestrator."""

from __future__ import annotations

from haif.orchestrator.decide import CatalogueEntry
from haif.orchestrator.service.orchestrator import (
    MIGRATIONS,
    Orchestrator,
    OrchestratorSettings,
    OrchestratorStatistics,
)

__all__ = ["MIGRATIONS", "CatalogueEntry", "Orchestrator", "OrchestratorSettings", "OrchestratorStatistics"]
