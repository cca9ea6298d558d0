"""`haif audit trace`: what happened to one job, in every process that this machine kept spans of."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from haif.base.errors import Misuse
from haif.base.ids import JobId

if TYPE_CHECKING:
    from haif.telemetry.rows import SpanRow

_SPAN_STORES: Final = "**/*spans.sqlite"
_ID_DIGITS: Final = 32  # hex texts at least this long are shown by their first eight digits


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verbs."""
    group = commands.add_parser("audit", help="look at what was recorded")
    verbs = group.add_subparsers(metavar="VERB", required=True)
    trace = verbs.add_parser("trace", help="print the whole trace of a job as a tree; exit code 3 if there is none")
    trace.add_argument("job", metavar="JOB", help="the job's id, or the `id` of an answer")
    trace.add_argument("--state", type=Path, metavar="DIR", help="the state folder to look in")
    trace.add_argument("--json", action="store_true", help="as a JSON list of spans")
    trace.set_defaults(handler=_trace)


def _trace(arguments: argparse.Namespace) -> int:
    from haif import config
    from haif.telemetry.service import read_trace

    job = _job(arguments.job)
    folder = arguments.state or config.state_dir()
    stores = sorted(folder.glob(_SPAN_STORES))
    rows = read_trace(stores, job)
    if not rows:
        where = f"in the {len(stores)} span stores below {folder}" if stores else f"and no span store is below {folder}"
        print(f"haif: no span of job {job} was found {where}; name the mesh's folder with --state DIR", file=sys.stderr)
        return 3
    print(_as_json(rows) if arguments.json else "\n".join(_as_text(job, rows)))
    return 0


def _job(text: str) -> str:
    """The job's id in hex, from itself, from a correlation id or from the id of an answer."""
    try:
        return str(JobId.parse(text.rpartition("-")[2].partition(".")[0]))
    except ValueError as error:
        raise Misuse(str(error)) from None


def _as_json(rows: Sequence[SpanRow]) -> str:
    from haif.telemetry.rows import tree

    return json.dumps([dataclasses.asdict(row) | {"depth": depth} for depth, row in tree(rows)])


def _as_text(job: str, rows: Sequence[SpanRow]) -> list[str]:
    from haif.telemetry.rows import tree

    start, end = min(row.start_ns for row in rows), max(row.end_ns for row in rows)
    placed = [(f"{'  ' * depth}{row.name}", row) for depth, row in tree(rows)]
    name_width = max(len(name) for name, _ in placed)
    role_width = max(len(row.role) for row in rows)
    processes = len({row.instance for row in rows})
    return [
        f"job {job}: {len(rows)} spans of {processes} processes, {(end - start) / 1e6:.1f} ms",
        *(
            f"{(row.start_ns - start) / 1e6:>+10.1f} ms {row.duration_ms:>9.1f} ms  {row.role:<{role_width}}  "
            f"{name:<{name_width}}  {row.reason or 'ok'}{_facts(row)}"
            for name, row in placed
        ),
    ]


def _facts(row: SpanRow) -> str:
    from haif.telemetry.names import SHOWN

    return "".join(f"  {word}={_short(row.attributes[key])}" for key, word in SHOWN.items() if key in row.attributes)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    hexadecimal = len(text) >= _ID_DIGITS and not text.strip("0123456789abcdef")
    return text[:8] if hexadecimal else text
