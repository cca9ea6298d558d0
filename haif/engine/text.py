"""Token pieces become text: whole UTF-8 characters only, and nothing of a stop string ever leaves."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """Bytes of token pieces in, text out.

    An incomplete character waits for its other bytes; bytes that are no UTF-8 become U+FFFD. With stop strings, the end
    of the text that may begin one waits until it is known; the earliest one found ends the text before it.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stop = tuple(stop)
        self._withheld = ""
        self.stopped = False

    def feed(self, piece: bytes) -> str:
        """The text that `piece` completes, less what must wait. Sets `stopped` when a stop string was met."""
        text = self._decoder.decode(piece)
        return self._release(text) if self._stop else text

    def finish(self) -> str:
        """What was still waiting, now that nothing follows."""
        text = self._decoder.decode(b"", final=True)
        if not self._stop:
            return text
        text = self._release(text) + self._withheld
        self._withheld = ""
        return text

    def _release(self, text: str) -> str:
        text = self._withheld + text
        found = [place for place in (text.find(stop) for stop in self._stop) if place >= 0]
        if found:
            self.stopped = True
            self._withheld = ""
            return text[: min(found)]
        keep = max(_overlap(text, stop) for stop in self._stop)
        self._withheld = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` are a proper beginning of `stop`."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
