"""A model's KV cache, and the bounds of the batches it is computed in, by the recipe of an execution profile."""

from __future__ import annotations

from typing import Any, Final

import llama_cpp as api

from haif.base import limits
from haif.base.errors import Misuse
from haif.engine.profile import Recipe
from haif.engine.schedule import batch_tokens_max

ROWS: Final = limits.DRAFT_TOKENS_AHEAD + 1  # logits that one sequence may ask for in one batch
_CELLS: Final = 256  # llama.cpp pads the context of a sequence to a multiple of this
_KV_TYPES: Final = {"f16": api.GGML_TYPE_F16, "q8_0": api.GGML_TYPE_Q8_0}


def open_context(
    model: Any, recipe: Recipe, *, slots: int, context_tokens: int, cells: int, threads: int, pooling: int
) -> Any:
    """A share of `context_tokens` for each slot, or `cells` for all; `pooling`: how vectors are made, 0 for text.

    Raises `Misuse` when it does not fit into memory.
    """
    params = api.llama_context_default_params()
    params.n_ctx = _padded(cells) or slots * _padded(context_tokens)
    params.n_batch = params.n_ubatch = batch_tokens_max(slots)
    params.n_seq_max = slots
    params.n_outputs_max_per_seq = ROWS
    params.n_threads = params.n_threads_batch = threads
    params.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_AUTO if recipe.flash else api.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.type_k = params.type_v = _KV_TYPES[recipe.kv]
    params.kv_unified = recipe.unified
    if pooling:
        params.embeddings = True
        params.n_batch = params.n_ubatch = context_tokens  # what is pooled is computed in one piece
        params.n_outputs_max_per_seq = 0
        params.kv_unified |= pooling in (api.LLAMA_POOLING_TYPE_MEAN, api.LLAMA_POOLING_TYPE_CLS)
    params.offload_kqv = params.op_offload = bool(recipe.offload.layers)
    context = api.llama_init_from_model(model, params)
    if not context:
        raise Misuse(f"llama.cpp could not make a context of {slots} times {context_tokens} tokens: use fewer")
    return context


def _padded(tokens: int) -> int:
    return -(-tokens // _CELLS) * _CELLS
