"""Every named scenario, small, with its checkers; and that a seed is a bug report."""

import json
import os
import subprocess
import sys

import pytest

from haif.testing.scenarios import SCENARIOS, Scenario, live_through_churn, play
from haif.testing.stage import Stage
from haif.testing.troubles import Lifetime, exponential, weibull

SEED = 3
LONG = {"churn", "heavy-tailed"}  # have a small version of their own below
NODES = 30


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in LONG])
def test_a_scenario_ends_with_nothing_for_its_checkers_to_complain_of(name: str) -> None:
    outcome = play(SCENARIOS[name], seed=SEED, nodes=NODES)
    assert outcome.broken == (), f"haif sim {name} --seed {SEED} --nodes {NODES}"


@pytest.mark.parametrize("lifetime", [exponential(0.5), weibull(0.5)], ids=["exponential", "weibull"])
def test_a_network_lives_through_churn(lifetime: Lifetime) -> None:
    def story(stage: Stage) -> None:
        live_through_churn(stage, lifetime, hours=0.25, readings=20)
        stage.look_up(20)

    outcome = play(Scenario(name="churn", about="", story=story, found_min=0.999), seed=SEED, nodes=NODES)
    assert outcome.broken == (), f"seed {SEED}"
    assert outcome.seconds > 900


def test_a_broken_promise_is_named() -> None:
    def story(stage: Stage) -> None:
        for address in list(stage.directory.nodes)[5:]:
            stage.directory.kill(address)
        stage.owners = {stage.topic(): owner for owner in stage.owners.values()}
        stage._live = dict.fromkeys(stage.owners, b"never published")
        stage.read_records(10)

    outcome = play(Scenario(name="lost", about="", story=story), seed=SEED, nodes=10)
    assert outcome.broken == ("0.00% of the readings found the live record; the goal is 100.00%",)


def sim(*arguments: str, hash_seed: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "haif.cli.main", "sim", *arguments],
        env=os.environ | {"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_same_seed_gives_the_same_trace_whatever_the_order_of_sets_and_another_seed_another() -> None:
    runs = [
        sim("lossy", "--json", "--nodes", "15", "--seed", seed, hash_seed=hash_seed)
        for seed, hash_seed in (("5", "1"), ("5", "2"), ("6", "1"))
    ]
    assert [run.returncode for run in runs] == [0, 0, 0], runs[0].stderr
    first, second, other = (json.loads(run.stdout) for run in runs)
    for run in (first, second):
        del run["cpu_seconds"]
    assert first == second
    assert first["trace"] != other["trace"]
