"""`haif attack demo`: a person sees each liar being caught, and the honest worker left alone."""

from pathlib import Path

import pytest

from haif.testing.attacks.mesh import LIES
from tests.e2e.conftest import haif

pytestmark = pytest.mark.xdist_group("validator")


def test_every_liar_is_convicted_and_gets_no_more_work_and_the_honest_worker_is_not(tmp_path: Path) -> None:
    told = haif("attack", "demo", state=tmp_path)
    assert told.returncode == 0, told.stdout + told.stderr
    for name in LIES:
        assert f"{name} is out of placement" in told.stdout
        assert f"  {name:<12} holds: " in told.stdout
    before, after = told.stdout.split(f"{len(LIES)} of {len(LIES)} liars are out.")
    assert before.count("says: convicted") == len(LIES)
    assert after.count("answered by honest") == after.count("says: honest") == after.count("answered by") > 0
