from dataclasses import replace
from pathlib import Path

import pytest

from haif.base.errors import Misuse
from haif.base.ids import ModelDigest
from haif.engine.profile import EXACT, EXACT_NATIVE, FAST, PROFILES, Recipe, numerics
from haif.engine.sandbox import LIBRARY
from haif.engine.service import settings as rooms
from haif.engine.service.settings import EngineSettings, check_settings, environment

SETTINGS = EngineSettings(Path("m"), ModelDigest(bytes(32)), slots=1, context_tokens=0, threads=1)


def test_exact_profiles_leave_out_what_depends_on_the_batch_and_try_the_fastest_first():
    for profile in (EXACT, EXACT_NATIVE):
        assert not any(recipe.tiled or recipe.unified for recipe in PROFILES[profile])
        assert (Recipe(repack=True, flash=True), Recipe()) == (PROFILES[profile][0], PROFILES[profile][-1])
        assert "0" == environment(profile)["GGML_CPU_TILED_MM"]
    assert "1" == environment(FAST)["GGML_CPU_TILED_MM"]


def test_whatever_numbers_depend_on_changes_their_digest():
    plain = numerics("b", Recipe(), 1)
    others = [
        numerics("c", Recipe(), 1),
        *(numerics("b", Recipe(**{name: True}), 1) for name in Recipe.__struct_fields__),
    ]
    assert len({plain, *others}) == 1 + len(others)


def test_threads_count_only_where_attention_is_split_among_them():
    for recipe in PROFILES[EXACT]:
        assert numerics("b", recipe, 1) == numerics("b", recipe, 2)
    assert numerics("b", *PROFILES[FAST], 1) != numerics("b", *PROFILES[FAST], 2)


def test_a_profile_nobody_knows_is_refused_by_name():
    with pytest.raises(Misuse, match="'quick': use one of exact, exact-native, fast"):
        check_settings(replace(SETTINGS, profile="quick"))


def test_shares_of_a_fixed_size_cannot_be_made_fewer():
    with pytest.raises(Misuse, match="leave kv_tokens at 0"):
        check_settings(replace(SETTINGS, kv_tokens=100))
    check_settings(replace(SETTINGS, profile=FAST, kv_tokens=100))


def test_exact_native_without_its_build_says_how_to_make_it_and_fast_goes_without(monkeypatch, tmp_path):
    monkeypatch.setattr(rooms, "NATIVE", tmp_path / "none")
    with pytest.raises(Misuse, match="--native"):
        check_settings(replace(SETTINGS, profile=EXACT_NATIVE))
    check_settings(replace(SETTINGS, profile=FAST))
    assert LIBRARY not in environment(FAST)


def test_only_native_profiles_take_the_native_build(monkeypatch, tmp_path):
    monkeypatch.setattr(rooms, "NATIVE", tmp_path)
    check_settings(replace(SETTINGS, profile=EXACT_NATIVE))
    assert [None, str(tmp_path), str(tmp_path)] == [environment(each).get(LIBRARY) for each in PROFILES]
