"""What jail this machine can build: a child builds it for real, around nothing, says what holds, and ends."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

from haif.base import limits
from haif.base.clock import Clock
from haif.base.errors import EngineDied
from haif.base.ids import ModelDigest
from haif.engine.meter import Meter
from haif.engine.sandbox.layers import Statement
from haif.engine.service.process import Process
from haif.engine.service.settings import EngineSettings
from haif.engine.service.spawn import CHILD_PROGRAM

_NO_MODEL: Final = EngineSettings(
    Path(os.devnull), ModelDigest(bytes(32)), slots=1, context_tokens=0, threads=1, insecure_no_sandbox=True
)


async def probe(clock: Clock, *, program: str = CHILD_PROGRAM) -> Statement:
    """The statement of a child that would now be told to load; the kernel agrees where it can be asked.

    No layer is demanded: what is missing is said. Raises `EngineDied` when no child gets that far.
    """
    child = Process(_NO_MODEL, clock, Meter(), lambda _: None)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        await child.start(program, nothing)
        async with asyncio.timeout(limits.ENGINE_START_SECONDS):
            sealed = await child.sealed()
    except TimeoutError:
        raise EngineDied("it did not build its jail in time") from None
    finally:
        await child.close()
        os.close(nothing)
    return Statement(tuple(sealed.enforced), sealed.missing, tuple(sealed.notes), sealed.pid)
