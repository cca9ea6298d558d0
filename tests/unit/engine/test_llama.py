"""llama.cpp behind our wrapper, in this process: the logits themselves, to the bit."""

import os

import pytest

os.environ["GGML_CPU_TILED_MM"] = "0"  # read by llama.cpp when it computes its first product

from haif.engine.llama import Llama, build, set_log
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
    alone = model.decode([(0, 0, TOKENS, True)]).tobytes()
    model.forget(0)
    for place, token in enumerate(TOKENS):
        singly = model.decode([(0, place, [token], True)]).tobytes()
    model.forget(0)
    spans = [(slot, 0, tokens, slot % 2 == 0) for slot, tokens in enumerate(NEIGHBOURS, start=1)]
    model.decode([*spans, (0, 0, TOKENS[:40], False)])
    beside = model.decode(
        [(slot, len(tokens), [300 + slot], True) for slot, _, tokens, _ in spans] + [(0, 40, TOKENS[40:], True)]
    )
    for slot in range(8):
        model.forget(slot)
    assert alone == singly
    assert alone == beside[-1].tobytes()


def test_the_self_test_finds_the_build_exact(model):
    assert model.exact()


def test_the_self_test_notices_when_bits_differ(model):
    run = model._run
    try:
        model._run = lambda due: run(due) * (1 if due == 1 else 1.0000001)
        assert not model.exact()
    finally:
        model._run = run


def test_the_build_is_told_by_the_library_itself():
    assert build().startswith("llama-cpp-python/0.3.")
    assert "avx" in build() or "neon" in build()


def test_tokens_and_pieces_are_inverse(model):
    text = "the a <|end|> é\n"
    plain = model.tokenise(text, special=False)
    assert text == b"".join(map(model.piece, plain)).decode()
    assert not model.controls & set(plain)
    assert model.controls & set(model.tokenise(text, special=True))


def test_a_batch_over_the_bound_is_our_own_bug_not_an_abort(model):
    with pytest.raises(AssertionError, match="aborts"):
        model.decode([(0, 0, [1] * 265, True)])
