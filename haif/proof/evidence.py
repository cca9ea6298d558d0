"""How much evidence there is against a worker; an honest one is accused with at most 1e-6 in its life.

Audits give two kinds of trials: tokens whose sampling margin is over its threshold, and windows whose hidden states are
too far off. Of an honest worker, each exceeds with a chance of at most p0, whatever came before (p0 is an upper bound
from honest runs: `upper`). Against that stands a bet on a higher rate q:

    E = mean over q of  product over trials of  q / p0 if it exceeds, (1 - q) / (1 - p0) if it does not

which starts at 1 and is a supermartingale while the worker is honest, so it ever reaches 1e6 with a chance of at most
1e-6 (Ville 1939; Shafer 2021, "Testing by betting"). The two kinds are bet on separately and averaged, for what one
sees the other may be blind to. A bet begins anew with every audit k, with 1 / (k (k + 1)) of the money: a worker cannot
bank the credit of honest months. Money that was never bet, and bets that are forgotten for lack of room, only make E
smaller.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from haif.base import limits

ALARM: Final = math.log(1e6)
SAMPLER_RATES: Final = (0.003, 0.03, 0.3)
FORWARD_RATES: Final = (0.1, 0.5, 0.9)


@dataclass(frozen=True, slots=True)
class Chances:
    """The chance, at most, that a token (`sampler`) or a window (`forward`) of an honest worker is over its threshold.

    Raises `ValueError` unless both are between 0 and 1 and lower than every rate that is bet on.
    """

    sampler: float
    forward: float

    def __post_init__(self) -> None:
        if not (0.0 < self.sampler < SAMPLER_RATES[0] and 0.0 < self.forward < FORWARD_RATES[0]):
            raise ValueError(f"{self} must be over 0 and under {SAMPLER_RATES[0]} and {FORWARD_RATES[0]}")


@dataclass(frozen=True, slots=True)
class Trials:
    """What one audit counted: tokens and windows looked at, and how many of them were over their thresholds."""

    tokens: int
    tokens_over: int
    windows: int
    windows_over: int

    def __post_init__(self) -> None:
        if not (0 <= self.tokens_over <= self.tokens and 0 <= self.windows_over <= self.windows):
            raise ValueError(f"{self}: no more can exceed than were looked at")


@dataclass(frozen=True, slots=True)
class _Bet:
    """One bet: its money and what it won, per rate; natural logarithms."""

    money: float
    sampler: tuple[float, ...] = (0.0,) * len(SAMPLER_RATES)
    forward: tuple[float, ...] = (0.0,) * len(FORWARD_RATES)

    def after(self, trials: Trials, chances: Chances) -> _Bet:
        return _Bet(
            self.money,
            _won(self.sampler, SAMPLER_RATES, chances.sampler, trials.tokens, trials.tokens_over),
            _won(self.forward, FORWARD_RATES, chances.forward, trials.windows, trials.windows_over),
        )

    @property
    def worth(self) -> float:
        return self.money + _sum((_sum(self.sampler) - math.log(3), _sum(self.forward) - math.log(3))) - math.log(2)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What all audits of one worker, for one model and pair of profiles, say together. Begins without any."""

    audits: int = 0
    _bets: tuple[_Bet, ...] = field(default=(), repr=False)

    def after(self, trials: Trials, chances: Chances) -> Evidence:
        """With one more audit."""
        number = self.audits + 1
        bets = (*self._bets, _Bet(-math.log(number * (number + 1))))
        worth = sorted((bet.after(trials, chances) for bet in bets), key=lambda bet: bet.worth, reverse=True)
        return Evidence(number, tuple(worth[: limits.EVIDENCE_BETS_MAX]))

    @property
    def log_e(self) -> float:
        """The natural logarithm of E; 0 before the first audit."""
        unbet = -math.log(self.audits + 1)  # the sum of 1 / (k (k + 1)) over all audits to come
        return _sum((unbet, *(bet.worth for bet in self._bets)))

    @property
    def alarm(self) -> bool:
        """Whether it is enough: an honest worker comes here with a chance of at most 1e-6, ever."""
        return self.log_e >= ALARM


def upper(over: int, trials: int, confidence: float) -> float:
    """The highest chance at which so few of so many exceed with a chance of 1 - `confidence` (Clopper, Pearson 1934).

    One-sided; raises `ValueError` for counts or a confidence that cannot be.
    """
    if not (0 <= over <= trials and trials > 0 and 0.0 < confidence < 1.0):
        raise ValueError(f"{over} of {trials} at a confidence of {confidence} cannot be")
    if over == trials:
        return 1.0
    low, high = over / trials, 1.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(over, trials, middle) > 1.0 - confidence else (low, middle)
    return high


def lower(over: int, trials: int, confidence: float) -> float:
    """The lowest chance at which so many of so many exceed with a chance of 1 - `confidence`; as `upper`."""
    return 1.0 - upper(trials - over, trials, confidence)


def _at_most(over: int, trials: int, chance: float) -> float:
    """The chance of `over` or fewer."""
    if chance >= 1.0:
        return 0.0
    k = np.arange(1, over + 1, dtype=np.float64)
    ways = np.concatenate(([0.0], np.cumsum(np.log((trials - k + 1) / k))))
    counts = np.arange(over + 1, dtype=np.float64)
    logs = ways + counts * math.log(chance) + (trials - counts) * math.log1p(-chance)
    return float(np.exp(logs).sum())


def _won(
    before: tuple[float, ...], rates: tuple[float, ...], chance: float, trials: int, over: int
) -> tuple[float, ...]:
    return tuple(
        won + over * math.log(rate / chance) + (trials - over) * (math.log1p(-rate) - math.log1p(-chance))
        for won, rate in zip(before, rates, strict=True)
    )


def _sum(logs: tuple[float, ...]) -> float:
    """log(exp(a) + exp(b) + …) without overflow."""
    highest = max(logs)
    return highest + math.log(math.fsum(math.exp(each - highest) for each in logs))
