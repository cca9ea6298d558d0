"""How well a worker is known, from verdicts alone: slow to earn, lost at once, fading; and how often it is audited.

    passed    audits it passed; half of them are forgotten in each `limits.STANDING_HALF_LIFE_DAYS`
    chance    all of its receipts until `limits.AUDIT_NEWCOMER_PASSES` were passed; then the square of that number over
              those passed, so that it falls to `limits.AUDIT_PER_MILLE_MIN` after about 1,500 answers
    out       from a conviction on for `limits.CONVICTION_DAYS`; then a newcomer again

Where bits can be compared, one difference is proof and no statistics are needed (`proof.evidence` is for where they
cannot). What was left undecided moves nothing, so that who cannot be judged stays a newcomer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from haif.base import limits

DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Standing:
    """What verdicts said of a worker until `at` (ms). `convicted` is when it was convicted last; 0 for never."""

    passed: float = 0.0
    at: int = 0
    convicted: int = 0

    def honest(self, at: int) -> Standing:
        """After an audit that it passed."""
        return Standing(self.known(at) + 1.0, max(at, self.at), self.convicted)

    def guilty(self, at: int) -> Standing:
        """After a conviction."""
        return Standing(0.0, max(at, self.at), max(at, self.convicted))

    def known(self, now: int) -> float:
        """Audits passed, as far as they still count."""
        age_days = max(0, now - self.at) / DAY_MS
        return float(self.passed * 0.5 ** (age_days / limits.STANDING_HALF_LIFE_DAYS))

    def is_out(self, now: int) -> bool:
        """Whether it gets no work."""
        return self.convicted > 0 and now < self.convicted + limits.CONVICTION_DAYS * DAY_MS

    def per_mille(self, now: int) -> int:
        """The chance, in 1000, that one of its receipts is drawn: all, where it was accused lately."""
        if self.is_out(now):
            return 1000
        share = limits.AUDIT_NEWCOMER_PASSES / max(limits.AUDIT_NEWCOMER_PASSES, self.known(now))
        return max(limits.AUDIT_PER_MILLE_MIN, round(1000 * share * share))

    def __add__(self, other: Standing) -> Standing:
        """What two validators said of one worker."""
        at = max(self.at, other.at)
        return Standing(self.known(at) + other.known(at), at, max(self.convicted, other.convicted))
