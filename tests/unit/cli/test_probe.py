"""`haif worker --probe` builds the jail for real and says what holds."""

import json
import sys

import pytest

from haif import config
from haif.base.errors import Misuse
from haif.cli.main import main
from haif.cli.probe import table, view
from haif.engine.sandbox.layers import LAYERS, REQUIRED, Statement

LACKING = {"cgroups": "no v2", "landlock": "ENOSYS"}
HALF = Statement(tuple(layer for layer in LAYERS if layer not in LACKING), LACKING, ("a note",), 7)


@pytest.mark.skipif(sys.platform != "linux", reason="the jail is for Linux")
def test_every_layer_is_tried_for_real_and_named_once(capsys):
    assert main(["worker", "--probe", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"level", "enforced", "missing", "residual"}
    assert set(found["enforced"]) | set(found["missing"]) == set(LAYERS)
    assert set(found["enforced"]) >= REQUIRED
    assert found["level"] in ("reduced", "full")
    demand_met = not found["missing"]
    assert main(["worker", "--probe", "--sandbox-min", "full"]) == (0 if demand_met else 1)
    assert f"level: {found['level']} (demanded: full)" in capsys.readouterr().out


def test_the_table_has_what_is_missing_why_and_what_may_then_go_wrong():
    found = view(HALF)
    assert found["level"] == "reduced"
    text = table(found, "reduced")
    assert "cgroups               missing   no v2" in text
    assert "risk: landlock (ENOSYS): no second lock" in text
    assert "risk: a note" in text
    assert all(layer in text for layer in LAYERS)


def test_a_demand_that_is_no_level_is_refused():
    with pytest.raises(Misuse, match="sandbox-min"):
        config.load(config.WorkerSettings, {"sandbox_min": "padded"})
