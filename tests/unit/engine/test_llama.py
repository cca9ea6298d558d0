"""llama.cpp behind our wrapper, in this process: the logits themselves, to the bit."""

import os

import pytest

os.environ["GGML_CPU_TILED_MM"] = "0"  # read by llama.cpp when it computes its first product

from haif.engine.llama import Llama, build, climb, is_exact, selftest, set_log
from haif.engine.profile import PROFILES, Recipe
from tests.support.tiny_model import build_tiny_model

TOKENS = [1, *range(270, 330)]
NEIGHBOURS = [[1, *range(290 + n, 290 + n + 5 * n)] for n in range(1, 8)]


def load(path, slots=8):
    set_log(print)
    descriptor = os.open(path, os.O_RDONLY)  # llama.cpp keeps it
    return Llama(descriptor, slots=slots, context_tokens=256, threads=1)


@pytest.fixture(scope="module", params=["F32", "F16", "Q8_0", "Q4_0"])
def model(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("m") / "m.gguf"
    return load(build_tiny_model(path, quantisation=request.param, width=256, layers=2))


def test_logits_are_the_same_bits_alone_in_chunks_and_beside_seven_others(model):
    alone = model.decode([(0, 0, TOKENS, 1)]).tobytes()
    model.forget(0)
    for place, token in enumerate(TOKENS):
        singly = model.decode([(0, place, [token], 1)]).tobytes()
    model.forget(0)
    spans = [(slot, 0, tokens, int(slot % 2 == 0)) for slot, tokens in enumerate(NEIGHBOURS, start=1)]
    model.decode([*spans, (0, 0, TOKENS[:40], 0)])
    beside = model.decode(
        [(slot, len(tokens), [300 + slot], 1) for slot, _, tokens, _ in spans] + [(0, 40, TOKENS[40:], 1)]
    )
    for slot in range(8):
        model.forget(slot)
    assert alone == singly
    assert alone == beside[-1].tobytes()


def test_the_self_test_finds_the_build_exact(model):
    assert is_exact(model)


def test_the_self_test_notices_when_bits_differ(model):
    decode = model.decode
    try:
        model.decode = lambda spans, adapter: decode(spans) * (1 if len(spans) == 1 else 1.0000001)
        assert not is_exact(model)
    finally:
        model.decode = decode


@pytest.fixture
def tiny_file(tiny):
    descriptor = os.open(tiny, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


SMALL = {"slots": 2, "context_tokens": 256, "threads": 1}


@pytest.mark.parametrize(("holds", "rung", "exact"), [(0, 0, True), (1, 1, True), (9, 3, False)])
def test_the_first_recipe_that_holds_is_taken_and_what_holds_is_said(tiny_file, monkeypatch, holds, rung, exact):
    verdicts = iter(range(9))
    monkeypatch.setattr(selftest, "is_exact", lambda _: next(verdicts) == holds)
    found, claimed = climb(tiny_file, "exact", **SMALL)
    assert (PROFILES["exact"][rung], exact) == (found.recipe, claimed)


def test_fast_shares_its_cells_and_claims_nothing(tiny_file, monkeypatch):
    monkeypatch.setattr(selftest, "is_exact", None)
    found, claimed = climb(tiny_file, "fast", **SMALL)
    assert (True, False) == (found.recipe.unified, claimed)
    assert (1, found.size) == found.decode([(0, 0, [1, 5, 9], 1)]).shape


@pytest.mark.parametrize("quantisation", ["F32", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("recipe", [Recipe(repack=True), Recipe(repack=True, flash=True)], ids=["repack", "flash"])
@pytest.mark.parametrize("threads", [1, 2])
def test_exact_recipes_are_exact_over_a_long_context_too(tmp_path, quantisation, recipe, threads):
    path = build_tiny_model(tmp_path / "m.gguf", quantisation=quantisation, layers=1)
    descriptor = os.open(path, os.O_RDONLY)
    model = Llama(descriptor, slots=3, context_tokens=700, threads=threads, recipe=recipe)
    tokens = [(7 * place + 3) % model.size for place in range(600)]
    for start in range(0, 600, 200):
        whole = model.decode([(0, start, tokens[start : start + 200], 1)]).tobytes()
    for start in range(0, 599, 120):
        model.decode([(slot, start, tokens[start : min(start + 120, 599)], 0) for slot in (1, 2)])
    assert whole == model.decode([(1, 599, tokens[599:], 1)]).tobytes()
    assert whole == model.decode([(0, 600, [5], 1), (2, 599, tokens[599:], 1)])[1].tobytes()
    model.close()


def test_the_build_is_told_by_the_library_itself():
    assert build().startswith("llama-cpp-python/0.3.")
    assert "x86-64-v3" in build() or "neon" in build()


def test_tokens_and_pieces_are_inverse(model):
    text = "the a <|end|> é\n"
    plain = model.tokenise(text, special=False)
    assert text == b"".join(map(model.piece, plain)).decode()
    assert not model.controls & set(plain)
    assert model.controls & set(model.tokenise(text, special=True))


def test_a_batch_over_the_bound_is_our_own_bug_not_an_abort(model):
    with pytest.raises(AssertionError, match="aborts"):
        model.decode([(0, 0, [1] * 265, 1)])
