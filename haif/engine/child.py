"""The engine child restricts itself, loads the model it was handed, and computes what it is asked until told to end.

It holds no key, no socket and no path: two pipes to its parent and the open model file are all it has. It never
answers for its own honesty: the parent checks the file before, and every frame after.
"""

from __future__ import annotations

import codecs
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from traceback import format_exc
from typing import Final, NoReturn

from haif.base import limits
from haif.base.errors import HaifError, InvalidRequest, Refusal, Unsupported
from haif.base.tasks import Task, bits_of
from haif.engine import llama
from haif.engine.answer import Voice
from haif.engine.chats import Chats
from haif.engine.core import Core
from haif.engine.embedder import Embedder
from haif.engine.frames import (
    Failed,
    FrameReader,
    Load,
    Order,
    Ready,
    Report,
    Sealed,
    Submit,
    SubmitEmbed,
    decode_order,
    frame,
    refusal_of,
)
from haif.engine.inputs import input_tokens
from haif.engine.profile import FAST
from haif.engine.prompt import infill_tokens, text_tokens
from haif.engine.request import Generate
from haif.engine.sandbox.jail import seal, settle
from haif.engine.template import ChatTemplate


class Pipe:
    """Orders in, reports out. The end of the input means: end."""

    def __init__(self, orders: int, reports: int) -> None:
        self._orders = orders
        self._reports = reports
        self._reader = FrameReader()
        self._poll = select.poll()
        self._poll.register(orders, select.POLLIN)

    def orders(self, *, wait: bool) -> list[Order]:
        """What has arrived; with `wait`, at least one."""
        orders: list[Order] = []
        while self._poll.poll(None if wait and not orders else 0):
            data = os.read(self._orders, 1 << 16)
            if not data:
                sys.exit(0)
            orders += map(decode_order, self._reader.feed(data))
        return orders

    def send(self, report: Report) -> None:
        """Write a report whole."""
        data = memoryview(frame(report))
        while data:
            data = data[os.write(self._reports, data) :]


class Child:
    """A loaded model and its answers."""

    def __init__(self, pipe: Pipe, model: int, adapters: list[int], load: Load) -> None:
        self._pipe = pipe
        self._llama, self._exact = llama.climb(
            model, load.profile, slots=load.slots, context_tokens=load.context_tokens, threads=load.threads,
            kv_tokens=load.kv_tokens, kv=load.kv, offload=load.offload,
            adapters=dict(zip(load.adapters, adapters, strict=True)),
        )  # fmt: skip
        self._core = self._make_core(load)
        if isinstance(self._core, Embedder):
            self._exact = self._core.alike(wanted=load.profile != FAST)
        self._template = self._read_template()
        self._chats = Chats(self._template, self._llama, lambda: _time_limit(limits.TEMPLATE_SECONDS_MAX))

    def _make_core(self, load: Load) -> Core | Embedder:
        made = self._llama
        if made.pooling:
            return Embedder(made, slots=load.slots, context_tokens=made.context_tokens)
        return Core(made, slots=load.slots, context_tokens=made.context_tokens, cells=made.cells, witnessed=self._exact)

    def _read_template(self) -> ChatTemplate | Unsupported | None:
        source = self._llama.chat_template()
        if source is None:
            return None
        try:
            return ChatTemplate(source, bos=self._llama.bos, eos=self._llama.eos)
        except Unsupported as refusal:
            return refusal  # text completions work all the same; a chat gets this answer

    def ready(self) -> Ready:
        """What was loaded, and how it is computed."""
        return Ready(
            name=self._llama.metadata("general.name"),
            architecture=self._llama.metadata("general.architecture"),
            parameters=self._llama.parameters,
            vocabulary=self._llama.size,
            context_trained=self._llama.context_trained,
            has_chat_template=isinstance(self._template, ChatTemplate),
            build=llama.build(),
            exact=self._exact,
            recipe=self._llama.recipe,
            tasks=bits_of(frozenset(self._tasks())),
            dimensions=self._llama.dimensions if self._llama.pooling else 0,
        )

    def _tasks(self) -> Iterator[Task]:
        """What the model's file says it can do: one that says how to pool makes vectors, and nothing else."""
        if self._llama.pooling:
            yield Task.RERANK if self._llama.ranks else Task.EMBED
            return
        yield Task.TEXT
        if isinstance(self._template, ChatTemplate):
            yield Task.CHAT
        if self._llama.infill is not None:
            yield Task.INFILL

    def serve(self) -> NoReturn:
        """Compute, step after step; orders are taken in between."""
        while True:
            for order in self._pipe.orders(wait=not self._core.busy):
                self._obey(order)
            if self._core.busy:
                self._pipe.send(self._step())

    def _step(self) -> Report:
        if isinstance(self._core, Embedder):
            return Report(batch=self._core.step(time.monotonic_ns))
        return Report(step=self._core.step(time.monotonic_ns, time.process_time_ns))

    def _obey(self, order: Order) -> None:
        if order.submit is not None:
            self._submit(order.submit)
        elif order.embed is not None:
            self._embed(order.embed)
        elif order.cancel is not None:
            self._core.cancel(order.cancel)

    def _submit(self, submit: Submit) -> None:
        try:
            if not isinstance(self._core, Core):
                raise Unsupported("this model makes vectors, not text", param="model")
            prompt, voice = self._prepared(submit.request)
            self._core.submit(submit.number, submit.request, prompt, time.monotonic_ns(), voice)
        except Refusal as refusal:
            self._pipe.send(Report(refused=refusal_of(submit.number, refusal)))

    def _embed(self, submit: SubmitEmbed) -> None:
        try:
            if not isinstance(self._core, Embedder):
                raise Unsupported("this model makes text, not vectors", param="model")
            inputs = input_tokens(submit.request, self._llama, self._llama.chat_template(b"rerank"))
            self._core.submit(submit.number, submit.request, inputs, time.monotonic_ns())
        except Refusal as refusal:
            self._pipe.send(Report(refused=refusal_of(submit.number, refusal)))

    def _prepared(self, request: Generate) -> tuple[list[int], Voice | None]:
        voice = None
        if request.suffix is not None:
            tokens = infill_tokens(request.text or "", request.suffix, self._llama)
        elif request.chat is None:
            tokens = text_tokens(request.text or "", self._llama)
        else:
            tokens, voice = self._chats.prepared(request)
        if not tokens:
            raise InvalidRequest("the prompt is empty", param="prompt")
        return tokens, voice


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise `RuntimeError` inside the block when it takes longer than `seconds`."""

    def late(*_: object) -> NoReturn:
        raise RuntimeError(f"not done after {seconds:g} seconds")

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


_REHEARSAL: Final = r"""
{%- macro turn(m) %}{{ '\n\u00e9' ~ m['content'] | trim | striptags | upper | tojson(indent=1) }}{% endmacro %}
{%- set n = namespace(x='') %}
{%- for m in messages if m.role is defined %}
{%- set n.x = n.x ~ turn(m) %}{% if loop.last %}{% break %}{% endif %}{% endfor %}
{{- n.x | length }}{{ messages | map(attribute='role') | join(', ') }}{{ 1 // 0 }}
"""


def rehearse() -> None:
    """Go once through what loads modules and codecs at its first use."""
    for module in ("html.entities", "pprint", "textwrap", "unicodedata"):
        import_module(module)
    for codec in ("ascii", "latin-1", "utf-8", "utf-16", "utf-32", "unicode-escape", "raw-unicode-escape"):
        codecs.lookup(codec)
    with suppress(Unsupported):
        ChatTemplate(_REHEARSAL, bos="", eos="").render([{"role": "user", "content": "<b>\u00e9</b>&amp;"}])
    format_exc()


def main() -> NoReturn:
    """Arguments: the parent's process id, the descriptors of orders, reports and model; 1 without a jail; 1 with GPUs.

    Behind them come the descriptors of adapters. After the seal no file can be opened, so everything that Python loads
    at first use is used before.
    """
    parent, orders, reports, model, insecure, gpu, *adapters = map(int, sys.argv[1:])
    llama.set_log(lambda text: os.write(2, text.encode()))
    pipe = Pipe(orders, reports)
    llama.set_progress(lambda percent: pipe.send(Report(loading=percent)))
    rehearse()
    size = sum(os.fstat(file).st_size for file in (model, *adapters))
    files = frozenset({orders, reports, model, *adapters})
    told = seal(parent, files, size, insecure=bool(insecure), gpu=bool(gpu))
    pipe.send(Report(sealed=Sealed(list(told.enforced), dict(told.missing), list(told.notes), told.pid)))
    load = pipe.orders(wait=True)[0].load
    assert load is not None, "the first order is to load"
    try:
        child = Child(pipe, model, adapters, load)
        ready = child.ready()
        settle()
    except HaifError as error:
        pipe.send(Report(failed=Failed(error.reason.value, error.message)))
        sys.exit(1)
    pipe.send(Report(ready=ready))
    child.serve()


if __name__ == "__main__":
    main()
