"""`haif model`: the models of this machine, each with the manifest its publisher signed."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from haif import config

if TYPE_CHECKING:
    from haif.artifacts.service import ModelStore, StoredModel


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verbs."""
    group = commands.add_parser("model", help="list, add and show models")
    verbs = group.add_subparsers(metavar="VERB", required=True)
    ls = verbs.add_parser("ls", help="the models here")
    ls.set_defaults(handler=_ls)
    put = verbs.add_parser(
        "add", help="hash a GGUF, sign its manifest with this machine's publisher key, and keep both"
    )
    put.add_argument("file", type=Path, metavar="FILE.gguf", help="a model, or with --base a LoRA adapter for one")
    put.add_argument("--base", metavar="MODEL", help="name or digest of the model that an adapter belongs to")
    put.add_argument("--name", help="what to call it (default: the file's name)")
    put.add_argument("--license", default="unknown", help="its licence, for the manifest (SPDX id)")
    put.set_defaults(handler=_add)
    show = verbs.add_parser("show", help="one model's manifest")
    show.add_argument("name", help="name or digest")
    show.set_defaults(handler=_show)
    for verb in (ls, put, show):
        verb.add_argument("--state", metavar="PATH", help="state folder")
        verb.add_argument("--publisher", action="append", dest="publishers", metavar="PEER", help="trust this one too")
        verb.add_argument("--json", action="store_true", help="as JSON")


def _ls(arguments: argparse.Namespace) -> int:
    store = _store(arguments)
    models = store.models()
    if arguments.json:
        print(json.dumps([_describe(model) for model in models]))
    else:
        print(f"{'NAME':<28} {'DIGEST':<18} {'SIZE':>10}  PUBLISHER")
        for model in models:
            size = model.manifest.payload.size
            on = f"  on {str(model.adapted.base)[:16]}…" if model.adapted else ""
            signer = model.manifest.signer.short
            print(f"{model.name:<28} {str(model.digest)[:16]}… {size / 1e6:>7.1f} MB  {signer}…{on}")
    for path, error in store.rejected():
        print(f"left out: {path.name}: {error.message}", file=sys.stderr)
    return 0


def _add(arguments: argparse.Namespace) -> int:
    settings = config.load(config.WorkerSettings, vars(arguments))
    model = add_model(arguments.file, settings, arguments.name, arguments.license, arguments.base)
    _print(model, arguments.json)
    return 0


def _show(arguments: argparse.Namespace) -> int:
    _print(_store(arguments).find(arguments.name), arguments.json)
    return 0


def add_model(
    file: Path, settings: config.Common, name: str | None, license_name: str = "unknown", base: str | None = None
) -> StoredModel:
    """Put a GGUF into the store of this machine, signed by its own publisher key. Shows progress on a terminal.

    `base`: the model that an adapter belongs to.
    """
    from haif.identity.service import Keyring
    from haif.runtime.clock import entropy

    publisher = Keyring(settings.folder / "keys").load_or_create("publisher", entropy)
    store = open_store(settings)  # trusts that key
    chosen = name or re.sub(r"[^a-z0-9._-]+", "-", file.stem.lower()).strip("-._")[:64] or "model"
    with _Bar(file) as progress:
        return store.add(
            file, name=chosen, license_name=license_name, publisher=publisher, progress=progress, base=base
        )


def open_store(settings: config.Common) -> ModelStore:
    """The model store of this machine, trusting its own publisher key and those in the settings."""
    from haif.node.settings import model_store

    return model_store(settings)


def _store(arguments: argparse.Namespace) -> ModelStore:
    return open_store(config.load(config.WorkerSettings, vars(arguments)))


class _Bar:
    """A progress bar on a terminal, silence elsewhere. Hashing runs at gigabytes a second: small files show nothing."""

    def __init__(self, file: Path) -> None:
        self._name = file.name
        self._started = time.monotonic()
        self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print(file=sys.stderr)

    def __call__(self, done: int, total: int) -> None:
        if not sys.stderr.isatty() or time.monotonic() - self._started < 0.3:
            return
        self._shown = True
        print(f"\rhashing {self._name} {100 * done // max(total, 1):>3} %", end="", file=sys.stderr, flush=True)


def _describe(model: StoredModel) -> dict[str, str | int]:
    said = model.manifest.payload
    return {
        "name": said.name,
        "digest": str(said.served),
        **({"base": str(said.base), "adapter": str(said.model)} if said.base else {}),
        "sha256": str(said.sha256),
        "size": said.size,
        "license": said.license,
        "publisher": str(model.manifest.signer),
        "published": said.published,
        "expires": said.expires,
        "path": str(model.path),
    }


def _print(model: StoredModel, as_json: bool) -> None:
    fields = _describe(model)
    if as_json:
        print(json.dumps(fields))
        return
    for key in ("published", "expires"):
        fields[key] = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(int(fields[key]) / 1000))
    print("\n".join(f"{key:<10} {value}" for key, value in fields.items()))
