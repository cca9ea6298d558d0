"""A root changes with every token, every logits row, and their places."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base import limits
from haif.base.hashing import digest
from haif.base.ids import Digest
from haif.proof import merkle
from haif.proof.transcript import root, windows

SIZE = limits.TRANSCRIPT_WINDOW_TOKENS
TOKENS = st.lists(st.integers(0, 2**32 - 1), max_size=3 * SIZE)


def digests(count: int) -> list[Digest]:
    return [digest("test rows", bytes([number])) for number in range(-(-count // SIZE))]


@given(tokens=TOKENS, first=st.integers(0, 5000))
def test_every_token_is_in_one_window_in_order(tokens: list[int], first: int) -> None:
    these = windows(first, tokens, digests(len(tokens)))
    together = b"".join(window.tokens for window in these)
    assert b"".join(token.to_bytes(4, "little") for token in tokens) == together
    assert [first + place * SIZE for place in range(len(these))] == [window.first for window in these]
    assert all(len(window.tokens) == 4 * SIZE for window in these[:-1])


@given(tokens=TOKENS.filter(bool), data=st.data())
def test_no_token_and_no_digest_can_be_another(tokens: list[int], data: st.DataObject) -> None:
    rows = digests(len(tokens))
    committed = root(windows(0, tokens, rows))
    place = data.draw(st.integers(0, len(tokens) - 1))
    other = [*tokens[:place], tokens[place] ^ 1, *tokens[place + 1 :]]
    assert committed != root(windows(0, other, rows))
    assert committed != root(windows(1, tokens, rows))
    which = place // SIZE
    changed = [*rows[:which], digest("test rows", b"other"), *rows[which + 1 :]]
    assert committed != root(windows(0, tokens, changed))


def test_digests_without_their_tokens_are_a_mistake() -> None:
    for count in (0, 2):
        with pytest.raises(ValueError, match="zip"):
            windows(0, [1, 2, 3], digests(count * SIZE))


def test_a_window_is_shown_by_itself() -> None:
    these = windows(0, list(range(3 * SIZE)), digests(3 * SIZE))
    leaves = [window.leaf() for window in these]
    merkle.check_inclusion(these[1].leaf(), 1, 3, merkle.inclusion(leaves, 1), root(these))
