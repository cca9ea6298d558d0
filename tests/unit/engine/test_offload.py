"""GPUs and the KV cache's type: refused with a reason where they cannot be had, and said where they change numbers."""

from dataclasses import replace
from pathlib import Path

import pytest

from haif import config
from haif.base.errors import EngineDied, Misuse
from haif.base.ids import ModelDigest
from haif.cli import doctor
from haif.engine import llama
from haif.engine.profile import FAST, Offload, Recipe, numerics
from haif.engine.sandbox.layers import LAYERS
from haif.engine.service import EngineSettings
from haif.engine.service.settings import check_settings
from tests.support.engines import engine, read, request

SETTINGS = EngineSettings(Path("m"), ModelDigest(bytes(32)), slots=1, context_tokens=0, threads=1)
UNJAILED = replace(SETTINGS, profile=FAST, insecure_no_sandbox=True)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (replace(UNJAILED, offload=Offload(1), insecure_no_sandbox=False), "no jail around a GPU's driver yet"),
        (replace(UNJAILED, offload=Offload(1), profile="exact"), "needs --profile fast"),
        (replace(UNJAILED, offload=Offload(-1)), "0 or more"),
        (replace(UNJAILED, offload=Offload(1, main_gpu=-1)), "0 or more"),
        (replace(UNJAILED, offload=Offload(1, "tensor")), "use one of layer, row, none"),
        (replace(SETTINGS, kv="q8_0"), "with profile fast only"),
        (replace(UNJAILED, kv="q1_0"), "use one of f16, q8_0"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(settings, why):
    check_settings(replace(UNJAILED, offload=Offload(99, "row", 1), kv="q8_0"))
    with pytest.raises(Misuse, match=why):
        check_settings(settings)


def test_kv_type_and_offload_are_part_of_the_numerics():
    recipes = (Recipe(), Recipe(kv="q8_0"), Recipe(offload=Offload(1)), Recipe(offload=Offload(2)))
    assert 4 == len({numerics("b", recipe, 1) for recipe in recipes})


async def test_a_kv_cache_in_half_the_memory_answers(tiny):
    whole, half = engine(tiny, profile=FAST), engine(tiny, profile=FAST, kv="q8_0")
    async with whole, half:
        for running in (whole, half):
            assert 24 == (await read(running, request("once upon")))[2].completion_tokens
        assert whole.model.engine.split("numerics")[1] != half.model.engine.split("numerics")[1]


@pytest.mark.skipif(llama.supports_offload(), reason="this build of llama.cpp supports GPUs")
async def test_layers_on_gpus_are_refused_where_the_build_has_none(tiny):
    with pytest.raises(Misuse, match=r"computes nothing on a GPU: build .* or leave out --gpu-layers"):
        await engine(tiny, profile=FAST, offload=Offload(4), insecure_no_sandbox=True).__aenter__()


WALLS_FOR_A_GPU = """
import os, sys
sys.path += sys.argv.pop(1).split(os.pathsep)
sys.argv[6] = "1"
from haif.engine import child
child.main()
"""


async def test_with_a_gpu_the_walls_are_missing_and_said_to_be(tiny):
    """Sealed as for a GPU; the model itself is computed on processors."""
    with pytest.raises(EngineDied, match="seccomp: the driver of a GPU needs"):
        await engine(tiny, program=WALLS_FOR_A_GPU).__aenter__()
    async with engine(tiny, program=WALLS_FOR_A_GPU, insecure_no_sandbox=True) as running:
        assert 24 == (await read(running, request()))[2].completion_tokens
        assert {"namespaces", "empty root", "landlock", "seccomp"} == set(running.model.missing) - {"cgroups"}
        assert set(LAYERS) == {*running.model.missing, *running.model.enforced}
        assert "none" == running.model.sandbox
        assert any("no jail yet" in risk for risk in running.model.residual)


def test_the_doctor_says_what_llama_cpp_can_compute_on(tmp_path):
    found = list(doctor._offload(config.WorkerSettings(state=tmp_path)))
    assert "GPU offload" == found[0].what
    assert ("note" if not llama.supports_offload() else "ok") == found[0].state
    assert any(each.detail.startswith("CPU") for each in found[1:])
