"""The hash chain shows every change to what was written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base.errors import JournalBroken, Reason
from haif.base.ids import Digest
from haif.storage.journal import EMPTY, Head, Row, check_end, extend, follow, link

ENTRIES = [b"one", b"two", b"three", b"four"]


def walk(rows: list[Row], recorded: Head) -> None:
    reached = EMPTY
    for row in rows:
        reached = follow(reached, row)
    check_end(reached, recorded)


def head_of(rows: list[Row]) -> Head:
    return Head(rows[-1].sequence, rows[-1].digest)


def test_the_digest_of_an_entry_is_fixed_by_the_format() -> None:
    assert link(EMPTY.digest, 1, b"job", b"entry").hex() == (
        "f6e8a5fd7264ccb082312ce129b01f0d1f93f59763f59643411d108e28df24cc"
    )


def test_what_was_written_in_several_goes_is_one_chain() -> None:
    first = extend(EMPTY, b"a", ENTRIES[:2])
    second = extend(head_of(first), b"b", ENTRIES[2:])
    walk(first + second, head_of(second))
    assert [row.sequence for row in first + second] == [1, 2, 3, 4]


def test_nothing_written_extends_nothing() -> None:
    assert extend(EMPTY, b"", []) == []
    walk([], EMPTY)


@given(st.integers(0, 3), st.data())
def test_any_changed_bit_is_found_at_its_entry(position: int, data: st.DataObject) -> None:
    rows = extend(EMPTY, b"subject", ENTRIES)
    row = rows[position]
    field = data.draw(st.sampled_from(["subject", "entry", "digest"]))
    raw = bytearray(getattr(row, field))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    changed = {"subject": row.subject, "entry": row.entry, "digest": row.digest, field: bytes(raw)}
    changed["digest"] = Digest(changed["digest"])
    rows[position] = Row(row.sequence, **changed)
    with pytest.raises(JournalBroken, match=f"entry {position + 1} "):
        walk(rows, head_of(extend(EMPTY, b"subject", ENTRIES)))


def test_a_missing_entry_is_named() -> None:
    rows = extend(EMPTY, b"", ENTRIES)
    with pytest.raises(JournalBroken, match="entry 2 is missing") as caught:
        walk([rows[0], *rows[2:]], head_of(rows))
    assert Reason.JOURNAL_BROKEN is caught.value.reason


def test_entries_cut_off_at_the_end_disagree_with_the_head() -> None:
    rows = extend(EMPTY, b"", ENTRIES)
    with pytest.raises(JournalBroken, match="entry 3 is missing: 4 were written"):
        walk(rows[:2], head_of(rows))


def test_entries_glued_on_at_the_end_disagree_with_the_head() -> None:
    rows = extend(EMPTY, b"", ENTRIES)
    with pytest.raises(JournalBroken, match="entry 4 is not the one recorded"):
        walk(rows, head_of(rows[:3]))


def test_exchanged_entries_are_found() -> None:
    a, b = extend(EMPTY, b"", ENTRIES[:2])
    swapped = [Row(1, b"", b.entry, b.digest), Row(2, b"", a.entry, a.digest)]
    with pytest.raises(JournalBroken, match="entry 1 is not"):
        walk(swapped, Head(2, b.digest))


def test_an_inserted_entry_breaks_the_link_after_it() -> None:
    a, b = extend(EMPTY, b"", ENTRIES[:2])
    forged = extend(Head(1, a.digest), b"", [b"forged"])[0]
    with pytest.raises(JournalBroken, match="entry 3 is not"):
        walk([a, forged, Row(3, b"", b.entry, b.digest)], Head(3, b.digest))
