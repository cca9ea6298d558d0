"""The core with a model that counts: after token n comes n + 1; 9 ends."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base import limits
from haif.base.errors import ContextTooLong, InvalidRequest, Overloaded
from haif.base.ids import JobId, Seed
from haif.base.sampling import Sampling
from haif.engine.core import Core
from haif.engine.frames import Refused
from haif.engine.request import Generate


class Counting:
    size = 10
    apart = False

    def __init__(self):
        self.cells = {}
        self.batches = []

    def decode(self, spans, adapter=None):
        rows = []
        for slot, start, tokens, due in spans:
            cells = self.cells.setdefault(slot, [])
            assert start == len(cells), "tokens are computed in order and once"
            cells.extend(tokens)
            rows += [np.eye(10, dtype=np.float32)[(token + 1) % 10] for token in tokens[len(tokens) - due :]]
        self.batches.append([(slot, len(tokens)) for slot, _, tokens, _ in spans])
        return np.array(rows, np.float32).reshape(-1, 10)

    def forget(self, slot):
        self.cells.pop(slot, None)

    def keep(self, slot, count):
        del self.cells[slot][count:]
        return True

    def copy(self, source, target):
        self.cells[target] = list(self.cells[source])

    def piece(self, token):
        return str(token).encode()

    def ends(self, token):
        return token == 9

    def grammar(self, schema):
        return Even()


class Even:
    """Rules under which only even tokens may come, and nothing after 6."""

    def allows(self, token):
        return token % 2 == 0

    def masked(self, z):
        return np.where(np.arange(10) % 2, -np.inf, z)

    def accept(self, token):
        if token == 6 or token % 2:
            raise InvalidRequest("nothing fits after 6")


def request(
    tokens_max=20, stop=(), logprobs=None, scope=b"", json_schema=None, fit=False, resumed=(), draft=(), **options
):
    return Generate(
        JobId(bytes(16)), None, "-", tokens_max, Sampling(0.0, **options), list(stop), Seed(bytes(32)),
        logprobs=logprobs, scope=scope, json_schema=json_schema, fit=fit, resumed=list(resumed),
        draft=list(draft),
    )  # fmt: skip


def core(slots=2, context=600):
    model = Counting()
    return Core(model, slots=slots, context_tokens=context), model


def run(core, steps=1000):
    found = {}
    ends = {}
    for _ in range(steps):
        if not core.busy:
            break
        for output in core.step(lambda: 0).outputs:
            tokens, text = found.get(output.number, ([], ""))
            found[output.number] = (tokens + output.tokens, text + output.text)
            if output.end:
                ends[output.number] = (output.end.finish_reason, output.end.prompt_tokens, output.end.completion_tokens)
    return found, ends


def test_the_token_that_ends_is_counted_and_has_no_text():
    engine, model = core()
    engine.submit(5, request(), [3, 4], 0)
    assert ({5: ([5, 6, 7, 8, 9], "5678")}, {5: ("stop", 2, 5)}) == run(engine)
    assert {} == model.cells


TRUE = [5, 6, 7, 8, 9]


@given(
    draft=st.lists(st.integers(0, 9), max_size=20) | st.integers(0, 5).map(lambda count: TRUE[:count]),
    slots=st.integers(1, 3),
)
def test_whatever_is_drafted_the_answer_is_the_same(draft, slots):
    engine, model = core(slots=slots)
    engine.submit(4, request(), [0, 1], 0)
    engine.submit(5, request(draft=draft), [3, 4], 0)
    found, ends = run(engine)
    assert (TRUE, "5678") == found[5]
    assert ("stop", 2, 5) == ends[5]
    assert ([2, *range(3, 10)], "2345678") == found[4]
    assert {} == model.cells


def test_a_draft_that_is_right_takes_as_many_steps_as_it_takes_to_read_it():
    engine, model = core()
    engine.submit(5, request(draft=TRUE), [3, 4], 0)
    assert ({5: (TRUE, "5678")}, {5: ("stop", 2, 5)}) == run(engine)
    assert 1 == len(model.batches)


def test_a_long_draft_is_read_in_pieces():
    engine, model = core()
    model.ends = lambda token: False
    engine.submit(5, request(60, draft=[place % 10 for place in range(5, 65)]), [3, 4], 0)
    assert {5: ("length", 2, 60)} == run(engine)[1]
    pieces = [length for ((_, length),) in model.batches]
    assert [2 + limits.DRAFT_TOKENS_AHEAD, *[1 + limits.DRAFT_TOKENS_AHEAD] * 2] == pieces[:3]
    assert 4 == len(pieces)


def test_a_draft_of_tokens_that_do_not_exist_is_refused():
    with pytest.raises(InvalidRequest, match="draft"):
        core()[0].submit(5, request(draft=[10]), [3, 4], 0)


def test_an_answer_ends_at_its_length():
    engine, _ = core()
    engine.submit(5, request(3), [0], 0)
    assert ({5: ([1, 2, 3], "123")}, {5: ("length", 1, 3)}) == run(engine)


def test_a_stop_string_across_tokens_is_cut_and_its_tokens_are_counted():
    engine, _ = core()
    engine.submit(5, request(stop=["45"]), [1], 0)
    assert ({5: ([2, 3, 4, 5], "23")}, {5: ("stop", 1, 4)}) == run(engine)


def test_text_withheld_for_a_stop_string_that_never_came_is_given_at_the_end():
    engine, _ = core()
    engine.submit(5, request(3, stop=["35"]), [0], 0)
    assert ({5: ([1, 2, 3], "123")}, {5: ("length", 1, 3)}) == run(engine)


def test_where_all_sequences_pay_for_the_longest_prompts_are_computed_apart():
    engine, model = core()
    model.apart = True
    engine.submit(1, request(9), [0], 0)
    engine.step(lambda: 0)
    engine.submit(2, request(3), [0] * 500, 0)
    run(engine, 3)
    assert [[(0, 1)], [(0, 1)], [(1, 256)], [(0, 1)], [(1, 244)], [(0, 1), (1, 1)]] == model.batches


def test_beside_running_answers_a_prompt_gets_its_share_of_the_cost_and_no_more():
    engine, model = core(slots=17, context=4000)
    spent = 0

    def cost():  # asked before and after each batch
        nonlocal spent
        spent += 1000 * sum(length for _, length in model.batches[-1]) if model.batches else 0
        return spent

    for number in range(16):
        engine.submit(number, request(3000, bias=[(9, -100.0)]), [0], 0)
    for _ in range(4):
        engine.step(lambda: 0, cost)
    engine.submit(17, request(3), [0] * 500, 0)
    while len(model.batches[-1]) < 17 or model.batches[-1][-1][1] > 1:
        engine.step(lambda: 0, cost)
    chunks = [batch[-1][1] for batch in model.batches[4:-1] if len(batch) == 17]
    assert {12} == set(chunks[1:-1])
    assert 500 == sum(chunks)


def test_a_long_prompt_is_computed_in_chunks_beside_running_answers():
    engine, model = core()
    engine.submit(1, request(9), [0], 0)
    engine.step(lambda: 0)
    engine.submit(2, request(3), [0] * 500, 0)
    run(engine, 3)
    assert [[(0, 1)], [(0, 1), (1, 256)], [(0, 1), (1, 244)], [(0, 1), (1, 1)]] == model.batches


def test_a_waiting_request_takes_the_slot_that_becomes_free():
    engine, _ = core(slots=1)
    engine.submit(1, request(2), [0], 0)
    engine.submit(2, request(2), [5], 0)
    assert {1: ([1, 2], "12"), 2: ([6, 7], "67")} == run(engine)[0]


def test_cancelling_frees_the_slot_before_the_next_step():
    engine, model = core(slots=1)
    engine.submit(1, request(), [0] * 100, 0)
    engine.submit(2, request(2), [5], 0)
    engine.submit(3, request(2), [5], 0)
    engine.step(lambda: 0)
    engine.cancel(1)
    engine.cancel(3)
    assert {} == model.cells
    assert {2: ([6, 7], "67")} == run(engine)[0]


def test_a_batch_has_its_slots_in_order_whoever_came_first():
    engine, model = core(slots=3)
    for number, length in enumerate((1, 9, 9)):
        engine.submit(number, request(length), [0], 0)
    engine.step(lambda: 0)
    engine.submit(3, request(9), [0], 0)
    run(engine, 2)
    assert [(0, 1), (1, 1), (2, 1)] == model.batches[-1]


def test_prompt_and_answer_must_fit_the_context():
    engine, _ = core(context=10)
    engine.submit(1, request(5), [0] * 5, 0)
    with pytest.raises(ContextTooLong, match="context of 10"):
        engine.submit(2, request(5), [0] * 6, 0)


def test_an_answer_without_a_limit_of_its_own_ends_where_the_context_does():
    engine, _ = core(context=10)
    engine.submit(1, request(20, fit=True), [0] * 8, 0)
    assert ({1: ([1, 2], "12")}, {1: ("length", 8, 2)}) == run(engine)
    with pytest.raises(ContextTooLong, match="context of 10"):
        engine.submit(2, request(20, fit=True), [0] * 10, 0)


def test_the_queue_is_bounded():
    engine, _ = core(slots=1)
    for number in range(limits.ENGINE_QUEUE_MAX):
        engine.submit(number, request(), [0], 0)
    with pytest.raises(Overloaded):
        engine.submit(999, request(), [0], 0)


def test_the_time_of_each_phase_is_told():
    engine, _ = core(slots=1)
    ticks = iter(range(100, 1000, 100))
    engine.submit(1, request(2), [0], 30)
    engine.step(lambda: next(ticks))
    end = engine.step(lambda: next(ticks)).outputs[0].end
    assert (70, 100, 200) == (end.queued_ns, end.prefill_ns, end.decode_ns)


def test_logprobs_are_the_models_own_whatever_the_options():
    engine, _ = core()
    engine.submit(1, request(1, logprobs=2, bias=[(7, 100.0)]), [0], 0)
    (output,) = engine.step(lambda: 0).outputs
    ((chosen, first, second),) = output.scores
    total = np.log(np.e + 9)
    assert ([7], 7, 1, 0) == (output.tokens, chosen.token, first.token, second.token)
    assert [0 - total, 1 - total, 0 - total] == pytest.approx([chosen.logprob, first.logprob, second.logprob])
    assert (b"7", b"1", b"0") == (chosen.piece, first.piece, second.piece)


def test_nobody_gets_logprobs_who_did_not_ask():
    engine, _ = core()
    engine.submit(1, request(1), [0], 0)
    engine.submit(2, request(1, logprobs=0), [0], 0)
    assert [0, 1] == [len(output.scores) for output in engine.step(lambda: 0).outputs]


def test_a_bias_beyond_the_vocabulary_is_refused():
    engine, _ = core()
    with pytest.raises(InvalidRequest, match="10 tokens"):
        engine.submit(1, request(bias=[(10, 1.0)]), [0], 0)


def test_a_repeat_penalty_counts_the_prompt_too():
    engine, _ = core()
    engine.submit(1, request(1, repeat_penalty=2.0, bias=[(5, 0.75)]), [1, 0], 0)
    assert [5] == engine.step(lambda: 0).outputs[0].tokens  # 1 would follow 0, had it not been said before


# --- what was computed before -----------------------------------------------------------------------------------------


def computed(model):
    """How many tokens each batch since the last look computed."""
    batches, model.batches = model.batches, []
    return [sum(length for _, length in batch) for batch in batches]


def cached(engine):
    ends = []
    while engine.busy:
        ends += [output.end for output in engine.step(lambda: 0).outputs if output.end]
    return [end.cached_tokens for end in ends]


def test_a_conversation_goes_on_from_its_cells():
    engine, model = core(slots=2)
    engine.submit(1, request(3, scope=b"a"), [1] * 50, 0)
    assert [0] == cached(engine)
    computed(model)
    engine.submit(2, request(2, scope=b"a"), [*[1] * 50, 2, 3, 4, 5, 6], 0)
    assert [52] == cached(engine)  # the last token of the first answer was sampled, and not computed
    assert [3, 1] == computed(model)
    assert [*[1] * 50, 2, 3, 4, 5, 6, 7] == model.cells[0]


def test_another_scope_computes_everything_itself_and_nothing_of_it_is_left():
    engine, model = core(slots=1)
    engine.submit(1, request(3, scope=b"a"), [1] * 50, 0)
    cached(engine)
    engine.submit(2, request(3, scope=b"b"), [1] * 50, 0)
    engine.submit(3, request(3), [1] * 50, 0)
    assert [0, 0] == cached(engine)
    assert {} == model.cells


def test_a_beginning_that_is_being_computed_is_copied_as_far_as_it_is():
    engine, _ = core(slots=2)
    engine.submit(1, request(9, scope=b"a"), [1] * 500, 0)
    engine.step(lambda: 0)
    engine.submit(2, request(2, scope=b"a"), [1] * 500, 0)
    assert [256, 0] == cached(engine)


def test_a_model_that_cannot_cut_cells_computes_all_of_them():
    engine, model = core(slots=1)
    model.keep = lambda slot, count: model.forget(slot)
    engine.submit(1, request(3, scope=b"a"), [1] * 50, 0)
    engine.submit(2, request(3, scope=b"a"), [1] * 50, 0)
    assert [0, 0] == cached(engine)


def test_scopes_take_turns_when_slots_are_short():
    engine, _ = core(slots=2)
    for number in range(4):
        engine.submit(number, request(2, scope=b"a"), [number], 0)
    engine.submit(9, request(2, scope=b"b"), [7], 0)
    engine.step(lambda: 0)
    assert {0, 9} == {output.number for output in engine.step(lambda: 0).outputs}


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"", b"a", b"b"]), st.lists(st.integers(0, 2), min_size=1, max_size=200),
            st.integers(1, 5), st.booleans(),
        ),
        min_size=1, max_size=25,
    ),
    st.integers(1, 4),
)  # fmt: skip
def test_whatever_is_reused_answers_are_those_of_an_empty_engine(asked, slots):
    """The model counts from its last token, and asserts that every cell is computed once and in order."""
    engine, _ = core(slots=slots)
    found = {}

    def take(outputs):
        for output in outputs:
            found[output.number] = found.get(output.number, []) + output.tokens

    for number, (scope, prompt, tokens_max, hangs_up) in enumerate(asked):
        engine.submit(number, request(tokens_max, scope=scope), list(prompt), 0)
        if hangs_up:
            take(engine.step(lambda: 0).outputs)
            engine.cancel(number)
    while engine.busy:
        take(engine.step(lambda: 0).outputs)
    for number, (_, prompt, tokens_max, hangs_up) in enumerate(asked):
        if not hangs_up:
            assert [(prompt[-1] + 1 + place) % 10 for place in range(tokens_max)] == found[number]
    assert not engine.busy


# --- schemas ----------------------------------------------------------------------------------------------------------


def test_an_answer_stays_within_its_schema_and_ends_with_a_refusal_where_it_cannot():
    engine, _ = core()
    engine.submit(1, request(json_schema="{}"), [5], 0)
    engine.submit(2, request(3), [5], 0)
    step = engine.step(lambda: 0)
    assert [2] == [output.number for output in step.outputs]
    assert [Refused(1, "invalid_request", "nothing fits after 6", None)] == step.refused
    assert 1 == step.running
    engine.submit(3, request(2, json_schema="{}"), [0], 0)
    assert ([0, 0], "00") == run(engine)[0][3]


# --- resumed ----------------------------------------------------------------------------------------------------------


def test_a_resumed_answer_tells_what_it_was_given_and_goes_on_after_it():
    at, model = core()
    at.submit(0, request(5, resumed=[2, 3]), [0, 1], 0)
    first = at.step(lambda: 1)
    assert [([2, 3], "23", None)] == [(out.tokens, out.text, out.end) for out in first.retold]
    assert [[4]] == [out.tokens for out in first.outputs]
    assert [0, 1, 2, 3] == model.cells[0]
    at.step(lambda: 2)
    (last,) = at.step(lambda: 3).outputs
    assert ("length", 2, 5) == (last.end.finish_reason, last.end.prompt_tokens, last.end.completion_tokens)
    assert not at.busy


@pytest.mark.parametrize(
    ("given", "options", "text", "reason"),
    [
        ([2, 3], {"tokens_max": 2}, "23", "length"),
        ([8, 9], {}, "8", "stop"),
        ([2, 3, 4], {"stop": ["34"]}, "2", "stop"),
    ],
)  # fmt: skip
def test_an_answer_that_was_over_is_ended_without_computing(given, options, text, reason):
    at, model = core()
    at.submit(0, request(resumed=given, **options), [0, 1], 7)
    assert at.busy
    step = at.step(lambda: 9)
    (told,) = step.retold
    assert (given, text, reason) == (told.tokens, told.text, told.end.finish_reason)
    assert len(given) == told.end.completion_tokens
    assert [] == model.batches == step.outputs
    assert not at.busy


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ([9, 3], {}),  # it was over with the first
        ([3, 4, 5], {"stop": ["34"]}),
        ([10], {}),
        ([-1], {}),
        ([2, 3], {"json_schema": "{}"}),  # the schema has only even ones
    ],
)
def test_what_cannot_be_the_beginning_of_the_answer_is_refused(given, options):
    at, _ = core()
    with pytest.raises(InvalidRequest) as caught:
        at.submit(0, request(resumed=given, **options), [0, 1], 0)
    assert "resumed" == caught.value.param
    assert not at.busy


def test_a_resumed_answer_that_is_cancelled_says_nothing():
    at, _ = core()
    at.submit(0, request(resumed=[2]), [0, 1], 0)
    at.cancel(0)
    assert not at.busy


def test_what_a_resumed_answer_takes_over_counts_only_as_far_as_its_prompt():
    at, _ = core(slots=1)
    at.submit(0, request(4, scope=b"a"), [0, 1], 0)
    while at.busy:
        at.step(lambda: 1)
    at.submit(1, request(5, scope=b"a", resumed=[2, 3]), [0, 1], 0)
    ends = []
    while at.busy:
        ends += [out.end for out in at.step(lambda: 1).outputs if out.end]
    assert [1] == [end.cached_tokens for end in ends]
