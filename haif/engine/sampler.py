"""haif-sampler-v1: which token follows is a pure function of logits, options, seed and position.

    z    = logits + bias; then for tokens in prompt or answer z = z / r (z > 0) or z * r, and for those in the answer
           z = z - frequency * times - presence
    kept = min-p cut of the top-p cut of the top-k cut of z
    y    = argmax over kept v of  z[v] + T * g[t, v]                                     T = 0: argmax, lowest id wins
    g[t, v] = -ln(-ln u)             u = (top 53 bits of word v) * 2^-53 + 2^-54
    word v  = the v-th little-endian u64 of AES-256-CTR(key = seed, initial counter block = t, 0 as two big-endian u64)

Where an answer must fit a schema and y does not, y is chosen again with z = minus infinity where it may not continue.

All in float64; ties go to the lowest id. t is the index of the token within the answer. u rounds to 1 once in 2^53
words; then g is infinite and that token wins. The cuts are made on softmax(z) before temperature (the order of the
specification). top-k: the k first tokens by z descending and then id ascending; top-p: the shortest list of those, in
the same order, whose probabilities among them reach top_p; min-p: of those the ones with z >= max z + ln(min_p).

The noise is random access by token id (`noise`), so after a cut only the kept tokens' noise is made. Without one, two
scores are bounds that every rival must beat: that of the likeliest token, and that of the token with the most noise of
all. Who is behind the better one by more than T times the most noise cannot win. Where that leaves many, a rival needs
1 - u <= exp((z[v] - bound) / T), as -ln u >= 1 - u, which is tested in float32 with a margin far wider than its
rounding. The few that pass are scored in float64 as above, so the shortcut never changes the answer. (Gumbel-max:
Gumbel 1954; Maddison, Tarlow and Minka 2014.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from haif.base.errors import InvalidRequest
from haif.base.ids import Seed
from haif.base.sampling import Sampling
from haif.engine.noise import Desk, Floats, Ids, Noise, Words, gumbel

Logits = npt.NDArray[np.floating[Any]]

_FEW: Final = 1024  # below this many tokens, scoring all of them costs no more than choosing whom to score
_COLD: Final = 1e-3  # below this temperature, float32 is too coarse for choosing whom to score


def logprobs(z: Logits, ids: Sequence[int]) -> list[float]:
    """The natural logarithms of softmax(z) at these token ids."""
    highest = float(z.max())
    total = float(np.exp(z.astype(np.float64) - highest).sum())
    return [float(z[each]) - highest - math.log(total) for each in ids]


def nucleus(z: Logits, top_p: float) -> Ids:
    """Ids of the top-p cut, ascending.

    Tokens over some weight that together reach top_p contain the cut, so only they are sorted. The last weight tried
    always does: tokens with a probability under (1 - top_p) / n together hold less than 1 - top_p.
    """
    weights = np.exp(z.astype(np.float64) - float(z.max()))
    total = float(weights.sum())
    wanted = top_p * total
    for weight in (2.0**-4, 2.0**-10, 0.5 * (1.0 - top_p) * total / len(weights)):
        ids = np.flatnonzero(weights >= weight)
        if float(weights[ids].sum()) > wanted * (1.0 + 1e-9):
            break
    scores = z[ids]
    ranked = np.sort(scores)[::-1]
    reached = np.cumsum(np.exp(ranked.astype(np.float64) - float(ranked[0])))
    count = min(int(np.searchsorted(reached, wanted)) + 1, len(ids))
    kept: Ids = ids[_highest(scores, count, edge=ranked[count - 1])]
    return kept


def top(z: Logits, k: int) -> Ids:
    """Ids of the k highest, ascending."""
    return _highest(z, k, edge=np.partition(z, len(z) - k)[len(z) - k])


def _highest(z: Logits, count: int, *, edge: Any) -> Ids:
    """Places of the `count` highest, ascending; of those exactly as high as the last, `edge`, the first are taken."""
    above, level = np.flatnonzero(z > edge), np.flatnonzero(z == edge)
    places: Ids = np.sort(np.concatenate((above, level[: count - len(above)])))
    return places


class Rules(Protocol):
    """What an answer may still say."""

    def allows(self, token: int) -> bool:
        """Whether the token may come next."""

    def masked(self, z: Logits) -> Floats:
        """The logits with minus infinity where a token may not come next. Raises `Refusal` if none may."""

    def accept(self, token: int) -> None:
        """The token came."""


class Sampler:
    """Chooses the tokens of one answer, in order: penalties depend on what was chosen before."""

    def __init__(self, seed: Seed, options: Sampling, prompt: Iterable[int] = (), desk: Desk | None = None) -> None:
        self._noise = Noise(seed, desk)
        self._options = options
        self._temperature = options.temperature
        self._seen = dict.fromkeys(prompt, 0) if options.reshapes else {}  # how often each token is in the answer
        self._bias_ids = np.array([token for token, _ in options.bias], np.intp)
        self._bias = np.array([value for _, value in options.bias], np.float64)

    def choose(self, z: Logits, t: int, rules: Rules | None = None) -> int:
        """The token of position `t`. Raises `ValueError` if the logits are not numbers, and what `rules` raises.

        What the rules do not allow is chosen again among what they do, and they are told what was chosen.
        """
        z = self._reshaped(z) if self._options.reshapes else z
        token = self._choose(z, t)
        if rules is not None:
            if not rules.allows(token):
                token = self._choose(rules.masked(z), t)
            rules.accept(token)
        self._remember(token)
        return token

    def follow(self, token: int, rules: Rules | None = None) -> None:
        """Take in a token that was chosen elsewhere. Raises `InvalidRequest` where the rules do not allow it."""
        if rules is not None:
            try:
                rules.accept(token)
            except InvalidRequest:
                raise InvalidRequest("the answer to go on with does not fit its schema", param="resumed") from None
        self._remember(token)

    def _remember(self, token: int) -> None:
        if self._options.reshapes:
            self._seen[token] = self._seen.get(token, 0) + 1

    def _reshaped(self, z: Logits) -> Floats:
        """The logits with biases and penalties."""
        options = self._options
        reshaped = z.astype(np.float64)
        reshaped[self._bias_ids] += self._bias
        if self._seen:
            ids = np.fromiter(self._seen, np.intp, len(self._seen))
            times = np.fromiter(self._seen.values(), np.float64, len(self._seen))
            these = reshaped[ids]
            these = np.where(these > 0, these / options.repeat_penalty, these * options.repeat_penalty)
            these -= options.frequency_penalty * times + options.presence_penalty * (times > 0)
            reshaped[ids] = these
        return reshaped

    def _choose(self, z: Logits, t: int) -> int:
        best = int(z.argmax())
        if not math.isfinite(z[best]):
            raise ValueError("the model produced logits that are not finite numbers")
        if self._temperature == 0.0:
            return best
        ids = self._kept(z)
        if ids is not None:
            return best if len(ids) == 1 else self._best(z, ids, self._noise.words_at(t, ids))
        if len(z) <= _FEW:
            return int((z + self._temperature * self._noise.row(t, len(z))).argmax())
        return self._race(z, best, self._noise.words(t, len(z)))

    def _race(self, z: Logits, best: int, words: Words) -> int:
        """The winner among all tokens; `best` is the likeliest."""
        temperature = self._temperature
        loudest = int(words.argmax())
        near, far = gumbel(words[[best, loudest]]).tolist()
        bound = max(float(z[best]) + temperature * near, float(z[loudest]) + temperature * far)
        if not math.isfinite(bound):
            return int((z + temperature * gumbel(words)).argmax())
        slack = 1e-6 * (abs(bound) + temperature * far)  # rounding of the next line in float32, many times over
        ids = np.flatnonzero(z >= bound - temperature * far - slack)
        if len(ids) > _FEW and temperature >= _COLD:
            ids = ids[self._rivals(z[ids], words[ids], bound)]
        return self._best(z, ids, words[ids])

    def _kept(self, z: Logits) -> Ids | None:
        """Ids that pass the cuts, ascending; None where nothing is cut."""
        options = self._options
        ids: Ids | None = None
        if 0 < options.top_k < len(z):
            ids = top(z, options.top_k)
        if options.top_p < 1.0:
            ids = nucleus(z, options.top_p) if ids is None else ids[nucleus(z[ids], options.top_p)]
        if options.min_p > 0.0:
            scores = z if ids is None else z[ids]
            places = np.flatnonzero(scores >= float(scores.max()) + math.log(options.min_p))
            ids = places if ids is None else ids[places]
        return ids

    def _best(self, z: Logits, ids: Ids, words: Words) -> int:
        return int(ids[(z[ids] + self._temperature * gumbel(words)).argmax()])

    def _rivals(self, z: Logits, words: Words, bound: float) -> Ids:
        """Places, ascending, of all that may score `bound` or more."""
        slack = (
            1e-3 + 1e-6 * abs(bound) / self._temperature
        )  # rounding of `bound`, `z - bound` and exp, many times over
        reach = (z - np.float32(bound)) * np.float32(1.0 / self._temperature) + np.float32(slack)
        np.exp(np.minimum(reach, np.float32(1.0), out=reach), out=reach)
        below = (words >> np.uint64(40)).astype(np.float32)  # 24 bits, so that every step here is exact
        passed: Ids = np.flatnonzero(np.float32(1.0 - 2.0**-24) - below * np.float32(2.0**-24) <= reach)
        return passed
