from hypothesis import given
from hypothesis import strategies as st

from haif.engine.passes import ALONE_FROM, ROWS_MAX, companions, passes


def span(slot, length, start=0, due=True):
    return slot, start, list(range(start, start + length)), due


def test_single_tokens_go_together_and_longer_spans_after_them():
    spans = [span(0, 1), span(1, 5), span(2, 1), span(3, 5), span(4, 5)]
    assert [[0, 2], [1], [3, 4]] == [[piece.place for piece in pieces] for pieces in passes(spans)]


def test_a_span_is_cut_into_equal_parts_and_only_the_last_is_due():
    parts = [pieces[0].span for pieces in passes([span(7, 64, 10), span(8, 2, due=False)])]
    assert [(7, 10, 32, False), (7, 42, 32, True), (8, 0, 2, False)] == [
        (s, at, len(t), due) for s, at, t, due in parts
    ]


batches = st.lists(st.tuples(st.integers(1, 256), st.integers(0, 900), st.booleans()), min_size=1, max_size=9).map(
    lambda found: [span(slot, *rest) for slot, rest in enumerate(found)]
)


@given(batches)
def test_passes_compute_every_token_once_in_order_and_never_too_many_of_a_sequence(spans):
    seen = {place: [] for place in range(len(spans))}
    due = []
    for pieces in passes(spans):
        slots = [piece.span[0] for piece in pieces]
        assert slots == sorted(set(slots))
        lengths = {len(piece.span[2]) for piece in pieces}
        assert len(lengths) == 1
        assert lengths.pop() <= ROWS_MAX
        for place, (slot, start, tokens, last) in pieces:
            assert (slot, start) == (spans[place][0], spans[place][1] + len(seen[place]))
            assert len(tokens) > 1 or len(spans[place][2]) == 1
            seen[place] += tokens
            due += [place] * last
    assert [each[2] for each in spans] == list(seen.values())
    assert [place for place, each in enumerate(spans) if each[3]] == sorted(due)


@given(st.dictionaries(st.integers(0, 7), st.sampled_from([0, ALONE_FROM - 1, ALONE_FROM, 900]), min_size=1))
def test_with_companions_nobody_far_along_is_alone(starts):
    added = companions([span(slot, 1, start) for slot, start in starts.items()], 8)
    present = {*starts, *added}
    assert len(present) == len(starts) + len(added)
    assert present <= set(range(8))
    for slot, start in starts.items():
        assert start < ALONE_FROM or {slot - 1, slot + 1} & present
    assert not added or max(starts.values()) >= ALONE_FROM
