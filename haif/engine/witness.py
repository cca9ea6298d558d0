"""The digest of the logits that an answer's tokens were chosen from: one for each 32 tokens, over the raw rows.

Rows that are the same to the last bit have the same digests, and nothing else does: so who computes an answer again,
by a profile that is exact, sees whether it was computed from this model and this text (`proof.transcript`).
"""

from __future__ import annotations

import blake3
import numpy as np
import numpy.typing as npt

from haif.base import limits
from haif.base.ids import Digest

_CONTEXT = "haif verify v1 logits rows"


class Witness:
    """Sees each row of logits a token was chosen from, in order."""

    __slots__ = ("_hasher", "_seen")

    def __init__(self) -> None:
        self._hasher = blake3.blake3(derive_key_context=_CONTEXT)
        self._seen = 0

    def see(self, row: npt.NDArray[np.float32], *, last: bool) -> list[Digest]:
        """Take one row in: float32, little-endian as on every machine HAIF runs on.

        The digest of its window, if that is full now or this is the answer's last row; what comes later is of the next.
        """
        self._hasher.update(np.ascontiguousarray(row, "<f4").view(np.uint8).data)
        self._seen += 1
        if not last and self._seen < limits.TRANSCRIPT_WINDOW_TOKENS:
            return []
        found = Digest(self._hasher.digest())
        self._hasher.reset()
        self._seen = 0
        return [found]
