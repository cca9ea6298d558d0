"""`haif attack`: workers that lie, each beside an honest one, before the checks that HAIF makes."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from haif.base.errors import Misuse

if TYPE_CHECKING:
    from haif.testing.attacks.contest import Case
    from haif.testing.attacks.matrix import Result, Row

_BAR: Final = 24
_TRIES_MAX: Final = 100_000
_OF_ROWS: Final = {"rows": "--row"} | {name: f"--{name}" for name in ("quick", "tries", "model", "cases", "json")}


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verbs."""
    attack = commands.add_parser(
        "attack", help="lie to HAIF's own checks in every way we know; exit code 6 when an attack gets through"
    )
    attack.add_argument("--row", type=int, action="append", dest="rows", metavar="INT",
                        help="a row of the attack matrix; may be given more than once (default: all)")  # fmt: skip
    attack.add_argument("--quick", action="store_true", help="two answers for each of the cheaper cases: two minutes")
    attack.add_argument("--tries", type=int, metavar="INT", help="answers for each row (default: 400)")
    attack.add_argument("--seed", type=int, default=1, help="the same seed plays the same attacks (default: 1)")
    attack.add_argument("--model", type=Path, metavar="FILE", help="attack with this GGUF model (default: the demo)")
    attack.add_argument("--cases", action="store_true", help="a line for each case instead of each row")
    attack.add_argument("--json", action="store_true", help="as one JSON object")
    attack.set_defaults(handler=_attack)
    verbs = attack.add_subparsers(metavar="VERB", parser_class=type(attack))
    demo = verbs.add_parser("demo", help="start honest and lying workers on loopback and see each liar being caught")
    demo.set_defaults(handler=_demo)


def _attack(arguments: argparse.Namespace) -> int:
    from haif.testing.attacks import matrix, report

    tries = matrix.TRIES if arguments.tries is None else arguments.tries
    if not 1 <= tries <= _TRIES_MAX:
        raise Misuse(f"--tries is a number from 1 to {_TRIES_MAX}")
    if arguments.model is not None and not arguments.model.is_file():
        raise Misuse(f"--model: there is no file {arguments.model}")
    results = asyncio.run(_played(arguments, tries))
    broken = report.broken(results)
    if arguments.json:
        about = {
            "seed": arguments.seed,
            "quick": arguments.quick,
            "tries": tries,
            "model": str(arguments.model or "demo"),
        }
        print(json.dumps(report.as_json(results, **about)))
    else:
        print(report.as_text(report.table(results, cases=arguments.cases)), *report.notes(results), sep="\n")
    for words in broken:
        print(f"haif: {words}", file=sys.stderr)
    return 6 if broken else 0


def _demo(arguments: argparse.Namespace) -> int:
    from haif.testing.attacks.demo import show

    for name, flag in _OF_ROWS.items():
        if getattr(arguments, name):
            raise Misuse(f"{flag} is for the rows of the matrix: `haif attack demo` takes no flags")
    with tempfile.TemporaryDirectory(prefix="haif-attack-") as folder:
        well = asyncio.run(show(Path(folder), lambda text: print(text, flush=True)))
    if not well:
        print("haif: not all liars were caught, or the honest worker was accused; see above", file=sys.stderr)
    return 0 if well else 6


async def _played(arguments: argparse.Namespace, tries: int) -> list[Result]:
    from haif.testing.attacks import matrix
    from haif.testing.attacks.arena import Arena

    try:
        rows = matrix.chosen(arguments.rows or (), quick=arguments.quick)
    except ValueError as error:
        raise Misuse(f"--row: {error}") from None
    with tempfile.TemporaryDirectory(prefix="haif-attack-") as folder:
        async with Arena(Path(folder), arguments.model) as arena:
            tell = _progress(sum(len(cases) for _, cases in rows))
            done = await matrix.play(arena, rows, tries=tries, quick=arguments.quick, seed=arguments.seed, tell=tell)
            if sys.stderr.isatty():
                print("\r\033[K", end="", file=sys.stderr, flush=True)
            return done


def _progress(count: int) -> Callable[[Row, Case], None]:
    """A bar that is written over, and only where somebody looks."""
    done = 0

    def tell(row: Row, case: Case) -> None:
        nonlocal done
        if sys.stderr.isatty():
            full = _BAR * done // count
            bar = "#" * full + "-" * (_BAR - full)
            print(f"\r\033[K[{bar}] row {row.number}, {row.attack}: {case.name}", end="", file=sys.stderr, flush=True)
        done += 1

    return tell
