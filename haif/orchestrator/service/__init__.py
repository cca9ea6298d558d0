"""The door of the orchestrator."""

from __future__ import annotations

from haif.orchestrator.decide import CatalogueEntry
from haif.orchestrator.service.orchestrator import (
    MIGRATIONS,
    Orchestrator,
    OrchestratorSettings,
    OrchestratorStatistics,
)
from haif.orchestrator.service.pauses import Desk

__all__ = ["MIGRATIONS", "CatalogueEntry", "Desk", "Orchestrator", "OrchestratorSettings", "OrchestratorStatistics"]
