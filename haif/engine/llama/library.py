"""llama.cpp as a library of this process: what it says, what it was built with, what it can compute on."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from typing import Any, Final

import llama_cpp as api

_LOG_ERROR: Final = 4
_V3: Final = frozenset({"sse3", "ssse3", "avx", "avx2", "f16c", "fma", "bmi2"})  # what ggml uses of x86-64-v3

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


def progress_callback() -> Any:
    """What `set_progress` made; None where nobody wants to hear."""
    return _progress_callback


def build() -> str:
    """What the library itself says it was built with."""
    flags = re.findall(r"(\w+) = 1", api.llama_print_system_info().decode(errors="replace").lower())
    if set(flags) >= _V3:
        flags = ["x86-64-v3", *(flag for flag in flags if flag not in _V3)]
    return f"llama-cpp-python/{api.__version__} cpu {'+'.join(flags)}"


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
