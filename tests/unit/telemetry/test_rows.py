"""Spans of several processes make a tree, whatever parents they claim."""

from hypothesis import given
from hypothesis import strategies as st

from haif.telemetry.rows import SpanRow, in_order, tree


def row(span: str, parent: str = "", start: int = 0, end: int = 10, trace: str = "t") -> SpanRow:
    return SpanRow(trace, span, parent, "gateway", "g1", f"span {span}", start, end, "", {})


def shape(rows: list[SpanRow]) -> list[tuple[int, str]]:
    return [(depth, each.span) for depth, each in tree(rows)]


def test_children_stand_under_their_parent_oldest_first() -> None:
    rows = [row("c", "a", 5), row("d", "b", 2), row("b", "a", 1), row("a")]
    assert shape(rows) == [(0, "a"), (1, "b"), (2, "d"), (1, "c")]


def test_a_span_whose_parent_is_unknown_is_shown_at_the_top() -> None:
    assert shape([row("a", "missing"), row("b", "a", 1)]) == [(0, "a"), (1, "b")]


def test_the_same_ids_in_another_trace_are_another_span() -> None:
    rows = [row("a"), row("b", "a", 1), row("b", "a", 2, trace="u")]
    assert shape(rows) == [(0, "a"), (1, "b"), (0, "b")]


def test_a_ring_of_parents_is_shown_once_and_ends() -> None:
    assert shape([row("a", "b"), row("b", "a", 1), row("c", "c", 2)]) == [(0, "a"), (1, "b"), (0, "c")]


def test_a_span_kept_twice_is_shown_once() -> None:
    assert len(in_order([row("a"), row("a")])) == 1


def test_of_two_that_start_together_the_longer_comes_first() -> None:
    assert [each.span for each in in_order([row("short", end=1), row("long", end=9)])] == ["long", "short"]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 99)), max_size=20))
def test_every_span_is_shown_exactly_once(claims: list[tuple[int, int, int]]) -> None:
    rows = in_order(row(str(span), str(parent), start) for span, parent, start in claims)
    assert sorted(each.span for each in rows) == sorted(each.span for _, each in tree(rows))


def test_a_duration_is_in_milliseconds() -> None:
    assert row("a", start=1_000_000, end=3_500_000).duration_ms == 2.5
