"""How the next token is chosen from a model's logits: the options of one request, which mean the same to everybody.

A worker samples with them, a validator replays with them, a gateway reads them out of a tenant's request.
"""

from __future__ import annotations

import math

from msgspec import field

from haif.base import limits
from haif.base.codec import Message
from haif.base.errors import InvalidRequest


class Sampling(Message, frozen=True):
    """The options, applied in this order; the defaults do nothing but sample from the model's own distribution.

    `bias` adds to the logits of tokens (ids ascending). `repeat_penalty` (Keskar et al. 2019, "CTRL") divides positive
    and multiplies negative logits of tokens in prompt or answer; `frequency_penalty` is subtracted once for each time a
    token is in the answer, `presence_penalty` once if it is (OpenAI's API reference). `top_k` keeps the k highest
    (0: all), `top_p` the shortest list of the likeliest that holds this probability, `min_p` what has at least this
    share of the likeliest one's. Temperature 0 takes the best, other temperatures sample.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    bias: list[tuple[int, float]] = field(default_factory=list)

    @property
    def reshapes(self) -> bool:
        """Whether logits are changed before anything is chosen."""
        return bool(
            self.bias or self.repeat_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0
        )


class Likelihood(Message, frozen=True):
    """One token and the natural logarithm of the probability the model gave it, before any option changed anything.

    `piece` is the bytes the token stands for, none for a control token.
    """

    token: int
    logprob: float
    piece: bytes


Scores = list[Likelihood]
"""Of one place: the token that was chosen, then the likeliest there, as many as were asked for."""


def check_sampling(options: Sampling) -> None:
    """Refuse what means nothing. Raises `InvalidRequest` naming the parameter."""
    most = limits.PENALTY_MAX
    for param, value, lowest, highest in (
        ("temperature", options.temperature, 0.0, limits.TEMPERATURE_MAX),
        ("top_k", options.top_k, 0, limits.VOCABULARY_MAX),
        ("min_p", options.min_p, 0.0, 1.0),
        ("repeat_penalty", options.repeat_penalty, 1.0 / limits.REPEAT_PENALTY_MAX, limits.REPEAT_PENALTY_MAX),
        ("presence_penalty", options.presence_penalty, -most, most),
        ("frequency_penalty", options.frequency_penalty, -most, most),
    ):
        if not lowest <= value <= highest:  # nor is NaN
            raise InvalidRequest(f"{param} must be {lowest:g} to {highest:g}", param=param)
    if not 0.0 < options.top_p <= 1.0:
        raise InvalidRequest("top_p must be more than 0 and at most 1", param="top_p")
    _check_bias(options.bias)


def _check_bias(bias: list[tuple[int, float]]) -> None:
    if len(bias) > limits.LOGIT_BIASES_MAX:
        raise InvalidRequest(f"at most {limits.LOGIT_BIASES_MAX} tokens can have a bias", param="logit_bias")
    ids = [token for token, _ in bias]
    if ids != sorted(set(ids)) or (ids and not 0 <= ids[0] <= ids[-1] < limits.VOCABULARY_MAX):
        raise InvalidRequest("logit_bias names each token once, by its id", param="logit_bias")
    if not all(math.isfinite(value) and abs(value) <= limits.LOGIT_BIAS_MAX for _, value in bias):
        raise InvalidRequest(f"a bias is {-limits.LOGIT_BIAS_MAX:g} to {limits.LOGIT_BIAS_MAX:g}", param="logit_bias")
