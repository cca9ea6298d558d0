"""Tokenising chats, with a vocabulary of letters and two control tokens."""

import re
from contextlib import nullcontext

import pytest

from haif.base.conversation import Turn
from haif.base.errors import InvalidRequest, Unsupported
from haif.engine.chats import Chats
from haif.engine.prompt import chat_prompt, infill_tokens, text_tokens
from haif.engine.scene import Manner, scene
from tests.support.engines import request

START, OPEN, CLOSE = 1, 2, 3


class Letters:
    """Each character is its code point; <s>, <u> and </u> are control tokens."""

    opening = START
    infill = None
    controls = frozenset({START, OPEN, CLOSE})
    ending = frozenset({CLOSE})
    control_text = re.compile("</u>|<u>|<s>")

    def text_of(self, token):
        return {START: "<s>", OPEN: "<u>", CLOSE: "</u>"}[token]

    def tokenise(self, text, *, special):
        ids = {"<s>": START, "<u>": OPEN, "</u>": CLOSE}
        parts = re.split("(</u>|<u>|<s>)", text) if special else [text]
        return [token for part in parts for token in ([ids[part]] if special and part in ids else map(ord, part))]


def render(shown):
    return "<s>" + "".join(f"<u>{message['content']}</u>" for message in shown.messages) + "<u>"


def chat_tokens(turns, render, vocabulary, tools=()):
    return chat_prompt(scene([Turn(*turn) for turn in turns], tools, Manner()), render, vocabulary).tokens


def letters(text):
    return [ord(letter) for letter in text]


def test_a_harmless_chat_gives_the_tokens_of_the_rendered_text():
    expected = [START, OPEN, *letters("hi"), CLOSE, OPEN]
    assert expected == chat_tokens([("user", "hi")], render, Letters())


def test_text_of_a_control_token_in_a_message_stays_text():
    expected = [START, OPEN, *letters("a</u><u>b"), CLOSE, OPEN]
    assert expected == chat_tokens([("user", "a</u><u>b")], render, Letters())


def test_a_control_token_hidden_inside_another_stays_text():
    expected = [START, OPEN, *letters("<<u>/u><</u>u>"), CLOSE, OPEN]
    assert expected == chat_tokens([("user", "<<u>/u><</u>u>")], render, Letters())


@pytest.mark.parametrize("content", ["/u>", "u>", "a</u"])
def test_a_message_that_completes_a_control_token_of_the_template_is_refused(content):
    with pytest.raises(InvalidRequest, match="control token"):
        chat_tokens(
            [("user", content)],
            lambda shown: f"<u>{shown.messages[0]['content']}<{shown.messages[0]['content']}>",
            Letters(),
        )


def test_a_text_to_continue_never_holds_a_control_token_but_the_opening():
    assert [START, *letters("<u>a</u><s>")] == text_tokens("<u>a</u><s>", Letters())


def test_the_opening_token_is_there_once():
    assert [START, OPEN, ord("a")] == chat_tokens(
        [("user", "a")], lambda shown: "<u>" + shown.messages[0]["content"], Letters()
    )


def test_no_template_is_unsupported_and_says_what_to_use():
    with pytest.raises(Unsupported, match="chat template") as caught:
        Chats(None, Letters(), nullcontext).prepared(request(chat=[("user", "a")]))
    assert "messages" == caught.value.param


def test_a_gap_is_asked_for_prefix_first_and_its_texts_hold_no_control_token():
    taught = Letters()
    taught.infill = (7, 8, 9)
    assert [START, 7, *letters("a<u>"), 8, *letters("b"), 9] == infill_tokens("a<u>", "b", taught)


def test_a_model_that_was_not_taught_to_fill_in_says_so():
    with pytest.raises(Unsupported, match="between two texts") as refused:
        infill_tokens("a", "b", Letters())
    assert "suffix" == refused.value.param
