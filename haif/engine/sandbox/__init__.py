"""The jail of the engine child: `jail.seal` builds it, `layers` says what each part is for."""

from __future__ import annotations

from typing import Final

ENVIRONMENT: Final = {
    "GGML_CPU_TILED_MM": "0",  # part of the exact recipes; the profile `fast` sets it
    "GGML_NO_BACKTRACE": "1",  # an abort must not start a debugger
    "LC_ALL": "C.UTF-8",
    "MALLOC_MMAP_THRESHOLD_": "33554432",  # what a step allocates and frees stays ours for the next:
    "MALLOC_TRIM_THRESHOLD_": "268435456",  # page faults would cost more than sampling itself
    "OMP_WAIT_POLICY": "passive",  # idle threads of llama.cpp leave the cores to others
    "OPENBLAS_NUM_THREADS": "1",  # numpy starts no threads
}
"""All that a child inherits of its parent's environment: nothing."""

LIBRARY: Final = "LLAMA_CPP_LIB_PATH"  # where another build of llama.cpp lies, if one is to be used
