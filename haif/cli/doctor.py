"""`haif doctor`: look at this machine and say what is fine, what is missing, and what to do about it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING

from haif import config

if TYPE_CHECKING:
    from haif.base.clock import WallTime
    from haif.base.ids import PeerId
    from haif.identity.admission import Book

_DAYS_LEFT_MIN = 7  # with fewer, a person should ask for a new certificate


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `state` is "ok", "note" (works, with less) or "wrong"."""

    what: str
    state: str
    detail: str


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    doctor = commands.add_parser(
        "doctor", help="check this machine and say what to do; exit code 1 if something is wrong"
    )
    doctor.add_argument("--network", metavar="NAME", help="which network to look at (default: local)")
    doctor.add_argument("--state", metavar="PATH", help="state folder")
    doctor.add_argument("--json", action="store_true", help="as a JSON list")
    doctor.set_defaults(handler=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    settings = config.load(config.WorkerSettings, vars(arguments))
    found = [finding for check in CHECKS for finding in check(settings)]
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in found]))
    else:
        for finding in found:
            print(f"{finding.state:<6} {finding.what:<18} {finding.detail}")
    return 1 if any(finding.state == "wrong" for finding in found) else 0


def _python(settings: config.WorkerSettings) -> Iterator[Finding]:
    del settings
    version = sys.version.split()[0]
    yield Finding("python", "ok" if sys.version_info >= (3, 11) else "wrong", version)


def _state_folder(settings: config.WorkerSettings) -> Iterator[Finding]:
    folder = settings.folder
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(nearest, os.W_OK):
        yield Finding("state folder", "wrong", f"{folder} cannot be written; use --state or set HAIF_STATE")
        return
    yield Finding("state folder", "ok", str(folder))
    free = os.statvfs(nearest).f_bavail * os.statvfs(nearest).f_frsize
    yield Finding("disk", "ok" if free > 1 << 30 else "note", f"{free / 1e9:.1f} GB free")


def _keys(settings: config.WorkerSettings) -> Iterator[Finding]:
    from haif.base.errors import HaifError
    from haif.identity.service import Keyring

    ring = Keyring(settings.folder / "keys")
    for name in ring.names():
        try:
            yield Finding(f"key {name}", "ok", str(ring.load(name).peer))
        except HaifError as error:
            yield Finding(f"key {name}", "wrong", error.message)


def _network(settings: config.WorkerSettings) -> Iterator[Finding]:
    from haif.base.errors import HaifError
    from haif.identity.service import Keyring, Networks, Owner
    from haif.runtime.clock import SystemClock

    ring, networks = Keyring(settings.folder / "keys"), Networks(settings.folder / "networks")
    now = SystemClock().wall()
    try:
        network = networks.find(settings.network, now).network
    except (HaifError, OSError) as error:
        yield Finding("network", "wrong", str(error))
        return
    if not network.closed:
        yield Finding("network", "ok", f"{network.name}, open: every peer may take part; keys in the settings decide")
        return
    root = "its root key is here" if Owner(ring, networks).rules(network) else "its root key is elsewhere"
    yield Finding("network", "ok", f"{network.name}, closed: only admitted peers take part; {root}")
    book = networks.book(network, now)
    if book.stale(now):
        text = "no list of revocations of the last 30 days: a newer one may be kept from this machine"
        yield Finding("revocations", "note", text)
    for name in ring.names():
        peer = ring.load(name).peer
        evidence = networks.admission(network, peer)
        if evidence:
            yield _admitted(f"admitted {name}", book, peer, evidence, now)


def _admitted(what: str, book: Book, peer: PeerId, evidence: bytes, now: WallTime) -> Finding:
    from haif.base.errors import HaifError
    from haif.identity.admission import DAY_MS, read

    try:
        roles = book.judge(peer, evidence, now) or ()
        days = (read(evidence, network=book.network, now=now).admission.payload.not_after - now) // DAY_MS
    except HaifError as error:
        return Finding(what, "wrong", error.message)
    return Finding(what, "ok" if days >= _DAYS_LEFT_MIN else "note", f"{', '.join(sorted(roles))}; {days} more days")


def _edge(settings: config.WorkerSettings) -> Iterator[Finding]:
    """What stands between tenants and the gateway that starts here, by file and environment."""
    from haif.base.errors import HaifError
    from haif.gateway.service import Tls, TlsFiles

    try:
        gateway = config.load(config.GatewaySettings, {"state": settings.state})
        if gateway.tls_cert is None or gateway.tls_key is None:
            if gateway.insecure_plain_http:
                text = f"none at {gateway.http_host}: keys, prompts and answers can be read on the way"
                yield Finding("gateway TLS", "note", text)
            return
        Tls(TlsFiles(certificate=gateway.tls_cert, key=gateway.tls_key, client_ca=gateway.client_ca))
    except HaifError as error:
        yield Finding("gateway TLS", "wrong", error.message)
        return
    for path in filter(None, (gateway.tls_cert, gateway.client_ca)):
        yield _expiry(path)


def _expiry(path: Path) -> Finding:
    from datetime import datetime

    from haif.gateway.service import expires

    left = expires(path) - datetime.now(UTC)
    if left.total_seconds() <= 0:
        return Finding("certificate", "wrong", f"{path} has expired: put a newer one there; a gateway takes it at once")
    return Finding(
        "certificate", "ok" if left.days >= _DAYS_LEFT_MIN else "note", f"{path}: TLS 1.3; {left.days} more days"
    )


def _models(settings: config.WorkerSettings) -> Iterator[Finding]:
    from haif.artifacts.service import hash_file
    from haif.node.settings import model_store

    store = model_store(settings)
    for model in store.models():
        digest, _, _ = hash_file(model.path, lambda *_: None)
        if digest == model.digest:
            yield Finding(f"model {model.name}", "ok", f"{digest.short}… is what its manifest says")
        else:
            yield Finding(f"model {model.name}", "wrong", f"{model.path} was changed; add it again from a good copy")
    for path, error in store.rejected():
        yield Finding(f"manifest {path.stem[:8]}…", "wrong", error.message)


def _quarantine(settings: config.WorkerSettings) -> Iterator[Finding]:
    """What the workers whose folders are here had to keep apart."""
    from haif.node.settings import model_store
    from haif.node.worker import read_quarantine
    from haif.runtime.clock import SystemClock
    from haif.worker.quarantine import QUARANTINE

    now, store = SystemClock().wall(), model_store(settings)
    for path in sorted(settings.folder.glob(f"*/{QUARANTINE}")):
        kept = read_quarantine(path.parent, now)
        for model in store.models():
            case = kept.held(model.digest, now)
            if case is not None:
                release = f"haif worker models release {model.name} --name {path.parent.name}"
                yield Finding(f"model {model.name}", "wrong", f"quarantined: {case.cause}. To try it again: {release}")


def _engine(settings: config.WorkerSettings) -> Iterator[Finding]:
    """Start the engine for real: what the library and the sandbox report, not what was asked for."""
    import asyncio

    from haif.base.errors import HaifError
    from haif.node.worker import try_engine

    try:
        about = asyncio.run(try_engine(settings))
    except HaifError as error:
        yield Finding("engine", "wrong", error.message)
        return
    if not about.verifiable:
        yield Finding("engine", "note", f"{about.engine}. {'; '.join(about.residual)}")
        return
    yield Finding("engine", "ok" if about.exact else "note", about.engine)
    if not about.exact and settings.profile != "fast":
        text = "decoding and prefill differ here: answers may change with the load. Rebuild with: make clean setup"
        yield Finding("exactness", "note", text)
    state = {"full": "ok", "reduced": "note"}.get(about.sandbox, "wrong")
    yield Finding("sandbox", state, f"level {about.sandbox}: {', '.join(about.enforced)}")
    for risk in about.residual:
        yield Finding("sandbox lacks", state, risk)


def _offload(settings: config.WorkerSettings) -> Iterator[Finding]:
    """What llama.cpp itself says it can compute on."""
    del settings
    from haif.engine import llama

    detail = "layers can be computed on a GPU" if llama.supports_offload() else "none: built for processors only"
    yield Finding("GPU offload", "ok" if llama.supports_offload() else "note", detail)
    for device in llama.devices():
        yield Finding("device", "ok", device)


def _machine(settings: config.WorkerSettings) -> Iterator[Finding]:
    del settings
    yield Finding("processors", "ok", str(os.cpu_count()))
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if (
        flags
        and not all(f" {flag}" in flags for flag in ("avx2", "fma", "f16c", "bmi2"))
        and "x86" in os.uname().machine
    ):
        yield Finding(
            "x86-64-v3", "wrong", "the exact profile is built for AVX2, FMA, F16C and BMI2; this CPU lacks one"
        )


def _reach(settings: config.WorkerSettings) -> Iterator[Finding]:
    """Ask the network how it sees us, where there is one to ask."""
    import asyncio

    from haif.base.errors import HaifError
    from haif.cli import net, visit
    from haif.reach.service import judge

    async def asked() -> str:
        whole = argparse.Namespace(state=settings.folder, host=settings.host, bootstrap=list(settings.bootstrap))
        async with visit.joined(whole) as (dht, _):
            return (await judge(dht)).mapping.value

    try:
        mapping = asyncio.run(asked())
    except HaifError as error:
        yield Finding("reach", "note", error.message)
        return
    yield Finding("reach", "ok" if mapping == "open" else "note", f"{mapping}: {net.MEANINGS[mapping]}")


CHECKS: tuple[Callable[[config.WorkerSettings], Iterator[Finding]], ...] = (
    _python, _machine, _state_folder, _keys, _network, _edge, _models, _quarantine, _engine, _offload, _reach,
)  # fmt: skip
