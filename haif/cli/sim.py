"""`haif sim`: play named scenarios in a simulated network, replayed exactly by their seed."""

from __future__ import annotations

import argparse
import dataclasses
import json
import secrets
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from haif.base.errors import Misuse

if TYPE_CHECKING:
    from haif.base.clock import Instant
    from haif.base.machine import Address
    from haif.testing.scenarios import Outcome, Scenario
    from haif.testing.world import Tap

_SEEDS: Final = 1_000_000
_NODES_MAX: Final = 20_000
_HEAD: Final = (
    f"{'scenario':<14} {'found':>7} {'recall':>7} {'read p50/p99 s':>15} {'lookup p50/p99 s':>17} "
    f"{'queries':>7} {'hops':>5} {'datagrams':>10} {'simulated':>10} {'CPU s':>6}  {'trace':<12}  verdict"
)


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    verb = commands.add_parser("sim", help="play scenarios in a simulated network; exit code 1 if a checker complains")
    verb.add_argument(
        "scenario",
        nargs="*",
        metavar="NAME",
        help="which scenarios (default: calm), or: all; `haif sim list` lists them",
    )
    verb.add_argument("--seed", type=int, help="replay a run exactly (default: drawn, and printed)")
    verb.add_argument("--nodes", type=int, help="honest nodes (default: the scenario's own number)")
    verb.add_argument("--trace", type=Path, metavar="FILE", help="write a line for each datagram delivered")
    verb.add_argument("--json", action="store_true", help="one JSON object for each scenario")
    verb.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> int:
    from haif.testing.scenarios import SCENARIOS, play

    if arguments.scenario == ["list"]:
        return _list(list(SCENARIOS.values()), as_json=arguments.json)
    names = list(SCENARIOS) if arguments.scenario == ["all"] else arguments.scenario or ["calm"]
    for name in names:
        if name not in SCENARIOS:
            raise Misuse(f"there is no scenario {name!r}; there are: {', '.join(SCENARIOS)}")
    if arguments.nodes is not None and not 5 <= arguments.nodes <= _NODES_MAX:
        raise Misuse(f"--nodes is a number from 5 to {_NODES_MAX}")
    seed = secrets.randbelow(_SEEDS) if arguments.seed is None else arguments.seed
    progress = _progress()
    well = True
    with ExitStack() as stack:
        tap = _writer(stack.enter_context(_opened(arguments.trace))) if arguments.trace else None
        if not arguments.json:
            print(_HEAD, flush=True)
        for name in names:
            cpu = time.process_time()
            outcome = play(SCENARIOS[name], seed=seed, nodes=arguments.nodes, tell=partial(progress, name), tap=tap)
            progress("", "")
            well = well and not outcome.broken
            _print(outcome, time.process_time() - cpu, as_json=arguments.json)
    if not arguments.json:
        nodes = "" if arguments.nodes is None else f" --nodes {arguments.nodes}"
        print(f"\nReplay: haif sim {' '.join(names)} --seed {seed}{nodes}")
    return 0 if well else 1


def _list(scenarios: list[Scenario], *, as_json: bool) -> int:
    if as_json:
        print(json.dumps([{"name": each.name, "about": each.about, "nodes": each.nodes} for each in scenarios]))
        return 0
    for each in scenarios:
        print(f"{each.name:<16} {each.nodes:>5} nodes   {each.about}")
    return 0


def _print(outcome: Outcome, cpu: float, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(dataclasses.asdict(outcome) | {"cpu_seconds": round(cpu, 2)}), flush=True)
        return
    print(
        f"{outcome.scenario:<14} {outcome.found:>7.2%} {outcome.recall:>7.2%} "
        f"{outcome.read_p50:>7.2f}/{outcome.read_p99:<7.2f} {outcome.lookup_p50:>8.2f}/{outcome.lookup_p99:<8.2f} "
        f"{outcome.queries:>7.1f} {outcome.hops:>5.2f} {outcome.datagrams:>10} {outcome.seconds:>8.0f} s "
        f"{cpu:>6.1f}  {outcome.trace[:12]}  {'broken' if outcome.broken else 'ok'}",
        flush=True,
    )
    for complaint in outcome.broken:
        print(f"    {complaint}", flush=True)


def _progress() -> Callable[[str, str], None]:
    """One line that is written over, and only where somebody looks."""
    if not sys.stderr.isatty():
        return lambda _name, _text: None
    return lambda name, text: print(f"\r\033[K{name} {text}", end="", file=sys.stderr, flush=True)


def _opened(path: Path) -> IO[str]:
    try:
        return path.open("w")
    except OSError as error:
        raise Misuse(f"cannot write the trace to {path}: {error.strerror}") from None


def _writer(file: IO[str]) -> Tap:
    from haif.dht.messages import VERSION, Kind

    kinds = {bytes((VERSION, kind)): kind.name.lower() for kind in Kind}

    def tap(at: Instant, source: Address, destination: Address, data: bytes) -> None:
        kind = kinds.get(data[:2], "noise")
        ends = f"{source[0]}:{source[1]} {destination[0]}:{destination[1]}"
        file.write(f"{at:.6f} {ends} {kind} {len(data)} {data[2:10].hex()}\n")

    return tap
