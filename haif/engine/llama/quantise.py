"""Another file of a model: in other numbers, or without some of its layers, as llama.cpp's own quantiser makes it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Final

import llama_cpp as api

from haif.base.errors import Unsupported
from haif.engine.llama.library import set_log

_PREFIX: Final = "LLAMA_FTYPE_MOSTLY_"
_END: Final = -1  # of a list of layers


def quantise(source: str, target: str, kind: str, *, without: Sequence[int] = ()) -> None:
    """Write the model of the file `source` to the file `target` as `kind` ("F16", "Q8_0", "Q4_K_M"), on one thread.

    `without`: the numbers of the layers to leave out; those behind them move up. Raises `Unsupported` for a kind that
    llama.cpp does not know, or a model it cannot make this of.
    """
    ftype = getattr(api, _PREFIX + kind, None)
    if ftype is None:
        raise Unsupported(f"llama.cpp knows no quantisation {kind!r}")
    said: list[str] = []
    set_log(said.append)
    settings = api.llama_model_quantize_default_params()
    settings.ftype, settings.nthread, settings.allow_requantize = ftype, 1, True
    if without:
        settings.prune_layers = (ctypes.c_int32 * (len(without) + 1))(*sorted(without), _END)
    if api.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(settings)) != 0:
        raise Unsupported(
            f"llama.cpp could not make {kind} of this model: {''.join(said).strip() or 'it did not say why'}"
        )
