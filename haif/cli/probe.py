"""`haif worker --probe`: which jail this machine can build around an engine, layer by layer."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from haif.config import WorkerSettings
    from haif.engine.sandbox.layers import Statement


def probe(settings: WorkerSettings, *, as_json: bool) -> int:
    """Build the jail once, for real, and print what holds; 1 where that is less than these settings demand."""
    from haif.base.confinement import suffices
    from haif.engine.service.probe import probe as build
    from haif.runtime.clock import SystemClock

    found = view(asyncio.run(build(SystemClock())))
    demanded = "none" if settings.insecure_no_sandbox else settings.sandbox_min
    print(json.dumps(found) if as_json else table(found, demanded))
    return 0 if suffices(found["level"], demanded) else 1


def view(statement: Statement) -> dict[str, Any]:
    """The statement as a worker would sign it, with why each missing layer is missing, and the risks that remain."""
    from haif.engine.sandbox.layers import level, residual

    return {
        "level": level(statement.enforced),
        "enforced": list(statement.enforced),
        "missing": dict(statement.missing),
        "residual": list(residual(statement.missing, statement.notes)),
    }


def table(found: dict[str, Any], demanded: str) -> str:
    """The same for people."""
    rows = [(layer, "enforced", "") for layer in found["enforced"]]
    rows += [(layer, "missing", why) for layer, why in found["missing"].items()]
    lines = [f"{layer:<20}  {state:<9} {detail}".rstrip() for layer, state, detail in rows]
    risks = [f"risk: {risk}" for risk in found["residual"]]
    return "\n".join([*lines, "", *risks, f"level: {found['level']} (demanded: {demanded})"])
