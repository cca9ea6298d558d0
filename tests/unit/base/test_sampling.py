import math

import pytest

from haif.base import limits
from haif.base.errors import InvalidRequest
from haif.base.sampling import Sampling, check_sampling


def test_the_defaults_and_the_edges_are_taken():
    check_sampling(Sampling())
    check_sampling(Sampling(2.0, 1.0, limits.VOCABULARY_MAX, 1.0, 10.0, -2.0, 2.0, [(0, -100.0), (7, 100.0)]))


@pytest.mark.parametrize(
    ("param", "changes"),
    [
        ("temperature", {"temperature": 2.1}), ("temperature", {"temperature": math.nan}),
        ("temperature", {"temperature": -0.1}), ("top_p", {"top_p": 0.0}), ("top_p", {"top_p": math.nan}),
        ("top_k", {"top_k": -1}), ("min_p", {"min_p": 1.5}), ("repeat_penalty", {"repeat_penalty": 0.0}),
        ("presence_penalty", {"presence_penalty": 3.0}), ("frequency_penalty", {"frequency_penalty": -math.inf}),
        ("logit_bias", {"bias": [(1, math.nan)]}), ("logit_bias", {"bias": [(2, 1.0), (1, 1.0)]}),
        ("logit_bias", {"bias": [(1, 1.0), (1, 2.0)]}), ("logit_bias", {"bias": [(-1, 1.0)]}),
        ("logit_bias", {"bias": [(limits.VOCABULARY_MAX, 1.0)]}),
        ("logit_bias", {"bias": [(token, 1.0) for token in range(limits.LOGIT_BIASES_MAX + 1)]}),
    ],
)  # fmt: skip
def test_what_means_nothing_is_refused_by_its_name(param, changes):
    with pytest.raises(InvalidRequest) as refused:
        check_sampling(Sampling(**changes))
    assert param == refused.value.param


def test_only_biases_and_penalties_reshape_the_logits():
    assert not Sampling(0.5, 0.5, 5, 0.5).reshapes
    assert all(
        Sampling(**change).reshapes
        for change in (
            {"bias": [(1, 1.0)]}, {"repeat_penalty": 1.1}, {"presence_penalty": 0.1}, {"frequency_penalty": 0.1},
        )
    )  # fmt: skip
