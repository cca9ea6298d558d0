"""llama.cpp by its low-level API, set up by the recipe of an execution profile.

Whether a recipe gives the same bits alone and in a batch is not believed but tried at every start (`climb`).
"""

from __future__ import annotations

import ctypes
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import llama_cpp as api
import numpy as np
import numpy.typing as npt
from msgspec import structs
from msgspec.structs import replace

from haif.base import limits
from haif.base.errors import Misuse, Unsupported
from haif.base.ids import Digest
from haif.engine.core import batch_tokens_max
from haif.engine.grammar import Grammar, Grammars
from haif.engine.passes import Piece, Span, companions, passes
from haif.engine.profile import FAST, KV_TYPES, NO_OFFLOAD, PROFILES, Offload, Recipe

Rows = npt.NDArray[np.float32]

_CELLS: Final = 256  # llama.cpp pads the context of a sequence to a multiple of this
_ROWS: Final = limits.DRAFT_TOKENS_AHEAD + 1  # logits that one sequence may ask for in one batch
_PROBE_TOKENS: Final = _ROWS  # computed in several ways by the self-test
_PROBE_CONTEXT: Final = 64  # tokens before them: more than a kernel adds up at once
_LOG_ERROR: Final = 4
_V3: Final = frozenset({"sse3", "ssse3", "avx", "avx2", "f16c", "fma", "bmi2"})  # what ggml uses of x86-64-v3
_PROBE_CHUNKS: Final = ((0, 3), (3, 8), (8, 16))
_PLAIN: Final = Recipe()
_NO_ADAPTERS: Final[Mapping[Digest, int]] = MappingProxyType({})
_POOLING: Final = {str(int(kind)) for kind in (
    api.LLAMA_POOLING_TYPE_MEAN, api.LLAMA_POOLING_TYPE_CLS, api.LLAMA_POOLING_TYPE_LAST, api.LLAMA_POOLING_TYPE_RANK,
)}  # fmt: skip
_TOKEN_CONTROL: Final = api.LLAMA_TOKEN_ATTR_CONTROL | api.LLAMA_TOKEN_ATTR_UNKNOWN

_log_callback: Any = None
_progress_callback: Any = None


def set_log(write: Callable[[str], object]) -> None:
    """Have llama.cpp's errors, and nothing else, go to `write`. Once per process; the library keeps the callback."""
    global _log_callback  # noqa: PLW0603 - it must live as long as the library

    def log(level: int, text: bytes, _: object) -> None:
        if level == _LOG_ERROR:
            write(text.decode(errors="replace"))

    _log_callback = api.llama_log_callback(log)
    api.llama_log_set(_log_callback, ctypes.c_void_p(0))


def set_progress(tell: Callable[[int], object]) -> None:
    """Have `tell` hear how many percent of a model are loaded, each number once. Before the seal: it makes code."""
    global _progress_callback  # noqa: PLW0603 - it must live as long as the library
    told = -1

    def progress(share: float, _: object) -> bool:
        nonlocal told
        if int(100 * share) > told:
            told = min(int(100 * share), 100)
            tell(told)
        return True

    _progress_callback = api.llama_progress_callback(progress)


def build() -> str:
    """What the library itself says it was built with."""
    flags = re.findall(r"(\w+) = 1", api.llama_print_system_info().decode(errors="replace").lower())
    if set(flags) >= _V3:
        flags = ["x86-64-v3", *(flag for flag in flags if flag not in _V3)]
    return f"llama-cpp-python/{api.__version__} cpu {'+'.join(flags)}"


class Llama:
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
        self._model = _load(descriptor, recipe)
        self._vocabulary = api.llama_model_get_vocab(self._model)
        self.context_trained = int(api.llama_model_n_ctx_train(self._model))
        self.context_tokens = context_tokens or min(self.context_trained, limits.ENGINE_CONTEXT_TOKENS_DEFAULT)
        self.pooling = self._declared_pooling()
        if self.pooling:  # llama.cpp stops its process over mean pooling where it tries whether flash attention works
            recipe = self.recipe = structs.replace(recipe, flash=False)
        if self.pooling and not context_tokens:
            self.context_tokens = min(self.context_trained, limits.EMBEDDING_CONTEXT_TOKENS_DEFAULT)
        self._check(self.context_tokens)
        self._adapters = self._load_adapters(adapters)
        self._adapter: Digest | None = None  # that is on
        self.cells = (kv_tokens or slots * self.context_tokens) if recipe.unified else 0
        if recipe.unified and self.cells < self.context_tokens:
            raise Misuse(f"a KV cache of {self.cells} tokens does not hold one context of {self.context_tokens}")
        self.parameters = int(api.llama_model_n_params(self._model))
        self.size = int(api.llama_vocab_n_tokens(self._vocabulary))
        self.apart = not recipe.unified  # with cells of their own, all in a batch attend to as many as the longest has
        self._in_passes = recipe.flash and not recipe.unified  # exactness then is a matter of `passes`
        self._slots = max(slots, 2 * self._in_passes)  # two, for a companion
        self._threads = threads
        self.context = self._open_context(self._slots, self.context_tokens + self._in_passes, threads)
        self._memory = api.llama_get_memory(self.context)
        if not (self._memory or self.pooling):
            raise Unsupported("llama.cpp cannot generate with this model token by token, and its file names no pooling")
        self._batch = _Batch(self.context_tokens if self.pooling else batch_tokens_max(slots))
        self._logits = _LogitsView(self.size)
        self._read_vocabulary()
        self._buffer = ctypes.create_string_buffer(4096)
        self._pieces: list[bytes | None] = [None] * self.size
        self._grammars = Grammars(self)

    def _check(self, context_tokens: int) -> None:
        if api.llama_model_has_encoder(self._model) or not api.llama_model_has_decoder(self._model):
            raise Unsupported("this model needs an encoder beside a decoder: none such can be served")
        if self.pooling and not 1 <= self.dimensions <= limits.EMBEDDING_DIMENSIONS_MAX:
            raise Unsupported(f"vectors of {self.dimensions} numbers: at most {limits.EMBEDDING_DIMENSIONS_MAX}")
        if context_tokens > self.context_trained:
            raise Misuse(
                f"the model was trained for a context of {self.context_trained} tokens, {context_tokens} were asked for"
            )

    def _load_adapters(self, files: Mapping[Digest, int]) -> dict[Digest, Any]:
        if files and self.pooling:
            raise Unsupported("this model makes vectors, and adapters are served on models that make text")
        found = {}
        for digest, descriptor in files.items():
            found[digest] = api.llama_adapter_lora_init_from_file_ptr(self._model, _stream(descriptor))
            if not found[digest]:
                raise Unsupported(f"llama.cpp cannot put the adapter {digest.short}… on this model")
        return found

    def _open_context(self, slots: int, context_tokens: int, threads: int) -> Any:
        params = api.llama_context_default_params()
        params.n_ctx = _padded(self.cells) or slots * _padded(context_tokens)
        params.n_batch = params.n_ubatch = batch_tokens_max(slots)
        params.n_seq_max = slots
        params.n_outputs_max_per_seq = _ROWS
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = (
            api.LLAMA_FLASH_ATTN_TYPE_AUTO if self.recipe.flash else api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        params.type_k = params.type_v = _KV_TYPES[self.recipe.kv]
        params.kv_unified = self.recipe.unified
        if self.pooling:
            params.embeddings = True
            params.n_batch = params.n_ubatch = context_tokens  # what is pooled is computed in one piece
            params.n_outputs_max_per_seq = 0
            params.kv_unified |= self.pooling in (api.LLAMA_POOLING_TYPE_MEAN, api.LLAMA_POOLING_TYPE_CLS)
        params.offload_kqv = params.op_offload = bool(self.recipe.offload.layers)
        context = api.llama_init_from_model(self._model, params)
        if not context:
            raise Misuse(f"llama.cpp could not make a context of {slots} times {context_tokens} tokens: use fewer")
        return context

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

    def framed(self, text: str) -> list[int]:
        """The tokens of a text to make a vector of, between those that the model wants around it."""
        return self._tokenise(text, framed=True, special=False)

    def framed_pair(self, query: str, document: str) -> list[int]:
        """The tokens of a document to rank, without a template (as llama.cpp's server puts them)."""
        vocabulary = self._vocabulary
        eos = api.llama_vocab_eos(vocabulary)
        closing = (
            [eos if eos >= 0 else api.llama_vocab_sep(vocabulary)] if api.llama_vocab_get_add_eos(vocabulary) else []
        )
        between = [api.llama_vocab_sep(vocabulary)] if api.llama_vocab_get_add_sep(vocabulary) else []
        opening = [api.llama_vocab_bos(vocabulary)] if api.llama_vocab_get_add_bos(vocabulary) else []
        texts = [self.tokenise(text, special=False) for text in (query, document)]
        return [*opening, *texts[0], *closing, *between, *texts[1], *closing]

    def _read_vocabulary(self) -> None:
        vocabulary = self._vocabulary
        everything = range(self.size)
        self.controls = frozenset(t for t in everything if api.llama_vocab_get_attr(vocabulary, t) & _TOKEN_CONTROL)
        self.ending = frozenset(t for t in everything if api.llama_vocab_is_eog(vocabulary, t))
        texts = {self.text_of(token) for token in self.controls | self.ending} - {""}
        ordered = sorted(texts, key=lambda text: (-len(text), text))
        self.control_text = re.compile("|".join(map(re.escape, ordered))) if ordered else None
        bos = int(api.llama_vocab_bos(vocabulary))
        self.bos = self.text_of(bos) if bos >= 0 else ""
        eos = int(api.llama_vocab_eos(vocabulary))
        self.eos = self.text_of(eos) if eos >= 0 else ""
        fim = [
            int(ask(vocabulary)) for ask in (api.llama_vocab_fim_pre, api.llama_vocab_fim_suf, api.llama_vocab_fim_mid)
        ]
        self.infill = (fim[0], fim[1], fim[2]) if min(fim) >= 0 else None
        self.opening = bos if bos >= 0 and api.llama_vocab_get_add_bos(vocabulary) else None

    def text_of(self, token: int) -> str:
        """How the vocabulary writes a token."""
        return (api.llama_vocab_get_text(self._vocabulary, token) or b"").decode(errors="replace")

    def metadata(self, key: str, size_max: int = limits.MODEL_TEXT_BYTES_MAX) -> str:
        """A text from the model's metadata, cut to `size_max` bytes, or ""."""
        buffer = ctypes.create_string_buffer(size_max + 1)
        length = api.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))
        return buffer.value.decode(errors="ignore") if length > 0 else ""

    def chat_template(self, name: bytes | None = None) -> str | None:
        """The source of the model's chat template of this name, or of its default one."""
        source = api.llama_model_chat_template(self._model, name)
        return source.decode(errors="replace") if source else None

    def tokenise(self, text: str, *, special: bool) -> list[int]:
        """Tokens of `text`, without an opening token. Texts of control tokens become them only with `special`."""
        return self._tokenise(text, framed=False, special=special)

    def _tokenise(self, text: str, *, framed: bool, special: bool) -> list[int]:
        raw = text.encode()
        room = len(raw) + 8
        while True:
            found = (ctypes.c_int32 * room)()
            count = int(api.llama_tokenize(self._vocabulary, raw, len(raw), found, room, framed, special))
            if count >= 0:
                return found[:count]
            room = -count

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for; none for a control token."""
        known = self._pieces[token]
        if known is None:
            known = self._pieces[token] = self._piece(token, special=False)
        return known

    def spelled(self, token: int) -> bytes:
        """The bytes of a token, a control token's name included."""
        return self._piece(token, special=True)

    def _piece(self, token: int, *, special: bool) -> bytes:
        size = api.llama_token_to_piece(self._vocabulary, token, self._buffer, len(self._buffer), 0, special)
        return self._buffer.raw[: max(0, size)]

    def ends(self, token: int) -> bool:
        """Whether the token ends a generation."""
        return token in self.ending

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
            beside = companions(spans, self._slots)
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

    def exact(self, adapter: Digest | None = None) -> bool:
        """Self-test: are tokens computed one by one the same bits as in one go and in chunks, beside a neighbour?

        Of a model that makes vectors this says nothing: there the test is `Embedder.alike`.
        """
        if self.pooling:
            return True
        if self._in_passes and (api.llama_model_is_recurrent(self._model) or api.llama_model_is_hybrid(self._model)):
            return False  # a companion could not be forgotten
        before, tokens = self._probe_tokens(_PROBE_CONTEXT), self._probe_tokens(_PROBE_TOKENS)
        decode = partial(self.decode, adapter=adapter)
        decode([(0, 0, before, 0)])
        places = range(_PROBE_CONTEXT, _PROBE_CONTEXT + _PROBE_TOKENS)
        rows = (decode([(0, place, [token], 1)]) for place, token in zip(places, tokens, strict=True))
        singly = b"".join(row.tobytes() for row in rows)
        together = self._probe(decode, before, tokens, ((0, _PROBE_TOKENS),))
        return singly == together == self._probe(decode, before, tokens, _PROBE_CHUNKS)

    def _probe_tokens(self, count: int) -> list[int]:
        return [(7 * place + 1) % self.size for place in range(count)]

    def _probe(
        self, decode: Callable[[Sequence[Span]], Rows], before: list[int], tokens: list[int],
        chunks: Iterable[tuple[int, int]],
    ) -> bytes:  # fmt: skip
        """The first slot's logits for `tokens` after `before`, with a neighbour at the same in each batch."""
        neighbours = range(min(2, self._slots))
        self._forget_all()
        decode([(slot, 0, before, 0) for slot in neighbours])
        found = b""
        for start, stop in chunks:
            spans = [(slot, _PROBE_CONTEXT + start, tokens[start:stop], stop - start) for slot in neighbours]
            found += decode(spans)[: stop - start].tobytes()
        self._forget_all()
        return found

    def _forget_all(self) -> None:
        for slot in range(self._slots):
            self.forget(slot)

    def close(self) -> None:
        """Give its memory back."""
        api.llama_free(self.context)
        api.llama_model_free(self._model)


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
        if llama.exact():
            return _with_exact(llama, adapters), True
        llama.close()
    llama = build(recipe=last)
    exact = profile != FAST and llama.exact()
    return _with_exact(llama, adapters) if exact else llama, exact


def _with_exact(llama: Llama, adapters: Iterable[Digest]) -> Llama:
    for adapter in adapters:
        if not llama.exact(adapter):
            raise Unsupported(
                f"with the adapter {adapter.short}… this model's bits depend on who else is computed: the profile fast "
                "can serve it, an exact one cannot"
            )
    return llama


def _padded(tokens: int) -> int:
    return -(-tokens // _CELLS) * _CELLS


def _load(descriptor: int, recipe: Recipe) -> Any:
    params = api.llama_model_default_params()
    _offload(params, recipe.offload)
    params.load_mode = api.LLAMA_LOAD_MODE_MMAP
    params.use_extra_bufts = recipe.repack
    if _progress_callback is not None:
        params.progress_callback = _progress_callback
    model = api.llama_model_load_from_file_ptr(_stream(descriptor), params)
    if not model:
        raise Unsupported("llama.cpp cannot read this file as a model, though it is the file its digest names")
    return model


def _stream(descriptor: int) -> Any:
    """The C library's stream over an open file, from its beginning."""
    libc = ctypes.CDLL(None)
    libc.fdopen.restype = ctypes.c_void_p
    stream = ctypes.c_void_p(libc.fdopen(descriptor, b"rb"))
    if not stream:
        raise Unsupported("the C library opens no stream over the file that was handed over")
    libc.rewind(stream)  # it may have been read before, by another recipe
    return stream


def supports_offload() -> bool:
    """Whether this build can compute layers on a GPU."""
    return bool(api.llama_supports_gpu_offload())


def devices() -> list[str]:
    """What llama.cpp can compute on here, as its backends name it."""
    library: Any = api.llama_cpp._lib  # noqa: SLF001 - the binding leaves these out
    library.ggml_backend_dev_get.restype = ctypes.c_void_p
    found = []
    for number in range(library.ggml_backend_dev_count()):
        device = ctypes.c_void_p(library.ggml_backend_dev_get(ctypes.c_size_t(number)))
        words = []
        for ask in (library.ggml_backend_dev_name, library.ggml_backend_dev_description):
            ask.restype = ctypes.c_char_p
            words.append((ask(device) or b"").decode(errors="replace"))
        found.append(": ".join(words))
    return found


_SPLITS: Final = {
    "layer": api.LLAMA_SPLIT_MODE_LAYER, "row": api.LLAMA_SPLIT_MODE_ROW, "none": api.LLAMA_SPLIT_MODE_NONE,
}  # fmt: skip
_KV_TYPES: Final = {"f16": api.GGML_TYPE_F16, "q8_0": api.GGML_TYPE_Q8_0}


def _offload(params: Any, wanted: Offload) -> None:
    if wanted.layers and not supports_offload():
        raise Misuse(
            "this build of llama.cpp computes nothing on a GPU: build llama-cpp-python with a GPU backend "
            "(CMAKE_ARGS=-DGGML_CUDA=on), or leave out --gpu-layers; `haif doctor` lists what it sees"
        )
    params.n_gpu_layers, params.split_mode, params.main_gpu = wanted.layers, _SPLITS[wanted.split], wanted.main_gpu


class _Batch:
    """A `llama_batch` whose columns are numpy arrays, so that filling it is a few slice assignments."""

    def __init__(self, size: int) -> None:
        self._tokens = np.zeros(size, np.int32)
        self._positions = np.zeros(size, np.int32)
        self._slots = np.zeros(size, np.int32)
        self._due = np.zeros(size, np.int8)
        self._counts = np.ones(size, np.int32)
        self._slot_pointers = self._slots.ctypes.data + 4 * np.arange(size, dtype=np.uint64)
        self._size = size
        self.batch = api.llama_batch(
            n_tokens=0,
            token=ctypes.cast(self._tokens.ctypes.data, ctypes.POINTER(ctypes.c_int32)),
            embd=None,
            pos=ctypes.cast(self._positions.ctypes.data, ctypes.POINTER(ctypes.c_int32)),
            n_seq_id=ctypes.cast(self._counts.ctypes.data, ctypes.POINTER(ctypes.c_int32)),
            seq_id=ctypes.cast(self._slot_pointers.ctypes.data, ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
            logits=ctypes.cast(self._due.ctypes.data, ctypes.POINTER(ctypes.c_int8)),
        )

    def fill(self, spans: Sequence[Span]) -> int:
        """Write the spans; how many rows of logits they ask for."""
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        due: list[bool] = []
        for slot, start, these, wanted in spans:
            count = len(these)
            tokens += these
            positions += range(start, start + count)
            slots += [slot] * count
            due += [False] * (count - wanted)
            due += [True] * wanted
        count = len(tokens)
        assert 0 < count <= self._size, "llama.cpp aborts the process on a larger batch"
        self._tokens[:count] = tokens
        self._positions[:count] = positions
        self._slots[:count] = slots
        self._due[:count] = due
        self.batch.n_tokens = count
        return sum(due)


class _LogitsView:
    """llama.cpp's logits as a numpy matrix, without copying; a new view only when the library moved its buffer."""

    def __init__(self, vocabulary: int) -> None:
        self._vocabulary = vocabulary
        self._address = 0
        self._view: Rows = np.empty((0, vocabulary), np.float32)

    def rows(self, pointer: Any, count: int) -> Rows:
        if count == 0:
            return self._view[:0]
        address = ctypes.addressof(pointer.contents)
        if address != self._address or count > len(self._view):
            raw = (ctypes.c_float * (count * self._vocabulary)).from_address(address)
            self._view = np.frombuffer(memoryview(raw), np.float32).reshape(count, self._vocabulary)
            self._address = address
        return self._view[:count]
