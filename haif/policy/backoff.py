"""How long to wait before trying again: anything from nothing to a bound that doubles ("full jitter").

Who waits a fixed time comes back together with everybody who failed at the same moment; drawing from the whole interval
spreads them evenly (Brooker 2015, "Exponential Backoff And Jitter").
"""

from __future__ import annotations

from collections.abc import Callable


def full_jitter(tries: int, entropy: Callable[[int], bytes], *, first: float, most: float) -> float:
    """Seconds to wait after `tries` failures: 0 to `first * 2 ** (tries - 1)`, and never over `most`."""
    if tries < 1:
        raise ValueError("who never failed need not wait")
    bound = min(most, first * 2.0 ** min(tries - 1, 32))
    return bound * (int.from_bytes(entropy(4), "big") / 0xFFFF_FFFF)
