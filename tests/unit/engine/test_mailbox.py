import pytest
from msgspec import structs

from haif.base.errors import EngineDied, Malformed
from haif.base.ids import Digest, JobId, Seed
from haif.base.sampling import Likelihood, Sampling
from haif.engine.frames import End, Output
from haif.engine.mailbox import Mailbox
from haif.engine.request import Finished, Generate, Piece

REQUEST = Generate(JobId(bytes(16)), None, "a", 3, Sampling(0.0), [], Seed(bytes(32)))


ROW = Digest(b"r" * 32)


def last(tokens, text, end, rows=(ROW,)):
    """The last output of a short answer, with the digest of its only window of logits."""
    return Output(0, tokens, text, end, [], list(rows))


def mailbox():
    return Mailbox(REQUEST, vocabulary=100, context_tokens=50, submitted_ns=9)


def test_pieces_come_in_order_and_what_was_not_fetched_is_merged():
    box = mailbox()
    box.put(Output(0, [1], "a", None))
    assert Piece(0, [1], "a", []) == box.take()
    assert box.take() is None
    box.put(Output(0, [2], "", None))
    box.put(last([3], "b", End("length", 4, 3, 1, 2, 3, 0)))
    assert Piece(1, [2, 3], "b", []) == box.take()
    assert Finished("length", 4, 0, 3, 9, 1, 2, 3, (ROW,)) == box.take()
    assert box.take() is None
    assert box.complete


@pytest.mark.parametrize(("prompt", "total"), [(48, 1), (47, 2)])
def test_a_shortened_answer_has_no_more_tokens_than_the_context_leaves(prompt, total):
    box = Mailbox(structs.replace(REQUEST, fit=True), vocabulary=100, context_tokens=50, submitted_ns=9)
    with pytest.raises(Malformed, match="add up"):
        box.put(last([1] * total, "a", End("length", prompt, total, 1, 2, 3, 0)))


def test_a_failure_comes_after_what_arrived_before_it():
    box = mailbox()
    box.put(Output(0, [1], "a", None))
    box.fail(EngineDied("gone"))
    assert Piece(0, [1], "a", []) == box.take()
    with pytest.raises(EngineDied, match="gone"):
        box.take()


def test_a_finished_answer_cannot_fail_any_more():
    box = mailbox()
    box.put(last([1], "a", End("stop", 4, 1, 1, 2, 3, 0)))
    box.fail(EngineDied("gone"))
    assert Piece(0, [1], "a", []) == box.take()
    assert isinstance(box.take(), Finished)


@pytest.mark.parametrize(
    "output",
    [
        Output(0, [1, 2, 3, 4], "", None),
        Output(0, [100], "", None),
        Output(0, [-1], "", None),
        Output(0, [1], "x" * 5000, None),
        last([1], "", End("stop", 4, 2, 1, 2, 3, 0)),
        last([1], "", End("length", 4, 1, 1, 2, 3, 0)),
        last([1], "", End("because", 4, 1, 1, 2, 3, 0)),
        last([1], "", End("stop", 4, 1, 1, 2, 3, 0, stopped_by="never asked")),
        last([1, 2, 3], "", End("length", 4, 3, 1, 2, 3, 0, stopped_by="x")),
        last([1], "", End("stop", 0, 1, 1, 2, 3, 0)),
        last([1], "", End("stop", 51, 1, 1, 2, 3, 0)),
        last([1], "", End("stop", 4, 1, -1, 2, 3, 0)),
        last([1], "", End("stop", 4, 1, 1, 2, 10**18, 0)),
        last([1], "", End("stop", 4, 1, 1, 2, 3, 4)),
        last([1], "", End("stop", 4, 1, 1, 2, 3, -1)),
        last([1], "", End("stop", 4, 1, 1, 2, 3, 0), []),
        last([1], "", End("stop", 4, 1, 1, 2, 3, 0), [ROW] * 2),
    ],
)
def test_claims_that_cannot_be_true_are_malformed(output):
    with pytest.raises(Malformed):
        mailbox().put(output)


def test_nothing_follows_the_end():
    box = mailbox()
    box.put(last([1], "", End("stop", 4, 1, 1, 2, 3, 0)))
    with pytest.raises(Malformed):
        box.put(Output(0, [2], "", None))


def scored(token, logprob=-0.5, *, piece=b"x", others=1):
    return [Likelihood(token, logprob, piece), *([Likelihood(9, -0.7, b"y")] * others)]


def test_scores_come_with_their_tokens():
    box = Mailbox(structs.replace(REQUEST, logprobs=1), vocabulary=100, context_tokens=50, submitted_ns=9)
    box.put(Output(0, [1], "a", None, [scored(1)]))
    box.put(Output(0, [2], "b", None, [scored(2)]))
    assert Piece(0, [1, 2], "ab", [scored(1), scored(2)]) == box.take()


@pytest.mark.parametrize(
    ("asked", "scores"),
    [
        (None, [scored(1)]), (1, []), (1, [[]]), (1, [scored(2)]), (1, [scored(1, others=2)]), (1, [scored(1)] * 2),
        (1, [scored(1, 0.1)]), (1, [scored(1, float("nan"))]), (1, [scored(1, piece=b"x" * 5000)]),
        (1, [[Likelihood(1, -1.0, b""), Likelihood(100, -1.0, b"")]]),
    ],
)  # fmt: skip
def test_scores_that_cannot_be_true_are_malformed(asked, scores):
    box = Mailbox(structs.replace(REQUEST, logprobs=asked), vocabulary=100, context_tokens=50, submitted_ns=9)
    with pytest.raises(Malformed):
        box.put(Output(0, [1], "a", None, scores))


def resumed():
    return Mailbox(structs.replace(REQUEST, resumed=[7, 8]), vocabulary=100, context_tokens=50, submitted_ns=9)


def test_an_answer_that_is_resumed_begins_with_what_it_was_given_and_counts_it():
    box = resumed()
    box.retell(Output(0, [7, 8], "ab", None))
    box.put(last([3], "c", End("length", 4, 3, 1, 2, 3, 0)))
    assert [Piece(0, [7, 8], "ab", []), Piece(2, [3], "c", [])] == [box.take(), box.take()]
    assert 3 == box.take().completion_tokens


def test_an_answer_that_was_over_only_ends():
    box = resumed()
    box.retell(Output(0, [7, 8], "ab", End("stop", 4, 2, 1, 0, 0, 0)))
    assert Piece(0, [7, 8], "ab", []) == box.take()
    assert "stop" == box.take().finish_reason
    assert box.complete


@pytest.mark.parametrize("tokens", [[7], [7, 9], [7, 8, 9], []])
def test_no_other_beginning_is_taken(tokens):
    with pytest.raises(Malformed, match="begin"):
        resumed().retell(Output(0, tokens, "ab", None))
    with pytest.raises(Malformed, match="begin"):
        mailbox().retell(Output(0, tokens, "ab", None))
    with pytest.raises(Malformed, match="begin"):
        resumed().put(Output(0, [1], "a", None))


def test_what_was_given_is_told_once():
    box = resumed()
    box.retell(Output(0, [7, 8], "ab", None))
    with pytest.raises(Malformed, match="begin"):
        box.retell(Output(0, [7, 8], "ab", None))
