"""What differs first between an answer that was signed for and the same answer computed again."""

from dataclasses import replace

import pytest
from msgspec import structs

from haif.base.hashing import digest
from haif.base.ids import Nonce
from haif.base.sampling import Sampling
from haif.proof.compare import Cause, Computed, difference
from haif.protocol.inference import Request, said_digest, tokens_digest
from haif.protocol.receipts import Receipt
from tests.fuzz.values import example

ASKED = Request(Nonce(bytes(16)), None, "The river", 40, Sampling(1.0), [])
TOKENS = list(range(7, 47))
ROWS = [digest("rows", b"1"), digest("rows", b"2")]
OURS = Computed(TOKENS, "length", 3, said_digest("a text"), ROWS)
SAID = structs.replace(
    example(Receipt), prompt_tokens=3, completion_tokens=40, finish_reason="length", output_text=OURS.text, resumed=0,
    earlier=None, output_tokens=tokens_digest(TOKENS), transcript=OURS.transcript(0),
)  # fmt: skip


def test_the_same_answer_differs_in_nothing() -> None:
    assert difference(SAID, ASKED, TOKENS, OURS) is None


@pytest.mark.parametrize(
    ("ours", "cause", "place"),
    [
        (replace(OURS, tokens=[*TOKENS[:5], 99, *TOKENS[6:]]), Cause.TOKENS, 5),
        (replace(OURS, tokens=TOKENS[:39], finish_reason="stop"), Cause.END, 39),
        (replace(OURS, finish_reason="stop"), Cause.END, 40),
        (replace(OURS, text=said_digest("another")), Cause.TEXT, 0),
        (replace(OURS, prompt_tokens=2), Cause.PROMPT, 0),
        (replace(OURS, rows=ROWS[::-1]), Cause.LOGITS, 0),
    ],
)
def test_the_first_difference_is_named(ours: Computed, cause: Cause, place: int) -> None:
    found = difference(SAID, ASKED, TOKENS, ours)
    assert found is not None
    assert (cause, place) == (found.cause, found.place)


def test_a_worker_that_says_it_was_given_other_tokens_is_found_out() -> None:
    ours = replace(OURS, rows=ROWS[:1])
    said = structs.replace(SAID, resumed=20, earlier=tokens_digest(TOKENS[:20]), transcript=ours.transcript(20))
    assert difference(said, ASKED, TOKENS, ours) is None
    for lie in (structs.replace(said, earlier=tokens_digest(TOKENS[:19])), structs.replace(said, earlier=None)):
        found = difference(lie, ASKED, TOKENS, ours)
        assert found is not None
        assert "says it was given" in found.words


def test_a_worker_that_counts_more_tokens_than_there_are_is_found_out() -> None:
    """Who pays is billed by this number; a gateway in league with the worker would not mind."""
    found = difference(structs.replace(SAID, completion_tokens=80), ASKED, TOKENS, OURS)
    assert found is not None
    assert (Cause.END, 40) == (found.cause, found.place)
    assert "and the worker counts 80" in found.words


def test_an_answer_ends_for_its_length_only_where_that_was_asked_for_or_left_to_the_context() -> None:
    short = replace(OURS, tokens=TOKENS[:33], rows=ROWS)
    said = structs.replace(SAID, transcript=short.transcript(0), completion_tokens=33)
    found = difference(said, ASKED, TOKENS[:33], short)
    assert found is not None
    assert found.cause is Cause.END
    assert difference(said, structs.replace(ASKED, fit=True), TOKENS[:33], short) is None
