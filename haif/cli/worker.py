"""`haif worker models`: the models of a running worker, and what its operator wants of them."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from haif import config
from haif.base import limits

if TYPE_CHECKING:
    from haif.worker.control import Asked, Shown, Told

_VERBS = {
    "list": "how the models of the running worker stand (also without a verb)",
    "load": "have a model in memory now; others leave for it as they would for a request",
    "unload": "have a model leave memory; it stays offered, and whoever asks for it has it loaded again",
    "pin": "load a model and let it leave for no other",
    "unpin": "let a model leave again",
    "release": "let a quarantined model be loaded again; also where no worker runs",
}


def add(worker: argparse.ArgumentParser) -> None:
    """Register the verbs below `haif worker`, which without them runs one."""
    groups = worker.add_subparsers(metavar="VERB", parser_class=type(worker))
    models = groups.add_parser("models", help="list, load, unload and pin the models of a running worker")
    _flags(models)
    models.set_defaults(handler=_models, action="list", model="")
    verbs = models.add_subparsers(metavar="VERB", parser_class=type(worker))
    for name, text in _VERBS.items():
        verb = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        _flags(verb, again=True)
        if name != "list":
            verb.add_argument("model", metavar="MODEL", help="by name or digest")
        if name == "unload":
            verb.add_argument(
                "--seconds", type=float, default=limits.MODEL_UNLOAD_SECONDS, metavar="FLOAT",
                help="how long its running answers may go on (default: %(default)s)",
            )  # fmt: skip
        verb.set_defaults(handler=_models, action=name)


def _flags(parser: argparse.ArgumentParser, *, again: bool = False) -> None:
    """`again`: what was given before the verb holds unless it is given after it."""
    default = argparse.SUPPRESS if again else None
    parser.add_argument("--name", metavar="STR", default=default, help="name of the worker's instance")
    parser.add_argument("--state", metavar="PATH", default=default, help="its state folder")
    parser.add_argument("--json", action="store_true", default=default or False, help="as JSON, one object a line")


def _models(arguments: argparse.Namespace) -> int:
    from haif.base.errors import ConnectionLost
    from haif.worker.control import Asked, Verb
    from haif.worker.quarantine import QUARANTINE

    settings = config.load(config.WorkerSettings, {"name": arguments.name, "state": arguments.state})
    asked = Asked(
        verb=Verb(arguments.action), model=arguments.model,
        seconds=getattr(arguments, "seconds", limits.MODEL_UNLOAD_SECONDS),
    )  # fmt: skip
    folder = settings.folder / (settings.name or "worker")
    try:
        asyncio.run(_ask(folder, asked, as_json=arguments.json))
    except ConnectionLost:
        if asked.verb is not Verb.RELEASE or not (folder / QUARANTINE).exists():
            raise
        _release(settings, folder, asked.model)
    return 0


def _release(settings: config.WorkerSettings, folder: Path, name: str) -> None:
    """Take a model out of the record that a worker left behind."""
    from haif.base.ids import ModelDigest
    from haif.node.settings import model_store
    from haif.node.worker import read_quarantine
    from haif.runtime import disk
    from haif.runtime.clock import SystemClock
    from haif.worker.quarantine import QUARANTINE

    with disk.owned(folder / "lock", folder.name):
        try:
            model = ModelDigest.parse(name)
        except ValueError:
            store = model_store(settings)
            model = store.base_of(store.find(name)).digest
        kept = read_quarantine(folder, SystemClock().wall())
        print("released" if kept.release(model) else "it was not quarantined")
        disk.write_private(folder / QUARANTINE, kept.dump())


async def _ask(folder: Path, asked: Asked, *, as_json: bool) -> None:
    from contextlib import aclosing

    from haif.base.errors import from_reason
    from haif.worker.service import ask

    watched = sys.stderr.isatty() and not as_json
    async with aclosing(ask(folder, asked)) as answer:
        async for told in answer:
            if told.error:
                raise from_reason(told.reason, told.error)
            if as_json:
                print(_json(told), flush=True)
            elif told.models is not None:
                print("\r\x1b[K" * watched + _table(told))
            elif told.progress is not None and watched:
                print(f"\r{_doing(told.progress):<60}", end="", file=sys.stderr, flush=True)


def _json(told: Told) -> str:
    import msgspec

    return json.dumps({key: value for key, value in msgspec.to_builtins(told).items() if value is not None})


def _doing(model: Shown) -> str:
    if model.stage:
        return f"{model.stage} {model.name} {model.percent} %"
    return f"{model.name}: {model.state}, {model.running} answers running"


def _table(told: Told) -> str:
    from haif.base.amounts import bytes_text

    rows = [("MODEL", "STATE", "MEMORY", "SLOTS", "RUNNING", "WAITING", "READY IN", "SANDBOX")]
    for each in told.models or ():
        state = each.state + (f" {each.stage} {each.percent} %" if each.stage else "") + " pinned" * each.pinned
        ready = f"{each.ready_seconds:g} s" if each.ready_seconds else "now"
        counts = (str(each.slots), str(each.running), str(each.waiting))
        rows.append((each.name, state, bytes_text(each.memory_bytes), *counts, ready, each.sandbox or "not loaded yet"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for each in told.models or ():
        if each.cause:
            until = time.strftime("%H:%M", time.localtime(each.until / 1000))
            lines.append(f"{each.name} is quarantined until {until}: {each.cause}")
    lines.append(f"memory: {bytes_text(told.memory_used)} of {bytes_text(told.memory_bytes)} for models")
    return "\n".join([*lines, *([told.note] if told.note else [])])
