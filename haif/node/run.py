"""One role in this process, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from haif import config
from haif.base.errors import Misuse
from haif.node.ground import open_ground

_OBJECTS_BETWEEN_COLLECTIONS: Final = 10_000  # of those not freed by themselves; a megabyte or two

Announce = Callable[[dict[str, str]], None]


def run(settings: config.Common, *, announce: Announce, until_eof: bool = False) -> int:
    """Run the role these settings are for until SIGINT, SIGTERM or, if asked, the end of standard input."""

    async def whole() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        if until_eof:
            _watch_stdin(loop, stop)
        serving = asyncio.create_task(_serve(settings, announce))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        serving.cancel()  # wherever it is: a role that is still loading its model stops too
        with contextlib.suppress(asyncio.CancelledError):
            await serving

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(whole())
    return 0


async def _serve(settings: config.Common, announce: Announce) -> None:
    async with _role(settings) as ready:
        announce(ready)
        gc.collect()
        gc.freeze()  # what a role is made of stays: looking through it again and again was a fifteenth of its work
        gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 20, 50)
        await asyncio.Event().wait()  # until it is cancelled


def _role(settings: config.Common) -> AbstractAsyncContextManager[dict[str, str]]:
    """The role these settings are for; each imports only what it needs."""
    match settings:
        case config.OrchestratorSettings():
            from haif.node.orchestrator import open_orchestrator

            return open_orchestrator(settings)
        case config.WorkerSettings():
            from haif.node.worker import open_worker

            return open_worker(settings)
        case config.GatewaySettings():
            from haif.node.gateway import open_gateway

            return open_gateway(settings)
        case config.ValidatorSettings():
            from haif.node.validator import open_validator

            return open_validator(settings)
        case config.RelaySettings():
            from haif.node.relay import open_relay

            return open_relay(settings)
        case config.NodeSettings():
            return _node(settings)
    raise Misuse(f"{type(settings).__name__} is no role's")


@asynccontextmanager
async def _node(settings: config.NodeSettings) -> AsyncIterator[dict[str, str]]:
    async with open_ground(settings) as ground, ground.announced("node"):
        yield ground.ready


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop where it is installed (the extra `speed`), else the standard loop."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Stop when whoever started us closes our standard input, by ending or by being killed."""

    def readable() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            stop.set()

    loop.add_reader(sys.stdin.fileno(), readable)
