"""N-1: hostile model files are refused, or end a child with a cause; the worker lives through all.

Here 60 of them; `make mutants` takes 1,000.
"""

import sys

import pytest

from tests.support.mutants import MUTATIONS, mutants
from tests.support.ordeal import SEED, belongings, undergo, whole_models

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
