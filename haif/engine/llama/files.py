"""Models and adapters from files that are open already: in the jail there is no path to open one by."""

from __future__ import annotations

import ctypes
from typing import Any, Final

import llama_cpp as api

from haif.base.errors import Misuse, Unsupported
from haif.base.ids import Digest
from haif.engine.llama.library import progress_callback, supports_offload
from haif.engine.profile import Offload, Recipe

_SPLITS: Final = {
    "layer": api.LLAMA_SPLIT_MODE_LAYER, "row": api.LLAMA_SPLIT_MODE_ROW, "none": api.LLAMA_SPLIT_MODE_NONE,
}  # fmt: skip


def load_model(descriptor: int, recipe: Recipe) -> Any:
    """The model of an open file, as a recipe has its weights. Raises `Unsupported`, or `Misuse` for GPUs it lacks."""
    params = api.llama_model_default_params()
    _offload(params, recipe.offload)
    params.load_mode = api.LLAMA_LOAD_MODE_MMAP
    params.use_extra_bufts = recipe.repack
    progress = progress_callback()
    if progress is not None:
        params.progress_callback = progress
    model = api.llama_model_load_from_file_ptr(_stream(descriptor), params)
    if not model:
        raise Unsupported("llama.cpp cannot read this file as a model, though it is the file its digest names")
    return model


def load_adapter(model: Any, digest: Digest, descriptor: int) -> Any:
    """The adapter of an open file, for a model that is loaded; it is freed with it. Raises `Unsupported`."""
    adapter = api.llama_adapter_lora_init_from_file_ptr(model, _stream(descriptor))
    if not adapter:
        raise Unsupported(f"llama.cpp cannot put the adapter {digest.short}… on this model")
    return adapter


def _stream(descriptor: int) -> Any:
    """The C library's stream over an open file, from its beginning."""
    libc = ctypes.CDLL(None)
    libc.fdopen.restype = ctypes.c_void_p
    stream = ctypes.c_void_p(libc.fdopen(descriptor, b"rb"))
    if not stream:
        raise Unsupported("the C library opens no stream over the file that was handed over")
    libc.rewind(stream)  # it may have been read before, by another recipe
    return stream


def _offload(params: Any, wanted: Offload) -> None:
    if wanted.layers and not supports_offload():
        raise Misuse(
            "this build of llama.cpp computes nothing on a GPU: build llama-cpp-python with a GPU backend "
            "(CMAKE_ARGS=-DGGML_CUDA=on), or leave out --gpu-layers; `haif doctor` lists what it sees"
        )
    params.n_gpu_layers, params.split_mode, params.main_gpu = wanted.layers, _SPLITS[wanted.split], wanted.main_gpu
