"""Token pieces become text: whole UTF-8 characters only, and nothing of a stop string ever leaves."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from haif.base.conversation import Aside


class StopStrings:
    """Text in, the same text out up to the earliest stop string.

    The end of the text that may begin one waits until it is known.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._withheld = ""
        self.met = ""  # the stop string that came

    def passed(self, text: str) -> str:
        """What may leave now. Sets `met` when a stop string came."""
        if not self._stop or self.met:
            return "" if self.met else text
        text = self._withheld + text
        found = [(place, stop) for stop in self._stop if (place := text.find(stop)) >= 0]
        if found:
            place, self.met = min(found, key=lambda each: each[0])
            self._withheld = ""
            return text[:place]
        keep = max(overlap(text, stop) for stop in self._stop)
        self._withheld = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> str:
        """What was still waiting, now that nothing follows."""
        text, self._withheld = self._withheld, ""
        return text


class TextStream:
    """Bytes of token pieces in, text out.

    An incomplete character waits for its other bytes; bytes that are no UTF-8 become U+FFFD.
    """

    reasoning_tokens = 0

    def __init__(self, stop: Sequence[str]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stop = StopStrings(stop)

    @property
    def stopped(self) -> bool:
        """Whether a stop string was met."""
        return bool(self._stop.met)

    @property
    def stopped_by(self) -> str:
        """The stop string that was met."""
        return self._stop.met

    def feed(self, piece: bytes) -> str:
        """The text that `piece` completes, less what must wait."""
        return self._stop.passed(self._decoder.decode(piece))

    def finish(self) -> str:
        """What was still waiting, now that nothing follows."""
        return self._stop.passed(self._decoder.decode(b"", final=True)) + self._stop.rest()

    def asides(self) -> list[Aside]:
        """What was said beside the text since the last time: nothing."""
        return []


def overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` are a proper beginning of `stop`."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
