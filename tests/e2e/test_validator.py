"""`haif up --validators 1`: answers are audited that nobody asked about, and the commands say what there is to say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from haif.telemetry import names
from tests.e2e.conftest import Mesh, haif, until
from tests.support.prometheus import missing_series

pytestmark = pytest.mark.xdist_group("validator")
DASHBOARD = Path(__file__).parents[2] / "ops" / "grafana" / "dashboards" / "haif.json"
TURN = [{"role": "user", "content": "Tell me a story about the windmill."}]


def test_an_answer_is_audited_unless_its_tenant_says_no(begin: Callable[..., Mesh], tmp_path: Path) -> None:
    mesh = begin(tmp_path, "--validators", "1", "--workers", "1", "--closed", "--network", "watched")
    kinds = []
    with mesh.client() as client:
        for audit in (False, True):
            made = client.chat.completions.create(
                model=mesh.first_card["model"], messages=TURN, max_tokens=40, extra_body={"haif": {"audit": audit}}
            )  # type: ignore[call-overload]
            file = tmp_path / "receipt.json"
            file.write_text(json.dumps(made.model_extra["haif"]))
            told = haif("receipt", "verify", str(file), "--json")
            assert told.returncode == 0, told.stderr
            kinds.append(json.loads(told.stdout)["audit"])
    assert kinds[0].startswith("none: tenant or gateway keep the request")
    assert kinds[1] == "a validator may have drawn it"
    until(lambda: 'haif_verdicts_total{cause="none",finding="honest"} 1.0' in mesh.metrics("orchestrator"), "a verdict")
    job = made.model_extra["haif"]["job"]
    key = {"authorization": f"Bearer {mesh.first_card['key']}"}
    (verdict,) = httpx.get(f"{mesh.first_card['gateway']}/haif/v1/jobs/{job}", headers=key).json()["verdicts"]
    assert ("honest", mesh.roles("validator")[0]["peer"]) == (verdict["finding"], verdict["validator"])
    assert "haif_audits_seen_total 1.0" in mesh.metrics("validator")
    assert "haif_gateway_payloads_given_total 1.0" in mesh.metrics("gateway")
    missing = missing_series(json.loads(DASHBOARD.read_text()), [mesh.metrics("validator")])
    own = [each.name for each in names.ALL if each.roles == (names.VALIDATOR,)]
    assert [each for each in missing if any(name in each for name in own)] == []
    for text in (tmp_path / "logs").iterdir():
        assert "windmill" not in text.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("validator",), "--orchestrator PEER"),
        (("validator", "--orchestrator", "00" * 32, "--profile", "fast"), "bits can be compared in exact"),
        (("verdict", "verify", "/dev/null"), "is not a verdict file"),
        (("orchestrator", "--gateway", "00" * 32, "--validator", "11" * 32), "or say --convict one"),
        (("orchestrator", "--gateway", "00" * 32, "--validator", "11" * 32 + "*heavy"), "neither PEER nor PEER*WEIGHT"),
        (("orchestrator", "--gateway", "00" * 32, "--owner", "11" * 32), "is not NAME=PEER"),
        (("orchestrator", "--convict", "any"), "--convict: wanted one of panel, one"),
        (("up", "--validators", "9"), "--validators must be between 0 and 8"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    told = haif(*arguments, state=tmp_path)
    assert told.returncode in {2, 6}
    assert said in told.stderr
