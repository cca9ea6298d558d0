import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from haif.base.ids import Seed
from haif.engine.sampler import Noise, Sampler, gumbel, nucleus

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "sampler.json").read_text())
SEED = Seed(bytes(range(32)))


def formula(z, seed, t, temperature, top_p):
    """The definition, written out: every token, float64, no shortcut."""
    z = np.asarray(z, np.float64)
    counter = t.to_bytes(8, "big") + bytes(8)
    stream = Cipher(algorithms.AES256(bytes(seed)), modes.CTR(counter)).encryptor().update(bytes(8 * len(z)))
    x = np.array([int.from_bytes(stream[8 * v : 8 * v + 8], "little") >> 11 for v in range(len(z))], np.float64)
    g = -np.log(-np.log(x * 2.0**-53 + 2.0**-54))
    kept = np.ones(len(z), bool)
    if top_p < 1:
        weights = np.exp(z - z.max())
        kept[:] = False
        reached = 0.0
        for v in sorted(range(len(z)), key=lambda v: (-z[v], v)):
            kept[v] = True
            reached += weights[v]
            if reached >= top_p * weights.sum():
                break
    score = np.where(kept, z + temperature * g, -np.inf)
    return int(score.argmax())


@pytest.mark.parametrize("vector", VECTORS["words"], ids=lambda v: f"t={v['t']}")
def test_the_words_of_the_noise_are_the_golden_ones(vector):
    assert vector["words"] == [
        f"{word:016x}" for word in Noise(Seed.parse(vector["seed"])).words(vector["t"], 8).tolist()
    ]


@pytest.mark.parametrize("vector", VECTORS["choices"], ids=lambda v: v["name"])
def test_the_sampler_chooses_the_golden_tokens(vector):
    sampler = Sampler(Seed.parse(vector["seed"]), vector["temperature"], vector["top_p"])
    z = np.array(vector["logits"], np.float32)
    assert vector["tokens"] == [sampler.choose(z, t) for t in range(len(vector["tokens"]))]


@given(
    st.integers(0, 2**32), st.sampled_from([4, 700, 3000]), st.sampled_from([0.0, 1e-4, 0.01, 0.3, 1.0, 2.0]),
    st.sampled_from([1.0, 0.999, 0.9, 0.5, 1e-6]), st.sampled_from([0.1, 1.0, 5.0, 30.0]), st.integers(0, 2**40),
)  # fmt: skip
def test_every_shortcut_gives_what_the_formula_gives(seed, size, temperature, top_p, spread, t):
    z = (np.random.default_rng(seed).standard_normal(size) * spread).astype(np.float32)
    assert formula(z, SEED, t, temperature, top_p) == Sampler(SEED, temperature, top_p).choose(z, t)


@given(st.integers(0, 2**32), st.integers(0, 2**63))
def test_random_access_to_the_noise_gives_the_same_words(seed, t):
    ids = np.flatnonzero(np.random.default_rng(seed).random(999) < 0.1)
    noise = Noise(SEED)
    assert noise.words(t, 999)[ids].tolist() == noise.words_at(t, ids).tolist()


def test_temperature_zero_takes_the_lowest_of_equal_ids():
    z = np.array([1.0, 3.0, 3.0, 2.0], np.float32)
    assert 1 == Sampler(SEED, 0.0, 1.0).choose(z, 0)
    assert [1] == nucleus(z, 1e-9).tolist()


def test_the_cut_keeps_the_shortest_list_that_reaches_top_p():
    z = np.log(np.array([0.1, 0.4, 0.2, 0.3], np.float32))
    assert [1] == nucleus(z, 0.4).tolist()
    assert [1, 3] == nucleus(z, 0.6).tolist()
    assert [1, 2, 3] == nucleus(z, 0.75).tolist()


def test_the_noise_of_the_extreme_words_is_defined():
    assert np.inf == gumbel(np.array([2**64 - 1], np.uint64))[0]
    assert np.isfinite(gumbel(np.array([0], np.uint64))[0])


def test_logits_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="finite"):
        Sampler(SEED, 1.0, 1.0).choose(np.array([0.0, np.nan], np.float32), 0)


def test_the_choices_follow_the_distribution():
    """A chi-square test over 20,000 draws: 5 cells, 4 degrees of freedom, 33.4 is exceeded once in a million."""
    p = np.array([0.5, 0.25, 0.15, 0.07, 0.03])
    sampler = Sampler(SEED, 1.0, 1.0)
    counts = np.bincount([sampler.choose(np.log(p).astype(np.float32), t) for t in range(20_000)], minlength=5)
    assert float(((counts - 20_000 * p) ** 2 / (20_000 * p)).sum()) < 33.4
