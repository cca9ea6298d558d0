"""What others make of the same work, each in an environment of its own, made when first asked for.

They are kept in .build/peers, or in the folder that HAIF_PEERS names.

A peer prints one line of JSON. Where it cannot be had (no Node.js, no network), the benchmark says so and goes on.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
BUILD = Path(os.environ.get("HAIF_PEERS") or HERE.parents[1] / ".build" / "peers")


def aioquic() -> dict[str, float] | str:
    """Calls and bulk over QUIC, streams as calls, both ends in one process; or why not."""
    return _python("aioquic", "aioquic_peer.py")


def iroh() -> dict[str, float] | str:
    """The same over QUIC in Rust, by iroh's Python binding; or why not."""
    return _python("iroh", "iroh_peer.py")


def libp2p() -> dict[str, float] | str:
    """Messages echoed on as many streams of py-libp2p (Noise, yamux, TCP), both ends in one process; or why not."""
    return _python("libp2p", "libp2p_peer.py")


def secret_stream() -> dict[str, float] | str:
    """Messages echoed over the Noise stream of hyperdht on TCP, both ends in one process; or why not."""
    return _node("hyperdht_peer.js", "tcp")


def hyperdht() -> dict[str, float] | str:
    """The same over UDX, as hyperdht's nodes connect, in a test network of its own; or why not."""
    return _node("hyperdht_peer.js", "udx")


def kademlia_lookups(nodes: int, lookups: int, seed: int) -> dict[str, float] | str:
    """What find_node costs PyPI's kademlia, all nodes in one process; or why that is not known."""
    return _python("kademlia", "kademlia_lookups.py", nodes, lookups, seed, seconds=1800)


def kademlia_strangers(count: int, seed: int) -> dict[str, float] | str:
    """What strangers do to a node of PyPI's kademlia; or why that is not known."""
    return _python("kademlia", "kademlia_strangers.py", count, seed, seconds=1800)


def hyperdht_lookups(nodes: int, lookups: int) -> dict[str, float] | str:
    """What find_node costs npm's hyperdht, all nodes in one process; or why that is not known."""
    return _node("hyperdht_lookups.js", str(nodes), str(lookups), seconds=1800)


def _python(package: str, script: str, *numbers: int, seconds: float = 120) -> dict[str, float] | str:
    """A package of PyPI in an environment of its own."""
    folder = BUILD / package
    python = folder / "bin" / "python"
    return (
        made(python, [sys.executable, "-m", "venv", str(folder)], BUILD)
        or made(folder / "installed", [str(python), "-m", "pip", "install", "-q", package], BUILD)
        or _run([str(python), str(HERE / script), *map(str, numbers)], seconds=seconds)
    )


def _node(script: str, *arguments: str, seconds: float = 120) -> dict[str, float] | str:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return "Node.js is not here"
    folder = BUILD / "node"
    install = [npm, "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(folder)]
    return made(folder / "node_modules", [*install, "hyperdht"], BUILD) or _run(
        [node, str(HERE / script), *arguments], cwd=folder, seconds=seconds
    )


def made(what: Path, command: Sequence[str], folder: Path) -> str:
    """Make `what` unless it is there; why that failed, or nothing."""
    if what.exists():
        return ""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        return f"could not be installed: {error}"
    if not what.exists():
        what.touch()  # a package leaves no file of a name we know
    return ""


def _run(command: Sequence[str], cwd: Path | None = None, *, seconds: float = 120) -> dict[str, float] | str:
    try:
        done = subprocess.run(command, check=True, capture_output=True, timeout=seconds, text=True, cwd=cwd)
    except (OSError, subprocess.SubprocessError) as error:
        return f"did not run: {error}"
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures
