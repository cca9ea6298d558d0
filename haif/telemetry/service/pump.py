"""A thread that carries finished spans to one place, in batches, so that nobody on the event loop ever waits for it.

    event loop ── put ──► bounded queue ──► this thread ── write(batch) ──► SQLite, or OTLP

A full queue loses the newest span and counts it. Each destination has a pump of its own: a slow collector does not
hold up the local store.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Protocol

from haif.base import limits
from haif.telemetry.spans import Ended

_log = logging.getLogger(__name__)


class Sink(Protocol):
    """Where spans go. `write` is called on the pump's thread and may raise; `close`, once, on any thread, ends it."""

    def write(self, spans: Sequence[Ended]) -> None:
        """Take these spans."""

    def close(self) -> None:
        """Take no more."""


class Pump:
    """Hands ended spans to a sink on its own thread, within about `limits.SPAN_WRITE_SECONDS` of their end."""

    def __init__(
        self,
        name: str,
        sink: Sink,
        *,
        queue_max: int = limits.SPAN_QUEUE_MAX,
        gather_seconds: float = limits.SPAN_WRITE_SECONDS,
    ) -> None:
        self._name, self._sink = name, sink
        self._queue_max, self._gather_seconds = queue_max, gather_seconds
        self._changed = threading.Condition()
        self._waiting: list[Ended] = []
        self._accepted = self._done = self._lost = self._hurried = 0
        self._closing = self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"haif-spans-{name}", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Spans that will never arrive: the queue was full, or writing failed."""
        return self._lost

    def put(self, span: Ended) -> None:
        """Queue the span. Never blocks."""
        with self._changed:
            if self._closing or len(self._waiting) >= self._queue_max:
                self._lost += 1
                return
            self._accepted += 1
            self._waiting.append(span)
            if len(self._waiting) == 1:
                self._changed.notify_all()

    def flush(self, seconds: float = 30.0) -> bool:
        """Wait until every span that ended before this call was carried away; False when time ran out first."""
        with self._changed:
            target = self._hurried = self._accepted
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._done >= target, seconds)

    def close(self, seconds: float) -> None:
        """Carry away what is queued, if the sink takes it within `seconds`; then close the sink."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(seconds)
        if not self._closed:
            self._closed = True
            self._sink.close()

    def _run(self) -> None:
        while batch := self._gather():
            written = self._try(batch)
            with self._changed:
                self._done += len(batch)
                self._lost += 0 if written else len(batch)
                self._changed.notify_all()

    def _try(self, batch: Sequence[Ended]) -> bool:
        try:
            self._sink.write(batch)
        except Exception as error:  # noqa: BLE001 -- the top of this thread: it reports, counts and goes on
            _log.warning("%d spans could not be written to %s: %s", len(batch), self._name, error)
            return False
        return True

    def _gather(self) -> list[Ended]:
        """The next batch; empty only when closing and nothing is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            self._changed.wait_for(lambda: self._closing or self._hurried > self._done, self._gather_seconds)
            batch, self._waiting = self._waiting, []
            return batch
