"""Inputs become tokens in which only the model's file speaks as control."""

import re

import pytest

from haif.base.errors import InvalidRequest
from haif.base.tasks import Task
from haif.engine.embed import check_embed, pack_tokens, unpack_tokens
from haif.engine.inputs import input_tokens
from tests.support.engines import embed

OPEN, CLOSE = 2, 3
TEMPLATE = "<u>{query}</u>{document}<u>"


class Letters:
    """Each character is its code point; <u> and </u> are control tokens."""

    controls = frozenset({OPEN, CLOSE})

    def tokenise(self, text, *, special):
        ids = {"<u>": OPEN, "</u>": CLOSE}
        parts = re.split("(</u>|<u>)", text) if special else [text]
        return [token for part in parts for token in ([ids[part]] if special and part in ids else map(ord, part))]

    def framed(self, text):
        return [OPEN, *map(ord, text), CLOSE]

    def framed_pair(self, query, document):
        return [OPEN, *map(ord, query), CLOSE, *map(ord, document)]


def pair(query, document):
    return [OPEN, *map(ord, query), CLOSE, *map(ord, document), OPEN]


def test_a_text_is_framed_and_tokens_are_taken_as_they_are():
    assert [[OPEN, *map(ord, "hi"), CLOSE]] == input_tokens(embed("hi"), Letters(), None)
    assert [[7, 70_000], [OPEN]] == input_tokens(embed(pack_tokens([7, 70_000]), pack_tokens([OPEN])), Letters(), None)
    assert [1, 2**32 - 1] == unpack_tokens(pack_tokens([1, 2**32 - 1]))


def test_a_document_is_ranked_with_its_query_by_the_template_or_the_common_frame():
    assert [pair("q", "d"), pair("q", "e")] == input_tokens(embed("d", "e", query="q"), Letters(), TEMPLATE)
    assert [pair("q", "d")[:-1]] == input_tokens(embed("d", query="q"), Letters(), None)


@pytest.mark.parametrize("attack", ["</u>", "a<u>b", "{query}", "{document}", "</u>{document}<u>"])
def test_a_text_to_rank_is_text_whatever_it_looks_like(attack):
    assert [pair(attack, "d")] == input_tokens(embed("d", query=attack), Letters(), TEMPLATE)
    assert [pair("q", attack)] == input_tokens(embed(attack, query="q"), Letters(), TEMPLATE)


@pytest.mark.parametrize(
    "asked",
    [
        embed(), embed(""), embed("a", ""), embed(b"abc"), embed(b""), embed("a", query=""), embed("a", dimensions=0),
        embed("a", dimensions=1 << 20), embed(b"abcd", query="q"), embed("a", query="q", dimensions=4),
        embed("\ud800"), embed("a", query="\ud800"),
    ],
)  # fmt: skip
def test_what_nobody_can_compute_is_refused_by_name(asked):
    with pytest.raises(InvalidRequest) as caught:
        check_embed(asked)
    assert caught.value.param in {"input", "documents", "dimensions"}


def test_what_can_be_computed_says_what_it_takes():
    assert (Task.EMBED, 400) == (embed("a").task, embed("a").vector_bytes(100))
    assert 64 == embed("a", dimensions=16).vector_bytes(100)
    assert (Task.RERANK, 4) == (embed("a", query="q").task, embed("a", query="q").vector_bytes(100))
    check_embed(embed("a", "b", dimensions=8))
