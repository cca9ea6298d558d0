import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base.ids import Seed
from haif.base.sampling import Sampling
from haif.engine.noise import Desk, Noise, gumbel
from haif.engine.sampler import Sampler

SEED = Seed(bytes(range(32)))
OTHER = Seed(bytes(32))


@given(st.integers(0, 2**32), st.integers(0, 2**63))
def test_random_access_to_the_noise_gives_the_same_words(seed, t):
    ids = np.flatnonzero(np.random.default_rng(seed).random(999) < 0.1)
    noise = Noise(SEED)
    assert noise.words(t, 999)[ids].tolist() == noise.words_at(t, ids).tolist()


@given(st.lists(st.integers(0, 100), min_size=1, max_size=5), st.sampled_from([1, 7, 512]))
def test_noise_made_ahead_is_the_noise_of_each_position(places, count):
    noise = Noise(SEED)
    for t in places:
        assert gumbel(noise.words(t, count)).tolist() == noise.row(t, count).tolist()


def test_answers_at_one_desk_do_not_disturb_one_another():
    desk = Desk()
    one, other = Noise(SEED, desk), Noise(OTHER, desk)
    alone = Noise(SEED).words(3, 2000).tolist()
    for count in (10, 4000, 7):
        other.words(count, count)
        assert alone == one.words(3, 2000).tolist()


def test_the_noise_of_the_extreme_words_is_defined():
    assert np.inf == gumbel(np.array([2**64 - 1], np.uint64))[0]
    assert np.isfinite(gumbel(np.array([0], np.uint64))[0])


@pytest.mark.parametrize("likely", [0, 5])
def test_a_token_with_infinite_noise_wins_wherever_it_is(likely):
    z = np.zeros(2000, np.float32)
    z[likely] = 9.0
    words = Noise(SEED).words(0, 2000).copy()
    words[5] = 2**64 - 1
    assert 5 == Sampler(SEED, Sampling())._race(z, likely, words)
