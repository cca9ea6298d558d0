"""A day of churn in a simulated network: `make sim-night`. Exit code 1 if fewer records than the goal were found, if a
checker complains, or if the same seed does not give the same trace.

    python -m benchmarks.night [--nodes 1000] [--hours 24] [--life-hours 2] [--seed 1] [--write]

Lives are exponential, of `--life-hours` in the mean (2: half of all nodes die every hour, counted by deaths); for each
node that dies another joins. Twenty owners republish every third of a record's life; fifty random readers each period.
The first half hour is played once more by a process of its own, under another hash seed: its trace must be the same to
the last datagram. Peers sign with a keyed hash (`haif/testing/signatures.py`).
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from haif.testing import troubles
from haif.testing.scenarios import Outcome, Scenario, periods_of_churn, play
from haif.testing.stage import Stage

READINGS = 50
FOUND_MIN = 0.999
CPU_SECONDS_GOAL = 600.0
REHEARSAL_HOURS = 0.5
RESULTS = Path(__file__).parent / "results" / "night.md"
HEAD = (
    "| nodes | hours | mean life h | joined | found | read p50 / p99 s | datagrams | per node and hour | CPU min "
    "| µs a datagram | seed | trace |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
)
_BAR = 40
_COLLECTED = (100_000, 50, 50)


@dataclass(frozen=True, slots=True)
class Night:
    """What is played."""

    nodes: int
    hours: float
    life_hours: float
    seed: int


@dataclass(slots=True)
class Notes:
    """What was seen on the way: the trace when the rehearsal ends, and how many nodes joined."""

    rehearsal: str = ""
    joined: int = 0


def played(night: Night, *, rehearsing: bool = False) -> tuple[Outcome, Notes]:
    """Live through the night, or its beginning only, with a bar where somebody looks."""
    notes = Notes()
    began = time.process_time()

    def story(stage: Stage) -> None:
        gc.freeze()
        gc.set_threshold(*_COLLECTED)  # a real node does not share its garbage collector with a thousand others
        dawn = stage.world.now()
        lives = troubles.exponential(night.life_hours)
        for share in periods_of_churn(stage, lives, hours=night.hours, readings=READINGS):
            if not notes.rehearsal and stage.world.now() - dawn >= REHEARSAL_HOURS * troubles.HOUR_SECONDS:
                notes.rehearsal = stage.world.trace()
                if rehearsing:
                    break
            bar = f"[{'#' * round(_BAR * share):{_BAR}}] {share * night.hours:.1f} of {night.hours:g} h"
            minutes = (time.process_time() - began) / 60
            _show(f"{bar}, {stage.figures.found_share:.2%} found, {minutes:.1f} CPU minutes")
        notes.joined = len(stage.directory.identities)

    scenario = Scenario(name="night", about="a day of churn", story=story, found_min=FOUND_MIN)
    outcome = play(scenario, seed=night.seed, nodes=night.nodes, tell=_growing)
    _show("")
    return outcome, notes


def rehearsed(night: Night) -> str:
    """The trace of the first half hour, played by another process."""
    arguments = [
        f"--nodes={night.nodes}", f"--hours={night.hours}", f"--life-hours={night.life_hours}", f"--seed={night.seed}"
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.night", "--rehearse", *arguments],
        env=os.environ | {"PYTHONHASHSEED": "7"}, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def main(night: Night, *, write: bool) -> int:
    """Print the figures; return the exit code."""
    cpu = time.process_time()
    outcome, notes = played(night)
    cpu = time.process_time() - cpu
    complaints = list(outcome.broken)
    if rehearsed(night) != notes.rehearsal:
        complaints.append("the first half hour, played again, had another trace")
    row = (
        f"| {night.nodes} | {night.hours:g} | {night.life_hours:g} | {notes.joined} | {outcome.found:.3%} "
        f"| {outcome.read_p50:.2f} / {outcome.read_p99:.2f} | {outcome.datagrams:,} "
        f"| {outcome.datagrams / night.nodes / night.hours:.0f} | {cpu / 60:.1f} | {cpu / outcome.datagrams * 1e6:.0f} "
        f"| {night.seed} | {outcome.trace[:12]} |"
    )
    load = f"load {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores"
    machine = (
        f"Python {platform.python_version()} on {platform.machine()}, {load}. Everything but CPU follows from the seed."
    )
    verdict = f"{cpu / 60:.1f} CPU minutes; the goal for 1,000 nodes and 24 hours is {CPU_SECONDS_GOAL / 60:.0f}"
    report = f"{machine}\n\n{HEAD}\n{row}\n\n{verdict}\n"
    print(report)
    for complaint in complaints:
        print(complaint)
    if write and not complaints:
        RESULTS.write_text(f"# night\n\n`make sim-night`. {report}")
    return 1 if complaints else 0


def _growing(text: str) -> None:
    if "joined" in text:
        _show(text)


def _show(text: str) -> None:
    """One line that is written over, and only where somebody looks."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--life-hours", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/night.md")
    parser.add_argument("--rehearse", action="store_true", help="print the trace only")
    given = parser.parse_args()
    tonight = Night(given.nodes, given.hours, given.life_hours, given.seed)
    if given.rehearse:
        print(played(tonight, rehearsing=True)[1].rehearsal)
        sys.exit(0)
    sys.exit(main(tonight, write=given.write))
