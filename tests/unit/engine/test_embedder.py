"""Inputs take turns by tokens, in batches that fit, and each gets its own vector."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base import limits
from haif.base.errors import ContextTooLong, InvalidRequest, Overloaded, Unsupported
from haif.base.ids import JobId
from haif.base.tasks import Task
from haif.base.vectors import is_sound, numbers_of
from haif.engine.embed import Embed
from haif.engine.embedder import Embedder, finished

CONTEXT = 32


class Counting:
    """A model whose vector of an input is its first token and its length; `jealous`: not the same beside others."""

    size, dimensions, matryoshka = 1000, 2, (1,)

    def __init__(self, *, jealous=False, drifting=False):
        self.batches = []
        self.jealous, self.drifting = jealous, drifting

    def vectors(self, inputs):
        assert sum(map(len, inputs)) <= CONTEXT
        self.batches.append([each[0] for each in inputs])
        noise = (len(inputs) > 1) * self.jealous + len(self.batches) * self.drifting
        return [np.array([each[0] + noise, len(each)], np.float32) for each in inputs]


def asked(count=1, *, scope=b"", dimensions=None, query=None):
    return Embed(JobId(bytes(16)), query, ["x"] * count, None, dimensions, scope)


def drained(embedder, clock=lambda: 7):
    batches = []
    while embedder.busy:
        batches.append(embedder.step(clock))
    return batches


def work(embedder, number, *inputs, **options):
    embedder.submit(number, asked(len(inputs), **options), list(inputs), 0)


def test_the_self_test_finds_batches_that_keep_the_bits_and_takes_the_largest_one():
    model = Counting()
    embedder = Embedder(model, slots=8, context_tokens=CONTEXT)
    assert embedder.alike(wanted=True)
    assert max(map(len, model.batches)) > 1
    for number in range(4):
        work(embedder, number, [number + 1] * 5)
    assert [4] == [len(batch.parts) for batch in drained(embedder)]


def test_where_neighbours_change_the_bits_every_input_is_computed_alone():
    embedder = Embedder(Counting(jealous=True), slots=8, context_tokens=CONTEXT)
    assert embedder.alike(wanted=True)
    for number in range(4):
        work(embedder, number, [number + 1] * 5)
    assert [1, 1, 1, 1] == [len(batch.parts) for batch in drained(embedder)]


def test_where_bits_may_vary_nothing_is_claimed_and_batches_stay():
    embedder = Embedder(Counting(jealous=True), slots=8, context_tokens=CONTEXT)
    assert not embedder.alike(wanted=False)
    for number in range(4):
        work(embedder, number, [number + 1] * 5)
    assert [4] == [len(batch.parts) for batch in drained(embedder)]


def test_a_model_that_does_not_repeat_itself_is_not_found_exact():
    assert not Embedder(Counting(drifting=True), slots=8, context_tokens=CONTEXT).alike(wanted=True)


def test_a_tenant_with_one_input_does_not_wait_for_one_with_many():
    embedder = Embedder(Counting(), slots=1, context_tokens=CONTEXT)
    work(embedder, 0, *[[n + 1] * 8 for n in range(100)], scope=b"many")
    embedder.step(lambda: 1)
    work(embedder, 1, [500] * 8, scope=b"one")
    work(embedder, 2, [600] * 8, scope=b"another")
    after = [part.number for _ in range(4) for part in embedder.step(lambda: 1).parts]
    assert {1, 2} <= set(after)
    assert 100 + 2 - 1 - 4 == sum(len(batch.parts) for batch in drained(embedder))


def test_who_comes_late_has_no_claim_on_the_past():
    embedder = Embedder(Counting(), slots=1, context_tokens=CONTEXT)
    work(embedder, 0, *[[1] * 8] * 20, scope=b"a")
    for _ in range(10):
        embedder.step(lambda: 1)
    work(embedder, 1, *[[2] * 8] * 20, scope=b"b")
    turns = [embedder.step(lambda: 1).parts[0].number for _ in range(10)]
    assert 5 == turns.count(0) == turns.count(1)


@given(
    st.lists(st.tuples(st.binary(max_size=1), st.lists(st.integers(1, CONTEXT), min_size=1, max_size=9)), max_size=12),
    st.integers(1, 8),
)
def test_every_input_gets_its_own_vector_in_order_and_nothing_is_left(jobs, slots):
    embedder = Embedder(Counting(), slots=slots, context_tokens=CONTEXT)
    expected = {}
    for number, (scope, lengths) in enumerate(jobs):
        inputs = [[1 + 10 * number + place] * length for place, length in enumerate(lengths)]
        expected[number] = [finished(np.array([i[0], len(i)], np.float32), Task.EMBED, None) for i in inputs]
        work(embedder, number, *inputs, scope=scope)
    found, ends = {}, {}
    for batch in drained(embedder):
        assert 0 < batch.batch_tokens <= CONTEXT
        assert len(batch.parts) <= slots
        for part in batch.parts:
            assert len(found.setdefault(part.number, [])) == part.place
            found[part.number].append(part.vector)
            if part.end:
                ends[part.number] = part.end.prompt_tokens
    assert expected == found
    assert {number: sum(lengths) for number, (_, lengths) in enumerate(jobs)} == ends
    assert not embedder._served


def test_a_cancelled_request_is_computed_no_further():
    embedder = Embedder(Counting(), slots=1, context_tokens=CONTEXT)
    work(embedder, 0, *[[1] * 8] * 50)
    embedder.step(lambda: 1)
    embedder.cancel(0)
    embedder.cancel(5)
    assert not embedder.busy


def test_an_input_that_makes_no_vector_ends_its_own_request_only():
    class Poisoned(Counting):
        def vectors(self, inputs):
            return [row if row[0] != 13 else row * np.float32("nan") for row in super().vectors(inputs)]

    embedder = Embedder(Poisoned(), slots=8, context_tokens=CONTEXT)
    work(embedder, 0, [1] * 3, [13] * 3, [2] * 3)
    work(embedder, 1, [3] * 3)
    (batch,) = drained(embedder)
    assert [(0, 0), (1, 0)] == [(part.number, part.place) for part in batch.parts]
    assert [(0, "unsupported")] == [(refused.number, refused.reason) for refused in batch.refused]


@pytest.mark.parametrize(
    ("inputs", "options", "error", "param"),
    [
        ([[1] * (CONTEXT + 1)], {}, ContextTooLong, "input"), ([[]], {}, InvalidRequest, "input"),
        ([[1000]], {}, InvalidRequest, "input"), ([[1]], {"dimensions": 3}, Unsupported, "dimensions"),
        ([[1], [1] * 99], {"query": "q"}, ContextTooLong, "documents"),
    ],
)  # fmt: skip
def test_what_cannot_be_computed_is_refused_by_name(inputs, options, error, param):
    embedder = Embedder(Counting(), slots=1, context_tokens=CONTEXT)
    with pytest.raises(error) as caught:
        work(embedder, 0, *inputs, **options)
    assert param == caught.value.param
    assert not embedder.busy


def test_the_tokens_of_a_request_are_bounded(monkeypatch):
    monkeypatch.setattr(limits, "EMBEDDING_TOKENS_MAX", 10)
    with pytest.raises(InvalidRequest, match="11 tokens"):
        work(Embedder(Counting(), slots=1, context_tokens=CONTEXT), 0, [1] * 6, [1] * 5)


def test_the_queue_is_bounded():
    embedder = Embedder(Counting(), slots=2, context_tokens=CONTEXT)
    for number in range(2 + limits.ENGINE_QUEUE_MAX):
        work(embedder, number, [1])
    with pytest.raises(Overloaded):
        work(embedder, 99, [1])


def test_a_shorter_vector_is_the_beginning_made_one_long():
    row = np.array([3, 4, 12], np.float32)
    assert np.allclose([0.6, 0.8], numbers_of(finished(row, Task.EMBED, 2)))
    assert is_sound(finished(row, Task.EMBED, None), unit=True)
    assert [3.0] == numbers_of(finished(row, Task.RERANK, None))
    assert finished(np.zeros(3, np.float32), Task.EMBED, None) is None
    assert finished(np.array([np.inf], np.float32), Task.RERANK, None) is None
