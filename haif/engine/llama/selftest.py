"""Whether a recipe gives the same bits alone and in a batch: not believed, but tried at every start."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Final

from msgspec.structs import replace

from haif.base.errors import Unsupported
from haif.base.ids import Digest
from haif.engine.llama.batch import Rows
from haif.engine.llama.context import ROWS
from haif.engine.llama.model import Llama
from haif.engine.passes import Span
from haif.engine.profile import FAST, KV_TYPES, NO_OFFLOAD, PROFILES, Offload

_TOKENS: Final = ROWS  # computed in several ways
_CONTEXT: Final = 64  # tokens before them: more than a kernel adds up at once
_CHUNKS: Final = ((0, 3), (3, 8), (8, 16))
_NO_ADAPTERS: Final[Mapping[Digest, int]] = MappingProxyType({})


def climb(
    descriptor: int,
    profile: str,
    *,
    slots: int,
    context_tokens: int,
    threads: int,
    kv_tokens: int = 0,
    kv: str = KV_TYPES[0],
    offload: Offload = NO_OFFLOAD,
    adapters: Mapping[Digest, int] = _NO_ADAPTERS,
) -> tuple[Llama, bool]:
    """The model by the first recipe of the profile that the self-test finds exact, else by the last; and whether it is.

    Where bits may vary, nothing is tested and nothing claimed. The recipe follows from the model alone, so that its
    answers do not depend on which adapters are beside it. Raises as `Llama` does, and `Unsupported` naming an adapter
    with which an exact model is exact no more.
    """
    build = partial(
        Llama, descriptor, slots=slots, context_tokens=context_tokens, threads=threads, kv_tokens=kv_tokens,
        adapters=adapters,
    )  # fmt: skip
    *rungs, last = (replace(recipe, kv=kv, offload=offload) for recipe in PROFILES[profile])
    for recipe in rungs:
        llama = build(recipe=recipe)
        if is_exact(llama):
            return _with_exact(llama, adapters), True
        llama.close()
    llama = build(recipe=last)
    exact = profile != FAST and is_exact(llama)
    return _with_exact(llama, adapters) if exact else llama, exact


def _with_exact(llama: Llama, adapters: Iterable[Digest]) -> Llama:
    for adapter in adapters:
        if not is_exact(llama, adapter):
            raise Unsupported(
                f"with the adapter {adapter.short}… this model's bits depend on who else is computed: the profile fast "
                "can serve it, an exact one cannot"
            )
    return llama


def is_exact(llama: Llama, adapter: Digest | None = None) -> bool:
    """Are tokens computed one by one the same bits as in one go and in chunks, beside a neighbour?

    Of a model that makes vectors this says nothing: there the test is `Embedder.alike`.
    """
    if llama.pooling:
        return True
    if not llama.takes_back:
        return False
    decode = partial(llama.decode, adapter=adapter)
    before, tokens = _some_tokens(llama, _CONTEXT), _some_tokens(llama, _TOKENS)
    decode([(0, 0, before, 0)])
    rows = (decode([(0, place, [token], 1)]) for place, token in enumerate(tokens, start=_CONTEXT))
    singly = b"".join(row.tobytes() for row in rows)
    together = _computed(llama, decode, before, tokens, ((0, _TOKENS),))
    return singly == together == _computed(llama, decode, before, tokens, _CHUNKS)


def _some_tokens(llama: Llama, count: int) -> list[int]:
    return [(7 * place + 1) % llama.size for place in range(count)]


def _computed(
    llama: Llama, decode: Callable[[Sequence[Span]], Rows], before: list[int], tokens: list[int],
    chunks: Iterable[tuple[int, int]],
) -> bytes:  # fmt: skip
    """The first slot's logits for `tokens` after `before`, with a neighbour at the same in each batch."""
    neighbours = range(min(2, llama.slots))
    llama.forget_all()
    decode([(slot, 0, before, 0) for slot in neighbours])
    found = b""
    for start, stop in chunks:
        spans = [(slot, _CONTEXT + start, tokens[start:stop], stop - start) for slot in neighbours]
        found += decode(spans)[: stop - start].tobytes()
    llama.forget_all()
    return found
