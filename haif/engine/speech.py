"""Answers with parts: what a model thinks, says and calls, told apart while its tokens come.

A template teaches how a call is written (`Form`) and what stands around thoughts (`Thought`). Literals of a form are
followed whatever the whitespace between their characters. What looks like a call and is none (a function that was not
offered, no object behind it) is text. A name leaves as a whole, arguments as they come: from the brace that opens their
object to the one that closes it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from haif.base import limits
from haif.base.conversation import ARGUMENTS, CALL, REASONING, Aside
from haif.engine.text import StopStrings, overlap

_NO: Final = -1
_OPEN: Final = -2
HOLE: Final = "\0"  # in a literal of a form: an id, whichever
_HELD_MAX: Final = 512  # characters that wait to become a call, or space before one
_MEMBER: Final = re.compile(r'\s*,\s*"[^"\\]*"\s*:\s*("[^"\\]*"|[-+.\w]+)(?=\s*[,}])')
_JSON: Final = re.compile(r"\s*(\[\s*)?\{")


@dataclass(frozen=True, slots=True)
class Form:
    """How calls are written: opening name middle {arguments} closing, then between name … , and after all the ending.

    Without `between` there is one call only.
    """

    opening: str
    middle: str
    closing: str
    between: str | None
    ending: str

    @property
    def bare(self) -> bool:
        """Whether nothing but JSON announces a call: it is then one only where an answer begins with it."""
        return _JSON.match(self.opening) is not None

    @property
    def texts(self) -> tuple[str, ...]:
        """All literals."""
        return (self.opening, self.middle, self.closing, self.between or "", self.ending)


@dataclass(frozen=True, slots=True)
class Thought:
    """What stands around thoughts, at the beginning of an answer."""

    opening: str
    closing: str


class Speech:
    """As `TextStream`, for an answer that may have thoughts and calls. Stop strings end its text, not its other parts.

    `names`: the functions that may be called. `single`: the answer ends with its first call. `thinking`: the prompt has
    opened a thought already.
    """

    def __init__(
        self, *, form: Form | None = None, names: Collection[str] = (), single: bool = False,
        thought: Thought | None = None, thinking: bool = False, stop: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stop = StopStrings(stop)
        self._form = form
        self._names = names
        self._single = single or form is None or form.between is None
        self._thought = thought
        self._buffer = ""
        self._held = ""  # what opened the call whose name is due
        self._text: list[str] = []
        self._asides: list[Aside] = []
        self._spoke = False
        self._trim = False
        self._depth = 0
        self._quoted = self._escaped = False
        self._calls = 0
        self._over = False
        self.reasoning_tokens = 0
        self._state: Callable[[bool], bool] = self._say
        if thought is not None:
            self._state = self._think if thinking else self._begin
            self._trim = thinking

    @property
    def stopped(self) -> bool:
        """Whether a stop string was met, or the only call is whole."""
        return self._over or bool(self._stop.met)

    @property
    def stopped_by(self) -> str:
        """The stop string that was met."""
        return self._stop.met

    def feed(self, piece: bytes) -> str:
        """The text that a token completes, less what must wait."""
        thinking = self._state == self._think
        self._buffer += self._decoder.decode(piece)
        self._advance(final=False)
        if thinking or self._state == self._think:
            self.reasoning_tokens += 1
        return self._taken()

    def finish(self) -> str:
        """What was still waiting, now that nothing follows."""
        self._buffer += self._decoder.decode(b"", final=True)
        self._advance(final=True)
        return self._taken() + self._stop.rest()

    def asides(self) -> list[Aside]:
        """What was said beside the text since the last time."""
        asides, self._asides = self._asides, []
        return asides

    def _advance(self, *, final: bool) -> None:
        while not self.stopped and self._state(final):
            pass

    def _taken(self) -> str:
        text = "".join(self._text)
        self._text.clear()
        return text

    # --- states: each takes what it can from the buffer; whether another may go on ------------------------------------

    def _begin(self, final: bool) -> bool:
        """Before the first word: a thought, or not."""
        assert self._thought is not None
        opening, seen = self._thought.opening, self._buffer.lstrip()
        if seen.startswith(opening):
            self._buffer = seen[len(opening) :]
            self._trim = True
            self._state = self._think
        elif opening.startswith(seen) and not final:
            return False
        else:
            self._state = self._say
        return True

    def _think(self, final: bool) -> bool:
        assert self._thought is not None
        if not self._trimmed():
            return False
        thought, found, rest = self._buffer.partition(self._thought.closing)
        if found:
            self._tell(REASONING, thought.rstrip())
            self._buffer = rest
            self._trim = True
            self._state = self._say
            return True
        keep = overlap(thought, self._thought.closing)
        keep = 0 if final else keep + _space(thought[: len(thought) - keep])
        self._tell(REASONING, thought[: len(thought) - keep])
        self._buffer = thought[len(thought) - keep :]
        return False

    def _say(self, final: bool) -> bool:
        if not self._trimmed():
            return False
        start, end = self._opening(final)
        if end == _NO:
            keep = 0 if final or self._form is None else _space(self._buffer)
            self._write(self._buffer[: len(self._buffer) - keep])
            self._buffer = self._buffer[len(self._buffer) - keep :]
            return False
        if end == _OPEN:
            before = len(self._buffer[:start].rstrip())
            self._write(self._buffer[:before])
            self._buffer = self._buffer[before:]
            return False
        self._write(self._buffer[:start].rstrip())
        self._expect_name(start, end)
        return True

    def _name(self, final: bool) -> bool:
        """After what opens a call: an offered name and what follows it, or it was text."""
        assert self._form is not None
        waits = False
        for name in self._names:
            if self._buffer.startswith(name):
                end = follow(self._buffer, len(name), self._form.middle + "{")
                if end >= 0:
                    self._asides.append(Aside(CALL, name))
                    self._buffer = self._buffer[end - 1 :]
                    self._depth, self._quoted, self._escaped = 0, False, False
                    self._state = self._argue
                    return True
                waits = waits or end == _OPEN
            waits = waits or name.startswith(self._buffer)
        if waits and not final and len(self._buffer) <= _HELD_MAX:
            return False
        self._write(self._held)
        self._state = self._say
        return True

    def _argue(self, _: bool) -> bool:
        end = self._object_end()
        self._tell(ARGUMENTS, self._buffer[:end])
        self._buffer = self._buffer[end:]
        if self._depth:
            return False
        self._calls += 1
        self._state = self._close
        return True

    def _close(self, final: bool) -> bool:
        """After the arguments: what closes the call, and members that some models add there."""
        assert self._form is not None
        end = follow(self._buffer, 0, self._form.closing)
        if end == _OPEN and not final:
            return False
        if end == _NO and self._form.closing.lstrip().startswith("}"):
            member = _MEMBER.match(self._buffer)
            if member:
                self._buffer = self._buffer[member.end() :]
                return True
            if self._buffer.lstrip().startswith(",") and not final and len(self._buffer) <= _HELD_MAX:
                return False
        if end >= 0:
            self._buffer = self._buffer[end:]
        elif end == _OPEN:
            self._buffer = ""
        self._over = self._single or self._calls >= limits.TOOL_CALLS_MAX
        self._state = self._between
        return True

    def _between(self, final: bool) -> bool:
        """After a call: another, the end of all, or text."""
        assert self._form is not None
        self._buffer = self._buffer.lstrip()
        ends = [
            follow(self._buffer, 0, literal) if literal.strip() else _NO
            for literal in (self._form.between or "", self._form.ending)
        ]
        if ends[0] >= 0:
            self._expect_name(0, ends[0])
        elif ends[1] >= 0:
            self._buffer = self._buffer[ends[1] :]
            self._trim = True
            self._state = self._say
        elif _OPEN in ends and not final:
            return False
        else:
            self._trim = True
            self._state = self._say
        return True

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _opening(self, final: bool) -> tuple[int, int]:
        """Where in the buffer a call opens, and where its name is due; or `_OPEN`, `_NO`."""
        form = self._form
        if form is None or (form.bare and self._spoke):
            return 0, _NO
        first = form.opening.lstrip()[0]
        start = self._buffer.find(first)
        while start >= 0 and not (form.bare and self._buffer[:start].strip()):
            end = follow(self._buffer, start, form.opening)
            if end >= 0 or (end == _OPEN and not final and len(self._buffer) - start <= _HELD_MAX):
                return start, end
            start = self._buffer.find(first, start + 1)
        return 0, _NO

    def _expect_name(self, start: int, end: int) -> None:
        self._held, self._buffer = self._buffer[start:end], self._buffer[end:]
        self._state = self._name

    def _object_end(self) -> int:
        """Where the arguments' object ends in the buffer; all of it if not here."""
        for place, character in enumerate(self._buffer):
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = self._quoted
            elif character == '"':
                self._quoted = not self._quoted
            elif not self._quoted and character in "{[":
                self._depth += 1
            elif not self._quoted and character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return place + 1
        return len(self._buffer)

    def _trimmed(self) -> bool:
        """Drop space before a part begins; whether there is anything else."""
        if self._trim:
            self._buffer = self._buffer.lstrip()
            self._trim = not self._buffer
        return not self._trim

    def _tell(self, kind: str, text: str) -> None:
        if text:
            self._asides.append(Aside(kind, text))

    def _write(self, text: str) -> None:
        if text:
            self._spoke = True
            self._text.append(self._stop.passed(text))


def follow(text: str, at: int, literal: str) -> int:
    """Where `text` goes on behind `literal`, whatever the space in either; `_OPEN` if it may yet come, `_NO` if not."""
    for wanted in literal:
        if wanted.isspace():
            continue
        if wanted == HOLE:
            at = end if (end := text.find('"', at)) >= 0 else len(text)
            continue
        while at < len(text) and text[at].isspace():
            at += 1
        if at == len(text):
            return _OPEN
        if text[at] != wanted:
            return _NO
        at += 1
    return at


def _space(text: str) -> int:
    """How much space at the end of a text should wait: it is none of it if a call or the end of a thought follows."""
    length = len(text) - len(text.rstrip())
    return length if length <= _HELD_MAX else 0
