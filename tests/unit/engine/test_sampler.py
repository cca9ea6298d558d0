import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from haif.base.ids import Seed
from haif.base.sampling import Sampling
from haif.engine.noise import Noise
from haif.engine.sampler import Sampler, nucleus, top

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "sampler.json").read_text())
SEED = Seed(bytes(range(32)))


def formula(z, seed, t, options, prompt=(), answer=()):
    """The definition, written out: every token, float64, no shortcut."""
    z = np.asarray(z, np.float64).copy()
    for token, bias in options.bias:
        z[token] += bias
    for v in {*prompt, *answer}:
        z[v] = z[v] / options.repeat_penalty if z[v] > 0 else z[v] * options.repeat_penalty
        times = list(answer).count(v)
        z[v] -= options.frequency_penalty * times + options.presence_penalty * (times > 0)
    counter = t.to_bytes(8, "big") + bytes(8)
    stream = Cipher(algorithms.AES256(bytes(seed)), modes.CTR(counter)).encryptor().update(bytes(8 * len(z)))
    x = np.array([int.from_bytes(stream[8 * v : 8 * v + 8], "little") >> 11 for v in range(len(z))], np.float64)
    g = -np.log(-np.log(x * 2.0**-53 + 2.0**-54))
    order = sorted(range(len(z)), key=lambda v: (-z[v], v))
    if options.top_k:
        order = order[: options.top_k]
    if options.top_p < 1:
        weights = np.exp(z[order] - z.max())
        count = next(
            (n for n in range(1, len(order)) if weights[:n].sum() >= options.top_p * weights.sum()), len(order)
        )
        order = order[:count]
    if options.min_p:
        order = [v for v in order if z[v] >= z.max() + np.log(options.min_p)]
    kept = np.isin(np.arange(len(z)), order)
    return int(np.where(kept, z + options.temperature * g, -np.inf).argmax())


@pytest.mark.parametrize("vector", VECTORS["words"], ids=lambda v: f"t={v['t']}")
def test_the_words_of_the_noise_are_the_golden_ones(vector):
    assert vector["words"] == [
        f"{word:016x}" for word in Noise(Seed.parse(vector["seed"])).words(vector["t"], 8).tolist()
    ]


@pytest.mark.parametrize("vector", VECTORS["choices"], ids=lambda v: v["name"])
def test_the_sampler_chooses_the_golden_tokens(vector):
    sampler = Sampler(Seed.parse(vector["seed"]), Sampling(vector["temperature"], vector["top_p"]))
    z = np.array(vector["logits"], np.float32)
    assert vector["tokens"] == [sampler.choose(z, t) for t in range(len(vector["tokens"]))]


@settings(deadline=None)  # the formula takes its time
@given(
    st.integers(0, 2**32), st.sampled_from([4, 700, 3000, 9001]), st.sampled_from([0.0, 1e-4, 0.01, 0.3, 1.0, 2.0]),
    st.sampled_from([1.0, 0.999, 0.9, 0.5, 1e-6]), st.sampled_from([0.1, 1.0, 5.0, 30.0]), st.integers(0, 2**40),
)  # fmt: skip
def test_every_shortcut_gives_what_the_formula_gives(seed, size, temperature, top_p, spread, t):
    z = (np.random.default_rng(seed).standard_normal(size) * spread).astype(np.float32)
    options = Sampling(temperature, top_p)
    assert formula(z, SEED, t, options) == Sampler(SEED, options).choose(z, t)


@settings(deadline=None)  # the formula takes its time
@given(
    st.integers(0, 2**32), st.sampled_from([4, 700, 3000]),
    st.builds(
        Sampling,
        temperature=st.sampled_from([0.0, 0.3, 1.0]), top_p=st.sampled_from([1.0, 0.9, 0.3]),
        top_k=st.sampled_from([0, 1, 3, 40, 2999, 5000]), min_p=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
        repeat_penalty=st.sampled_from([1.0, 1.3, 0.8]), presence_penalty=st.sampled_from([0.0, 0.5, -2.0]),
        frequency_penalty=st.sampled_from([0.0, 0.7, -0.1]),
        bias=st.sampled_from([[], [(0, -100.0), (3, 5.0)], [(2, 100.0)]]),
    ),
    st.lists(st.integers(0, 3), max_size=3),
)  # fmt: skip
def test_every_option_means_what_the_formula_says(seed, size, options, prompt):
    """Five tokens in a row, so that penalties have something to punish; few distinct logits, so that ties occur."""
    random = np.random.default_rng(seed)
    rows = (random.standard_normal((5, size)) * 3).round(1).astype(np.float32)
    sampler = Sampler(SEED, options, prompt)
    answer: list[int] = []
    for t, z in enumerate(rows):
        expected = formula(z, SEED, t, options, prompt, answer)
        assert expected == sampler.choose(z, t)
        answer.append(expected)


def test_top_k_keeps_the_highest_and_of_equals_the_first():
    assert [1, 2] == top(np.array([1.0, 3.0, 2.0, 2.0], np.float32), 2).tolist()


def test_a_frequency_penalty_makes_greedy_answers_move_on():
    z = np.array([1.0, 0.9, 0.0], np.float32)
    sampler = Sampler(SEED, Sampling(temperature=0.0, frequency_penalty=0.25))
    assert [0, 1, 0, 1, 0, 1] == [sampler.choose(z, t) for t in range(6)]


def test_a_bias_of_minus_a_hundred_bans_a_token_and_of_a_hundred_forces_it():
    z = np.array([9.0, 1.0, 0.0], np.float32)
    assert 1 == Sampler(SEED, Sampling(temperature=0.0, bias=[(0, -100.0)])).choose(z, 0)
    assert 2 == Sampler(SEED, Sampling(bias=[(2, 100.0)])).choose(z, 0)


def test_temperature_zero_takes_the_lowest_of_equal_ids():
    z = np.array([1.0, 3.0, 3.0, 2.0], np.float32)
    assert 1 == Sampler(SEED, Sampling(temperature=0.0)).choose(z, 0)
    assert [1] == nucleus(z, 1e-9).tolist()


def test_the_cut_keeps_the_shortest_list_that_reaches_top_p():
    z = np.log(np.array([0.1, 0.4, 0.2, 0.3], np.float32))
    assert [1] == nucleus(z, 0.4).tolist()
    assert [1, 3] == nucleus(z, 0.6).tolist()
    assert [1, 2, 3] == nucleus(z, 0.75).tolist()


def test_logits_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="finite"):
        Sampler(SEED, Sampling()).choose(np.array([0.0, np.nan], np.float32), 0)


def test_the_choices_follow_the_distribution():
    """A chi-square test over 20,000 draws: 5 cells, 4 degrees of freedom, 33.4 is exceeded once in a million."""
    p = np.array([0.5, 0.25, 0.15, 0.07, 0.03])
    sampler = Sampler(SEED, Sampling())
    counts = np.bincount([sampler.choose(np.log(p).astype(np.float32), t) for t in range(20_000)], minlength=5)
    assert float(((counts - 20_000 * p) ** 2 / (20_000 * p)).sum()) < 33.4
