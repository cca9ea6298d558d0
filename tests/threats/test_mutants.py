"""N-1: hostile model files are refused, or end a child with a cause; the worker lives through all.

Here 60 models and 36 adapters; `make mutants` takes 1,000.
"""

import sys

import pytest

from tests.support.mutants import MUTATIONS, OF_ADAPTERS, mutants
from tests.support.ordeal import SEED, SMALL, belongings, undergo, whole_adapters, whole_models
from tests.support.tiny_model import build_tiny_model

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the jail is for Linux")


async def test_a_worker_lives_through_hostile_models_and_nothing_grows(tmp_path):
    models = whole_models(tmp_path)
    await undergo([("whole", model) for model in models[:1]], tmp_path)  # what is made once is made
    before = belongings()
    outcome = await undergo(mutants(models, 60, SEED), tmp_path)
    after = belongings()
    assert 60 == sum(outcome.ends.values())
    assert {kind for kind, _ in outcome.ends} == set(MUTATIONS)
    assert [] == outcome.unexplained
    assert outcome.count("refused by us") > 20
    assert outcome.count("answered") > 5
    assert (before.files, before.children) == (after.files, after.children)
    assert after.resident - before.resident < 64 << 20


async def test_whole_models_pass_and_answer(tmp_path):
    models = whole_models(tmp_path)
    outcome = await undergo([("whole", model) for model in models], tmp_path)
    assert {("whole", "answered"): len(models)} == outcome.ends


async def test_a_worker_lives_through_hostile_adapters(tmp_path):
    base = build_tiny_model(tmp_path / "base.gguf", **SMALL)
    whole = whole_adapters(base, tmp_path)
    outcome = await undergo(mutants(whole, 36, SEED, OF_ADAPTERS), tmp_path, base=base)
    assert 36 == sum(outcome.ends.values())
    assert {kind for kind, _ in outcome.ends} == set(OF_ADAPTERS)
    assert [] == outcome.unexplained
    assert outcome.count("refused by us") > 12


async def test_whole_adapters_pass_and_answer(tmp_path):
    base = build_tiny_model(tmp_path / "base.gguf", **SMALL)
    whole = whole_adapters(base, tmp_path)
    outcome = await undergo([("whole", adapter) for adapter in whole], tmp_path, base=base)
    assert {("whole", "answered"): len(whole)} == outcome.ends
