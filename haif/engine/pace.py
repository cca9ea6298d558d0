"""How many prompt tokens a step may compute beside running streams, so that these are not slowed down unduly.

A step with prompt tokens takes longer than one without, and every running stream waits for it. What steps cost is
measured as they come: those without prompts by their number of streams, and what each further token adds; now and then
a step leaves prompts out, so that the first stay known. From both follows how many tokens fit into the share that
prompts may have. Cost is processor time: what other processes take of a busy machine says nothing about it, and would
make a prompt crawl. With nobody to wait, a chunk is as large as it may be.
"""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import Final

from haif.base import limits

_KEPT: Final = 9  # observations of each kind
_PAUSE: Final = 8  # of so many steps beside prompts, one leaves them out


class Pace:
    """What steps cost lately, in nanoseconds of processor time."""

    def __init__(self) -> None:
        self._alone: dict[int, deque[float]] = {0: deque((0.0,))}  # by number of streams: steps without prompts
        self._each: deque[float] = deque(maxlen=_KEPT)  # what one token more adds
        self._mixed = 0  # steps beside prompts since the last without

    def room(self, streams: int, prompts: int = 1) -> int:
        """How many prompt tokens the next step may compute beside so many streams; now and then none.

        Each prompt that waits adds its share: where many wait and few run, most is gained by computing prompts.
        """
        each = median(self._each or (0.0,))
        if not streams or each <= 0.0:
            return limits.PREFILL_CHUNK_TOKENS
        if self._mixed >= _PAUSE - 1:
            return 0
        tokens = int(prompts * (limits.PREFILL_SLOWDOWN - 1.0) * self._without(streams, each) / each)
        return max(limits.PREFILL_CHUNK_TOKENS_MIN, min(tokens, limits.PREFILL_CHUNK_TOKENS))

    def learn(self, streams: int, prompt_tokens: int, cost_ns: int) -> None:
        """A step with so many streams and prompt tokens cost so much."""
        if not prompt_tokens:
            self._alone.setdefault(streams, deque(maxlen=_KEPT)).append(cost_ns)
            self._mixed = 0
            return
        known = self._nearest(streams)
        self._each.append((cost_ns - median(self._alone[known])) / max(1, prompt_tokens + streams - known))
        self._mixed += bool(streams)

    def _without(self, streams: int, each: float) -> float:
        known = self._nearest(streams)
        return median(self._alone[known]) + (streams - known) * each

    def _nearest(self, streams: int) -> int:
        return streams if streams in self._alone else min(self._alone, key=lambda known: abs(known - streams))
