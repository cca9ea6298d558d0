from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from haif.base import limits
from haif.base.ids import Nonce
from haif.base.sampling import Sampling
from haif.protocol.inference import Request, Turn
from haif.protocol.prefixes import are_tags, prefix_tags

SYSTEM = Turn("system", "You bake bread. " * 20)
TALK = [SYSTEM, Turn("user", "which flour?"), Turn("assistant", "rye"), Turn("user", "how long?")]


def request(chat: list[Turn] | None = None, text: str | None = None, **changes: Any) -> Request:
    fields: dict[str, Any] = {"scope": b"a tenant's", "suffix": None} | changes
    return Request(Nonce(bytes(16)), chat, text, 10, Sampling(), [], **fields)


def test_a_conversation_that_goes_on_has_the_tags_it_had_and_more() -> None:
    before, after = prefix_tags(request(TALK[:2])), prefix_tags(request(TALK))
    assert before == after[:2]
    assert len(set(after)) == 4


def test_another_question_after_the_same_beginning_shares_just_that() -> None:
    other = [SYSTEM, Turn("user", "which salt?")]
    assert [True, False] == [
        a == b for a, b in zip(prefix_tags(request(TALK)), prefix_tags(request(other)), strict=False)
    ]


def test_texts_that_begin_alike_share_the_tags_of_what_is_alike() -> None:
    one, other = (prefix_tags(request(text="the same " * 200 + end)) for end in ("one", "other"))
    assert (2, 3) == (sum(tag in other for tag in one), len(one))


def test_tags_tell_nobody_anything_without_the_scope() -> None:
    assert not set(prefix_tags(request(TALK))) & set(prefix_tags(request(TALK, scope=b"another's")))
    assert [] == prefix_tags(request(TALK, scope=b""))


def test_what_is_short_or_to_be_filled_in_has_none() -> None:
    assert [] == prefix_tags(request([Turn("user", "hello")]))
    assert [] == prefix_tags(request(text="x" * 1000, suffix="y"))


def test_a_role_cannot_pass_for_content() -> None:
    assert prefix_tags(request([Turn("user", "x" * 300)])) != prefix_tags(request([Turn("use", "r" + "x" * 300)]))


@given(st.integers(1, 40))
def test_the_tags_of_a_long_conversation_are_few_its_beginning_and_its_end_among_them(turns: int) -> None:
    chat = [Turn("user", "x" * 300 + str(number)) for number in range(turns)]
    tags = prefix_tags(request(chat))
    assert min(turns, limits.PREFIX_TAGS_MAX) == len(tags)
    assert are_tags(tags, limits.PREFIX_TAGS_MAX)
    assert prefix_tags(request(chat[:1])) == tags[:1]
    assert tags[-1] not in prefix_tags(request(chat[:-1]))
