"""The core under any load: a model whose next token depends on every token before, and that counts its cells."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haif.base import limits
from haif.base.ids import Digest, JobId, Seed
from haif.base.sampling import Sampling
from haif.engine.core import Core
from haif.engine.request import Generate
from haif.engine.schedule import batch_tokens_max

SIZE = 16
END = 15
CONTEXT = 64
ADAPTERS = (None, Digest(b"a" * 32), Digest(b"b" * 32))


class Cell:
    def __init__(self, token, adapter):
        self.token = token
        self.adapter = adapter


class Hashing:
    """Cells are objects, so that shared ones count once; a token computed out of place or over capacity fails.

    So does one behind what another adapter computed.
    """

    size = SIZE
    apart = False

    def __init__(self, capacity):
        self.capacity = capacity
        self.cells = {}
        self.batches = []

    def used(self):
        return len({cell for chain in self.cells.values() for cell in chain})

    def decode(self, spans, adapter=None):
        rows = []
        for slot, start, tokens, due in spans:
            chain = self.cells.setdefault(slot, [])
            assert start == len(chain), "tokens are computed in order and once"
            chain += [Cell(token, adapter) for token in tokens]
            assert {adapter} == {cell.adapter for cell in chain}, "one answer is computed with one adapter"
            known = [cell.token for cell in chain]
            ends = range(len(known) - due + 1, len(known) + 1)
            rows += [np.eye(SIZE, dtype=np.float32)[following(known[:end], adapter)] for end in ends]
        assert self.capacity is None or self.used() <= self.capacity
        self.batches.append([(slot, len(tokens)) for slot, _, tokens, _ in spans])
        return np.array(rows, np.float32).reshape(-1, SIZE)

    def forget(self, slot):
        self.cells.pop(slot, None)

    def keep(self, slot, count):
        del self.cells[slot][count:]
        return True

    def copy(self, source, target):
        self.cells[target] = list(self.cells[source])

    def piece(self, token):
        return b"x"

    def ends(self, token):
        return token == END


def following(tokens, adapter=None):
    mixed = 31 * sum((place + 1) * token for place, token in enumerate(tokens)) + len(tokens)
    mixed += ADAPTERS.index(adapter)
    return END if mixed % 61 == 0 else mixed % END


def alone(prompt, tokens_max, adapter=None):
    """What an answer must be."""
    tokens = list(prompt)
    while len(tokens) < len(prompt) + tokens_max:
        tokens.append(following(tokens, adapter))
        if tokens[-1] == END:
            break
    return tokens[len(prompt) :]


LONG = [(first, second) for first in range(9) for second in range(9) if len(alone((first, second), 60)) == 60]


@dataclass(frozen=True)
class Ask:
    after: int  # steps
    scope: bytes
    prompt: tuple[int, ...]
    tokens_max: int
    hangs_up: int | None  # after so many steps
    right: int = 0  # tokens that a draft of the answer has right
    wrong: tuple[int, ...] = ()  # and what follows them
    adapter: Digest | None = None

    def draft(self):
        tokens = [*alone(self.prompt, self.tokens_max, self.adapter)[: self.right], *self.wrong]
        return tokens[: self.tokens_max]


prompts = st.lists(st.integers(0, 3), min_size=1, max_size=40).map(tuple)
asks = st.builds(
    Ask,
    st.integers(0, 6), st.sampled_from([b"", b"a", b"b"]), prompts | st.just((1, 2) * 16), st.integers(1, 24),
    st.none() | st.integers(0, 5), st.integers(0, 24), st.lists(st.integers(0, SIZE - 1), max_size=24).map(tuple),
    st.sampled_from(ADAPTERS),
)  # fmt: skip


class Run:
    """A core with all that is asked of it, until it is done."""

    def __init__(self, what, slots, capacity):
        self.model = Hashing(capacity)
        self.core = Core(self.model, slots=slots, context_tokens=CONTEXT, cells=capacity or 0)
        self.slots = slots
        self.said = {}
        self.ended = {}
        self.preempted = 0
        waiting = sorted(enumerate(what), key=lambda pair: pair[1].after)
        hang_ups = {}
        step = 0
        while waiting or self.core.busy:
            while waiting and (waiting[0][1].after <= step or not self.core.busy):
                number, ask = waiting.pop(0)
                generate = Generate(
                    JobId(bytes(16)),
                    None,
                    "-",
                    ask.tokens_max,
                    Sampling(0.0),
                    [],
                    Seed(bytes(32)),
                    scope=ask.scope,
                    draft=ask.draft(),
                    adapter=ask.adapter,
                )
                self.core.submit(number, generate, list(ask.prompt), 0)
                if ask.hangs_up is not None:
                    hang_ups.setdefault(step + ask.hangs_up, []).append(number)
            for number in hang_ups.pop(step, ()):
                self.core.cancel(number)
            if self.core.busy:
                self.step()
            step += 1
            assert step < 3000, "an answer starves"

    def step(self):
        step = self.core.step(lambda: 0)
        assert step.batch_tokens <= batch_tokens_max(self.slots)
        assert step.kv_tokens == (self.model.used() if self.model.capacity else step.kv_tokens)
        self.preempted += step.preempted
        assert not step.refused
        for output in step.outputs:
            self.said.setdefault(output.number, []).extend(output.tokens)
            if output.end:
                self.ended[output.number] = output.end


loads = st.lists(asks, min_size=1, max_size=12), st.integers(1, 4), st.none() | st.integers(CONTEXT, 3 * CONTEXT)


@settings(deadline=None)
@given(*loads)
def test_every_answer_is_what_it_is_alone_whoever_else_asks_and_is_preempted(what, slots, capacity):
    run = Run(what, slots, capacity)
    for number, ask in enumerate(what):
        expected = alone(ask.prompt, ask.tokens_max, ask.adapter)
        if ask.hangs_up is None:
            assert expected == run.said[number]
            end = run.ended[number]
            assert (len(ask.prompt), len(expected)) == (end.prompt_tokens, end.completion_tokens)
            assert 0 <= end.cached_tokens < len(ask.prompt)
        else:
            assert run.said.get(number, []) == expected[: len(run.said.get(number, []))]


@settings(deadline=None)
@given(*loads)
def test_the_account_of_cells_returns_to_nothing(what, slots, capacity):
    run = Run([Ask(ask.after, b"", ask.prompt, ask.tokens_max, ask.hangs_up) for ask in what], slots, capacity)
    assert {} == run.model.cells
    assert 0 == run.core._cache.used


@settings(deadline=None)
@given(*loads)
def test_whatever_is_kept_for_later_is_accounted_for_cell_by_cell(what, slots, capacity):
    run = Run(what, slots, capacity)
    if capacity:
        assert run.model.used() == run.core._cache.used


def test_without_room_the_youngest_of_the_busiest_tenant_waits_and_goes_on():
    what = [Ask(0, scope, prompt, 60, None) for prompt, scope in zip(LONG, (b"a", b"b", b"b"), strict=False)]
    run = Run(what, 3, 128)
    assert run.preempted >= 1
    assert [alone(ask.prompt, 60) for ask in what] == [run.said[number] for number in range(3)]
    assert list(run.ended)[-1] == 2


def test_who_is_preempted_waits_until_it_fits_and_is_not_counted_twice():
    run = Run([Ask(0, b"a", LONG[0], 60, None), Ask(0, b"b", LONG[1], 60, None)], 2, 64)
    assert run.preempted == 1


def test_a_draft_that_is_wrong_at_the_last_token_leaves_nothing_for_later():
    shared = (1, 2, 1, 2, 1)
    assert alone((1,), 1) == [2]
    run = Run([Ask(0, b"a", (1,), 1, None, 0, (3,)), Ask(1, b"a", shared, 5, None)], 1, None)
    assert alone(shared, 5) == run.said[1]


def test_one_common_beginning_is_in_the_cache_once():
    beginning = (1, 2) * 15
    what = [
        Ask(0, b"a", (*beginning, 3), 1, None),
        *(Ask(2, b"a", (*beginning, place), 20, None) for place in range(4, 7)),
    ]
    run = Run(what, 4, 128)
    assert run.preempted == 0
    assert [30, 30, 30] == [run.ended[number].cached_tokens for number in (1, 2, 3)]


@pytest.mark.parametrize("capacity", [None, 4096])
def test_running_streams_get_a_token_in_every_step_while_a_strangers_prompt_is_computed(capacity):
    model = Hashing(capacity)
    core = Core(model, slots=4, context_tokens=2048, cells=capacity or 0)

    def ask(number, length, tokens_max):
        request = Generate(
            JobId(bytes(16)), None, "-", tokens_max, Sampling(0.0, bias=[(END, -100.0)]), [], Seed(bytes(32))
        )
        core.submit(number, request, [number] * length, 0)

    for number in range(3):
        ask(number, 3, 100)
    core.step(lambda: 0)
    ask(9, 1500, 5)
    for _ in range(6):
        told = {output.number for output in core.step(lambda: 0).outputs}
        assert {0, 1, 2} <= told
        assert max(length for _, length in model.batches[-1]) <= limits.PREFILL_CHUNK_TOKENS
    assert 9 in told


def test_a_common_beginning_is_shared_by_those_with_one_adapter_only():
    what = [Ask(place, b"a", (1, 2) * 15, 1, None, adapter=adapter) for place, adapter in enumerate(ADAPTERS * 2)]
    run = Run(what, 6, 512)
    assert [0, 0, 0, 29, 29, 29] == [run.ended[number].cached_tokens for number in range(6)]


@given(
    st.lists(st.sampled_from(ADAPTERS), min_size=1, max_size=8), st.none() | st.just(1 << 14), st.booleans(),
    st.lists(st.tuples(st.integers(40, 900), st.sampled_from(ADAPTERS)), max_size=3),
)  # fmt: skip
@settings(deadline=None, max_examples=40)
def test_every_stream_gets_a_token_in_every_step_whatever_adapters_there_are_and_prompts_beside(
    adapters, capacity, apart, prompts
):
    model = Hashing(capacity)
    model.apart = apart
    core = Core(model, slots=12, context_tokens=1024, cells=capacity or 0)

    def ask(number, length, adapter):
        sampling = Sampling(0.0, bias=[(END, -100.0)])
        request = Generate(JobId(bytes(16)), None, "-", 60, sampling, [], Seed(bytes(32)), adapter=adapter)
        core.submit(number, request, [number] * length, 0)

    for number, adapter in enumerate(adapters):
        ask(number, 1, adapter)
    core.step(lambda: 0)
    for number, (length, adapter) in enumerate(prompts):
        ask(10 + number, length, adapter)
    for _ in range(20):
        model.batches.clear()
        step = core.step(lambda: 0)
        told = [output.number for output in step.outputs]
        assert set(range(len(adapters))) <= set(told)
        assert sorted(set(told)) == sorted(told)
        assert step.batch_tokens == sum(length for batch in model.batches for _, length in batch)
        assert step.batch_tokens <= batch_tokens_max(12)
        assert len(model.batches) <= (1 + apart) * len({*adapters, *(adapter for _, adapter in prompts)})
    assert {10 + number for number in range(len(prompts))} <= set(told)


def test_the_adapter_that_is_on_goes_first():
    model = Hashing(None)
    worn = []
    decode, model.decode = model.decode, lambda spans, adapter: (worn.append(adapter), decode(spans, adapter))[1]
    core = Core(model, slots=4, context_tokens=64)
    for number, adapter in enumerate(ADAPTERS):
        sampling = Sampling(0.0, bias=[(END, -100.0)])
        request = Generate(JobId(bytes(16)), None, "-", 9, sampling, [], Seed(bytes(32)), adapter=adapter)
        core.submit(number, request, [number + 1], 0)
    for _ in range(4):
        core.step(lambda: 0)
    assert 2 * 4 == sum(one != other for one, other in pairwise(worn))
