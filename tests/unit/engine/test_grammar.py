"""Schemas over a vocabulary of single letters, a few words, and one token that ends."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base.errors import InvalidRequest
from haif.base.ids import Seed
from haif.base.sampling import Sampling
from haif.engine.grammar import Grammars
from haif.engine.sampler import Sampler

END = 0


class Letters:
    words = (
        b"<end>",
        b"<turn>",
        *(bytes([byte]) for byte in range(1, 256)),
        b'{"',
        b'":',
        b"true",
        b"  ",
        "é".encode(),
    )
    size = len(words)
    controls = frozenset({0, 1})
    ending = frozenset({END})

    def spelled(self, token):
        return self.words[token]

    def tokenise(self, text, *, special):
        return [byte + 1 for byte in text.encode()]


GRAMMARS = Grammars(Letters())
PERSON = {
    "type": "object", "additionalProperties": False, "required": ["name", "age"],
    "properties": {"name": {"enum": ["ann", "bob"]}, "age": {"type": "integer", "minimum": 0, "maximum": 120}},
}  # fmt: skip


def answer(schema, seed=0, options=None, most=400):
    """What a model without any preference says under a schema, and whether it came to its end."""
    sampler = Sampler(Seed(seed.to_bytes(32, "big")), options or Sampling())
    grammar = GRAMMARS.compile(json.dumps(schema))
    said = b""
    for t in range(most):
        token = sampler.choose(np.zeros(Letters.size, np.float32), t, grammar)
        if token == END:
            return said.decode(), True
        assert token not in Letters.controls
        said += Letters.words[token]
    return said.decode(errors="ignore"), False


@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.5, 2.0]), st.sampled_from([1.0, 0.5]), st.sampled_from([0, 3]))
def test_whatever_a_model_would_say_the_answer_fits_the_schema(seed, temperature, top_p, top_k):
    text, ended = answer(PERSON, seed, Sampling(temperature, top_p, top_k))
    assert ended
    person = json.loads(text)
    assert set(person) == {"name", "age"}
    assert person["name"] in {"ann", "bob"}
    assert 0 <= person["age"] <= 120


@pytest.mark.parametrize("seed", range(5))
def test_any_object_is_json_whose_strings_hold_no_raw_control_characters(seed):
    text, ended = answer({"type": "object"}, seed, Sampling(bias=[(ord("}") + 1, 4.0), (ord('"') + 1, 4.0)]), most=4000)
    if ended:
        assert isinstance(json.loads(text), dict)
    assert not any(character < " " and character not in "\n\t" for character in text)


def test_a_token_that_fits_is_the_one_chosen_without_the_schema():
    z = np.zeros(Letters.size, np.float32)
    z[ord("{") + 1] = 50.0
    plain, bound = Sampler(Seed(bytes(32)), Sampling()), Sampler(Seed(bytes(32)), Sampling())
    assert plain.choose(z, 0) == bound.choose(z, 0, GRAMMARS.compile('{"type":"object"}'))


def test_a_schema_no_text_of_the_vocabulary_can_fit_is_refused():
    class Few(Letters):
        words = (b"<end>", b"<turn>", b"a", b"b")
        size = 4

        def tokenise(self, text, *, special):
            return []

    grammar = Grammars(Few()).compile('{"type":"object"}')
    with pytest.raises(InvalidRequest, match="cannot be honoured"):
        Sampler(Seed(bytes(32)), Sampling()).choose(np.zeros(4, np.float32), 0, grammar)


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ("{}}", "column"), ("", "column"), ('{"type":"wibble"}', "wibble"), ('{"$ref":"#/x"}', "does not exist"),
        ('{"$ref":"https://example.org/s.json"}', "not"), ('{"not":{"type":"string"}}', "not"),
        ('{"type":"array","uniqueItems":true}', "uniqueItems"), ('{"type":"string","pattern":"("}', "regex"),
        ("false", "object"), ("[]", "object"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_in_a_schema_is_refused_with_the_reason(schema, why):
    with pytest.raises(InvalidRequest, match="cannot be honoured") as refused:
        GRAMMARS.compile(schema)
    assert why in refused.value.message
    assert "response_format" == refused.value.param


@pytest.mark.parametrize(
    "schema",
    [
        {"multipleOf": 62_615_533}, {"multipleOf": 0.00001, "x": {"multipleOf": 7}}, {"multipleOf": 1e-300},
        {"allOf": [{"multipleOf": 997}, {"multipleOf": 991}]}, {"multipleOf": 0}, {"multipleOf": -1},
        {"multipleOf": 1e999}, {"multipleOf": float("nan")},
        {"properties": {"a": [{"multipleOf": 9973}, {"multipleOf": 0.5}]}},
    ],
)  # fmt: skip
def test_multiples_that_would_keep_the_compiler_busy_are_refused(schema):
    with pytest.raises(InvalidRequest, match="multipleOf"):
        GRAMMARS.compile(json.dumps({"type": "object", "properties": {"a": schema}}))


def test_multiples_that_people_use_are_honoured():
    schema = {"type": "object", "properties": {"a": {"type": "number", "multipleOf": 0.01},
              "b": {"type": "integer", "multipleOf": 25}, "multipleOf": {"type": "integer"}}}  # fmt: skip
    assert GRAMMARS.compile(json.dumps(schema)).allows(ord("{") + 1)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["type", "properties", "items", "enum", "const", "anyOf", "allOf", "$ref", "pattern", "a",
                         "minLength", "maxItems", "required", "minimum", "format"]) | st.text(max_size=3),
        inner, max_size=4),
    max_leaves=12,
))  # fmt: skip
def test_any_json_is_a_schema_or_refused(schema):
    try:
        grammar = GRAMMARS.compile(json.dumps(schema))
    except InvalidRequest:
        return
    grammar.masked(np.zeros(Letters.size, np.float32))
