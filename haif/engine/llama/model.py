"""A loaded model that computes: batches in, logits or vectors out."""

from __future__ import annotations

import ctypes
import itertools
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import llama_cpp as api
import numpy as np
from msgspec import structs

from haif.base import limits
from haif.base.errors import Misuse, Unsupported
from haif.base.ids import Digest
from haif.engine.grammar import Grammar, Grammars
from haif.engine.llama.batch import Batch, LogitsView, Rows
from haif.engine.llama.context import open_context
from haif.engine.llama.files import load_adapter, load_model
from haif.engine.llama.vocabulary import Vocabulary
from haif.engine.passes import Piece, Span, companions, passes
from haif.engine.profile import Recipe
from haif.engine.schedule import batch_tokens_max

_PLAIN: Final = Recipe()
_NO_ADAPTERS: Final[Mapping[Digest, int]] = MappingProxyType({})
_POOLING: Final = {str(int(kind)) for kind in (
    api.LLAMA_POOLING_TYPE_MEAN, api.LLAMA_POOLING_TYPE_CLS, api.LLAMA_POOLING_TYPE_LAST, api.LLAMA_POOLING_TYPE_RANK,
)}  # fmt: skip


class Llama(Vocabulary):
    """A loaded model with a share of the KV cache for each slot, or `cells` for all of them.

    `descriptor` is an open file that was checked; it is read from its beginning and stays open. So are those of its
    `adapters`, by digest.
    Raises `Unsupported` when llama.cpp cannot read it as a model that generates text token by token, `Misuse` when it
    was not trained for `context_tokens` or they do not fit into memory.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        slots: int,
        context_tokens: int,
        threads: int,
        kv_tokens: int = 0,
        recipe: Recipe = _PLAIN,
        adapters: Mapping[Digest, int] = _NO_ADAPTERS,
    ) -> None:
        api.llama_backend_init()
        self.recipe = recipe
        super().__init__(load_model(descriptor, recipe))
        self.context_trained = int(api.llama_model_n_ctx_train(self._model))
        self.context_tokens = context_tokens or min(self.context_trained, limits.ENGINE_CONTEXT_TOKENS_DEFAULT)
        self.pooling = self._declared_pooling()
        if self.pooling:  # llama.cpp stops its process over mean pooling where it tries whether flash attention works
            recipe = self.recipe = structs.replace(recipe, flash=False)
        if self.pooling and not context_tokens:
            self.context_tokens = min(self.context_trained, limits.EMBEDDING_CONTEXT_TOKENS_DEFAULT)
        self._check(self.context_tokens, adapted=bool(adapters))
        self._adapters = {each: load_adapter(self._model, each, adapters[each]) for each in adapters}
        self._adapter: Digest | None = None  # that is on
        self.cells = (kv_tokens or slots * self.context_tokens) if recipe.unified else 0
        if recipe.unified and self.cells < self.context_tokens:
            raise Misuse(f"a KV cache of {self.cells} tokens does not hold one context of {self.context_tokens}")
        self.parameters = int(api.llama_model_n_params(self._model))
        self.apart = not recipe.unified  # with cells of their own, all in a batch attend to as many as the longest has
        self._in_passes = recipe.flash and not recipe.unified  # exactness then is a matter of `passes`
        self.slots = max(slots, 2 * self._in_passes)  # two, for a companion
        self._threads = threads
        self.context = open_context(
            self._model, recipe, slots=self.slots, context_tokens=self.context_tokens + self._in_passes,
            cells=self.cells, threads=threads, pooling=self.pooling,
        )  # fmt: skip
        self._memory = api.llama_get_memory(self.context)
        if not (self._memory or self.pooling):
            raise Unsupported("llama.cpp cannot generate with this model token by token, and its file names no pooling")
        self._batch = Batch(self.context_tokens if self.pooling else batch_tokens_max(slots))
        self._logits = LogitsView(self.size)
        self._grammars = Grammars(self)

    def _check(self, context_tokens: int, *, adapted: bool) -> None:
        if api.llama_model_has_encoder(self._model) or not api.llama_model_has_decoder(self._model):
            raise Unsupported("this model needs an encoder beside a decoder: none such can be served")
        if self.pooling and not 1 <= self.dimensions <= limits.EMBEDDING_DIMENSIONS_MAX:
            raise Unsupported(f"vectors of {self.dimensions} numbers: at most {limits.EMBEDDING_DIMENSIONS_MAX}")
        if context_tokens > self.context_trained:
            raise Misuse(
                f"the model was trained for a context of {self.context_trained} tokens, {context_tokens} were asked for"
            )
        if adapted and self.pooling:
            raise Unsupported("this model makes vectors, and adapters are served on models that make text")

    def _declared_pooling(self) -> int:
        """How the model's file says that vectors of tokens become one; 0 where it does not."""
        declared = self.metadata(f"{self.metadata('general.architecture')}.pooling_type")
        return int(declared) if declared in _POOLING else 0

    @property
    def dimensions(self) -> int:
        """Numbers in one vector."""
        return int((api.llama_model_n_cls_out if self.ranks else api.llama_model_n_embd_out)(self._model))

    @property
    def ranks(self) -> bool:
        """Whether a vector says how well a document answers a query."""
        return self.pooling == int(api.LLAMA_POOLING_TYPE_RANK)

    @property
    def matryoshka(self) -> tuple[int, ...]:
        """The shorter lengths that its file says vectors may be cut to (Kusupati et al. 2022).

        GGUF has no name for it; this one is what others read in a model's config.json. Here it is a text such as
        "256,512": llama.cpp shows nobody the arrays of a file.
        """
        declared = self.metadata(f"{self.metadata('general.architecture')}.matryoshka_dimensions")
        return tuple(each for each in map(int, re.findall(r"\d{1,6}", declared)) if 0 < each < self.dimensions)

    def vectors(self, inputs: Sequence[list[int]]) -> list[Rows]:
        """The pooled vectors of whole inputs, computed in one batch. Raises `RuntimeError` if llama.cpp fails."""
        self._batch.fill([(place, 0, tokens, len(tokens)) for place, tokens in enumerate(inputs)])
        status = (api.llama_decode if self._memory else api.llama_encode)(self.context, self._batch.batch)
        found = [api.llama_get_embeddings_seq(self.context, place) for place in range(len(inputs))]
        if status != 0 or not all(found):
            raise RuntimeError(f"llama.cpp failed with status {status} on {self._batch.batch.n_tokens} tokens")
        if self._memory:
            api.llama_memory_clear(self._memory, False)
        kind = ctypes.c_float * self.dimensions
        return [np.array(kind.from_address(ctypes.addressof(each.contents)), np.float32) for each in found]

    def grammar(self, schema: str) -> Grammar:
        """What an answer that fits a JSON schema may say. Raises `InvalidRequest`."""
        return self._grammars.compile(schema)

    def rules(self, lark: str, param: str, scope: bytes) -> Grammar:
        """What an answer may say by a grammar that `param` made necessary. Raises `InvalidRequest`."""
        return self._grammars.parse(lark, param, scope)

    def forget(self, slot: int) -> None:
        """Free the KV cells of a slot."""
        api.llama_memory_seq_rm(self._memory, slot, -1, -1)

    def keep(self, slot: int, count: int) -> bool:
        """Free all cells of a slot but the first `count`; False, and all are free, where that cannot be done.

        It cannot where the model does not hold every position (sliding windows, recurrent states).
        """
        kept = bool(api.llama_memory_seq_rm(self._memory, slot, count, -1))
        if kept and api.llama_memory_seq_pos_min(self._memory, slot) == 0:
            return True
        self.forget(slot)
        return False

    def copy(self, source: int, target: int) -> None:
        """Fill a slot with the cells of another."""
        api.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def forget_all(self) -> None:
        """Free the KV cells of every slot."""
        for slot in range(self.slots):
            self.forget(slot)

    @property
    def takes_back(self) -> bool:
        """Whether tokens that are beside others only for their sake (`passes`) can be forgotten again, where needed."""
        state = api.llama_model_is_recurrent(self._model) or api.llama_model_is_hybrid(self._model)
        return not (self._in_passes and state)

    def decode(self, spans: Sequence[Span], adapter: Digest | None = None) -> Rows:
        """Compute one batch, slots ascending; the logits that are due, one row each, in order, until the next call.

        `adapter`: which one is on the model meanwhile. Raises `RuntimeError` if llama.cpp reports a failure.
        """
        if adapter != self._adapter:
            self._put_on(adapter)
        if not self._in_passes:
            return self._run(spans)
        order = passes(spans)
        if len(order) == 1:
            return self._pass(order[0])
        due = [span[3] for span in spans]
        next_row = list(itertools.accumulate(due, initial=0))
        found: Rows = np.empty((next_row[-1], self.size), np.float32)
        for pieces in order:
            row, rows = 0, self._pass(pieces)
            for place, (*_, count) in pieces:
                found[next_row[place] : next_row[place] + count] = rows[row : row + count]
                next_row[place] += count
                row += count
        return found

    def _put_on(self, adapter: Digest | None) -> None:
        """One adapter, as strong as its file says, or none."""
        worn = [] if adapter is None else [self._adapters[adapter]]
        pointers = (api.llama_adapter_lora_p_ctypes * len(worn))(*worn)
        scales = (ctypes.c_float * len(worn))(*(1.0 for _ in worn))
        api.llama_set_adapters_lora(self.context, pointers, len(worn), scales)
        self._adapter = adapter

    def _pass(self, pieces: Sequence[Piece]) -> Rows:
        """Compute some spans where no single token may be alone."""
        spans = [piece.span for piece in pieces]
        added: list[Span] = []
        if self._threads > 1 and len(spans[0][2]) == 1:
            beside = companions(spans, self.slots)
            added = [(slot, api.llama_memory_seq_pos_max(self._memory, slot) + 1, [0], 0) for slot in beside]
        rows = self._run(sorted([*spans, *added], key=lambda span: span[0]))
        for slot, position, *_ in added:
            api.llama_memory_seq_rm(self._memory, slot, position, -1)
        return rows

    def _run(self, spans: Sequence[Span]) -> Rows:
        due = self._batch.fill(spans)
        status = api.llama_decode(self.context, self._batch.batch)
        if status != 0:
            raise RuntimeError(f"llama_decode failed with status {status} on {self._batch.batch.n_tokens} tokens")
        return self._logits.rows(api.llama_get_logits(self.context), due)

    def close(self) -> None:
        """Give its memory back."""
        api.llama_free(self.context)
        api.llama_model_free(self._model)
