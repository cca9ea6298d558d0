"""What llama.cpp's own server answered (answers.json) is what a mesh answers, or the difference has a reason."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conformance.asked import TABLE, Asked
from tests.conformance.heard import Heard, ask
from tests.conformance.page import page
from tests.e2e.conftest import start, stop

pytestmark = pytest.mark.xdist_group("conformance")
RECORDED = json.loads(Path(__file__).with_name("answers.json").read_text())
NATS = 0.02  # other kernels and flash attention round otherwise: how far a logprob may lie


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a whole mesh with the demo model."""
    mesh = start(tmp_path_factory.mktemp("conformance"), "--workers", "1")
    headers = {"authorization": f"Bearer {mesh.first_card['key']}"}
    with httpx.Client(base_url=mesh.first_card["gateway"], headers=headers, timeout=120.0) as client:
        yield client
    stop(mesh)


def test_every_request_of_the_table_was_recorded_and_no_other() -> None:
    assert [asked.name for asked in TABLE] == list(RECORDED["answers"])
    assert len(TABLE) >= 40


def test_the_page_of_differences_is_printed_from_the_table() -> None:
    assert (Path(__file__).parents[2] / "docs" / "conformance.md").read_text() == page()


@pytest.mark.parametrize("asked", TABLE, ids=lambda asked: asked.name)
def test_the_mesh_answers_what_llama_server_answered(asked: Asked, ours: httpx.Client) -> None:
    body = {"model": "haif-demo", **{key: value for key, value in asked.body.items() if value is not None}}
    told, expected = ask(ours, asked.path, body), RECORDED["answers"][asked.name]
    assert _different(told, expected) == set(asked.differs), (told, expected)


def _different(told: Heard, expected: Heard) -> set[str]:
    if ("refused" in told) != ("refused" in expected):
        return {"refused"}
    return {name for name in told.keys() | expected.keys() if not _alike(name, told, expected)}


def _alike(name: str, told: Heard, expected: Heard) -> bool:
    if name != "logprobs" or name not in told or name not in expected:
        return told.get(name) == expected.get(name)
    return len(told[name]) == len(expected[name]) and all(map(_close, told[name], expected[name]))


def _close(told: list[Any], expected: list[Any]) -> bool:
    """One token's logprobs: the same token, and the same likeliest where nothing else is as likely within rounding."""
    (token, value, tops), (wanted, recorded, likeliest) = told, expected
    return (
        token == wanted
        and math.isclose(value, recorded, abs_tol=NATS)
        and all(math.isclose(tops[each], likeliest[each], abs_tol=NATS) for each in tops.keys() & likeliest.keys())
        and len(tops.keys() & likeliest.keys()) >= len(likeliest) - 1
    )
