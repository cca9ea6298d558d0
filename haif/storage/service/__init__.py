"""The door to the disk."""

from __future__ import annotations

from haif.storage.service.api import Estate, Fenced, Move, Past, Store
from haif.storage.service.database import Database, DatabaseStatistics
from haif.storage.service.journal import JOURNAL_SCHEMA, Journal

__all__ = ["JOURNAL_SCHEMA", "Database", "DatabaseStatistics", "Estate", "Fenced", "Journal", "Move", "Past", "Store"]
