"""Every message that crosses a wire has golden bytes, a fuzz strategy and a hostile sender."""

import ast
import json

import pytest

from tests.fuzz.doors import DOORS
from tests.fuzz.registry import HOSTILE, ROOT, VECTORS, all_messages, conversations, golden
from tests.fuzz.values import messages_in

CONVERSATIONS = conversations()
BYTES = json.loads(VECTORS.read_text())


def test_every_message_type_is_said_somewhere() -> None:
    """A new type that fails here belongs to no method, frame, record, datagram, evidence or handshake yet."""
    said = set().union(*(messages_in(root) for conversation in CONVERSATIONS.values() for root in conversation.roots))
    assert set() == {f"{kind.__module__}.{kind.__name__}" for kind in all_messages() - said}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_every_message_has_golden_bytes(name: str) -> None:
    """`python -m tests.fuzz.registry > tests/vectors/messages.json` writes them anew, if the protocol is to change."""
    assert BYTES.get(name) == CONVERSATIONS[name].golden().hex()


def test_no_golden_bytes_are_left_over() -> None:
    assert sorted(BYTES) == sorted(golden())


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_every_message_has_a_fuzz_strategy(name: str) -> None:
    """The door in `tests/fuzz/doors.py` through which it comes in."""
    assert CONVERSATIONS[name].door in DOORS


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_every_message_has_a_hostile_sender(name: str) -> None:
    """Named in `tests/fuzz/registry.py`: a test in which its sender lies."""
    assert name in HOSTILE
    path, _, test = HOSTILE[name].partition("::")
    functions = {
        node.name
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert test in functions


def test_no_hostile_sender_is_left_over() -> None:
    assert sorted(HOSTILE) == sorted(CONVERSATIONS)
