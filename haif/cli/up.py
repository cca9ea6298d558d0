"""`haif up`: the whole mesh on this machine, left running."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haif import config

if TYPE_CHECKING:
    from haif.cli.mesh import Mesh


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    up = commands.add_parser("up", help="start a whole mesh on this machine and leave it running; Ctrl-C stops it")
    add_mesh_flags(up)
    up.add_argument("--http-port", type=int, default=0, metavar="INT", help="TCP port of the API; 0 picks a free one")
    up.add_argument("--relay", action="store_true", help="with a relay through which the workers can be met, too")
    up.add_argument("--json", action="store_true", help="print one JSON line when everything is ready")
    up.set_defaults(handler=_up)


def add_mesh_flags(verb: argparse.ArgumentParser) -> None:
    """The flags that `up` and `demo` share."""
    verb.add_argument(
        "--model", action="append", dest="models", metavar="FILE|NAME",
        help="a GGUF file, or one of `haif model ls`; may be given more than once (default: the demo)",
    )  # fmt: skip
    verb.add_argument("--memory", metavar="STR", default="", help="what models may take of one worker's memory")
    verb.add_argument("--workers", type=int, default=2, metavar="INT", help="worker processes (default: 2)")
    verb.add_argument(
        "--threads", type=int, default=0, metavar="INT", help="engine threads a worker; 0 shares the cores"
    )
    verb.add_argument(
        "--validators",
        type=int,
        default=0,
        metavar="INT",
        help="processes that audit the workers; six and more convict by panels (default: 0)",
    )
    verb.add_argument("--state", metavar="PATH", help="folder for keys, databases and models")
    verb.add_argument("--network", metavar="STR", help="name of the network (default: local)")
    verb.add_argument(
        "--closed", action="store_true", help="a closed network: only peers that were admitted get in (haif network)"
    )


def _up(arguments: argparse.Namespace) -> int:
    return run_mesh(arguments, arguments.http_port, lambda mesh, seconds: _left_running(mesh, seconds, arguments.json))


def run_mesh(arguments: argparse.Namespace, http_port: int, inside: Callable[[Mesh, float], Any]) -> int:
    """Start the mesh, await `inside(mesh, seconds it took)`, stop the mesh; an interrupt ends it in good order."""
    from haif.base.errors import Misuse
    from haif.cli.mesh import Mesh, threads_default
    from haif.runtime import disk

    if not 1 <= arguments.workers <= 16:
        raise Misuse("--workers must be between 1 and 16")
    if not 0 <= arguments.validators <= 8:
        raise Misuse("--validators must be between 0 and 8")
    if not 0 <= http_port <= 65535:
        raise Misuse(f"--http-port: a port is 0 to 65535, not {http_port}")
    if arguments.threads < 0:
        raise Misuse("--threads must be 0 or more")
    if config.load(config.GatewaySettings, {"state": arguments.state}).tls_cert is not None:
        raise Misuse("your settings name a certificate for the gateway, and this mesh is for this machine only: "
                     "start its roles one by one (`haif gateway --help`), or leave tls_cert out")  # fmt: skip
    settings = config.load(config.NodeSettings, vars(arguments))
    started = time.monotonic()

    async def whole() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        mesh = Mesh(
            settings,
            models=[_chosen_model(wanted, settings) for wanted in arguments.models or [None]],
            memory=arguments.memory,
            workers=arguments.workers,
            validators=arguments.validators,
            http_port=http_port,
            threads=arguments.threads or threads_default(arguments.workers),
            closed=arguments.closed,
            relay=getattr(arguments, "relay", False),
            report=_report,
        )
        stopped = asyncio.create_task(stop.wait())
        body = asyncio.create_task(_inside(mesh, inside, started))
        await asyncio.wait({stopped, body}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not body.done():
            body.cancel()
        with contextlib.suppress(asyncio.CancelledError):  # we cancelled it; the mesh stopped on its way out
            await body

    with disk.owned(settings.folder / "up.lock", "haif up"):
        asyncio.run(whole())
    return 0


def _report(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal is gone, or the disk full: the mesh goes on
        print(text, file=sys.stderr, flush=True)


async def _inside(mesh: Mesh, inside: Callable[[Mesh, float], Any], started: float) -> None:
    async with mesh:
        await inside(mesh, time.monotonic() - started)


def _chosen_model(wanted: str | None, settings: config.Common) -> str:
    """The name of the model to serve: a GGUF file is put into the store first."""
    from haif.artifacts.service import DEMO_NAME
    from haif.cli.model import add_model, open_store

    if wanted is None:
        return DEMO_NAME
    if wanted.endswith(".gguf") or "/" in wanted:
        return add_model(Path(wanted), settings, None).name
    return open_store(settings).find(wanted).name


async def _left_running(mesh: Mesh, seconds: float, as_json: bool) -> None:
    if as_json:
        print(json.dumps(mesh.card()), flush=True)
    else:
        print(_welcome(mesh, seconds), flush=True)
    await asyncio.Event().wait()  # until the interrupt cancels us


def _welcome(mesh: Mesh, seconds: float) -> str:
    rows = [("ROLE", "ADDRESS", "METRICS", "PEER")]
    for role in mesh.roles:
        address = role.ready.get("http") or role.ready.get("wire", "")
        rows.append((role.name, address, role.ready.get("metrics", ""), role.ready["peer"][:16] + "…"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    table = "\n".join(f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c:<{widths[2]}}  {d}" for a, b, c, d in rows)
    card = mesh.card()
    network = mesh.roles[0].ready["network"]
    return f"""
The mesh is up ({seconds:.1f} s). Ctrl-C stops it.

{table}

  network     {network}
  tenant key  {card["key"]}
  model       {card["model"]}

Ask it with curl:
  curl -N {card["gateway"]}/v1/chat/completions -H 'Authorization: Bearer {card["key"]}' \\
    -H 'Content-Type: application/json' \\
    -d '{{"model": "{card["model"]}", "stream": true, "messages": [{{"role": "user", "content": "Who are you?"}}]}}'

or with Python:
  from openai import OpenAI
  client = OpenAI(base_url="{card["gateway"]}/v1", api_key="{card["key"]}")
  print(client.chat.completions.create(
      model="{card["model"]}", messages=[{{"role": "user", "content": "Who are you?"}}]).choices[0].message.content)

or in this terminal:  haif chat
"""
