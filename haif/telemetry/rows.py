"""A finished span as it was kept, and the trees that spans form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from haif.telemetry.redact import Value


@dataclass(frozen=True, slots=True)
class SpanRow:
    """One finished span. Ids in hex, times in ns since the epoch, `parent` and `reason` empty where there is none."""

    trace: str
    span: str
    parent: str
    role: str
    instance: str
    name: str
    start_ns: int
    end_ns: int
    reason: str
    attributes: Mapping[str, Value]

    @property
    def duration_ms(self) -> float:
        """How long it took."""
        return (self.end_ns - self.start_ns) / 1e6


def in_order(rows: Iterable[SpanRow]) -> list[SpanRow]:
    """Each span once, oldest first."""
    unique = {(row.trace, row.span): row for row in rows}
    return sorted(unique.values(), key=lambda row: (row.start_ns, -row.end_ns, row.span))


def tree(rows: Iterable[SpanRow]) -> list[tuple[int, SpanRow]]:
    """Every span once, with its depth, children under their parent and oldest first.

    A span whose parent is not among the rows stands at depth 0. So does one of a ring of parents: a peer may claim any
    parent, and what it claims must neither hide a span nor hold up the reader.
    """
    ordered = in_order(rows)
    present = {(row.trace, row.span) for row in ordered}
    children: dict[tuple[str, str], list[SpanRow]] = {}
    for row in ordered:
        children.setdefault((row.trace, row.parent), []).append(row)
    roots = [row for row in ordered if (row.trace, row.parent) not in present]
    shown: set[tuple[str, str]] = set()
    return [placed for root in (*roots, *ordered) for placed in _below(root, children, shown)]


def _below(
    root: SpanRow, children: Mapping[tuple[str, str], list[SpanRow]], shown: set[tuple[str, str]]
) -> Iterator[tuple[int, SpanRow]]:
    stack = [(0, root)]
    while stack:
        depth, row = stack.pop()
        if (row.trace, row.span) in shown:
            continue
        shown.add((row.trace, row.span))
        yield depth, row
        stack += [(depth + 1, child) for child in reversed(children.get((row.trace, row.span), []))]
