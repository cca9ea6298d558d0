"""Quantised siblings of the demo model, made by llama.cpp's own quantiser.

`quantise(source, target, "Q4_K_M")` from a test, or from the command line:
`python -m tools.demo_model.quantise SOURCE --out FOLDER --types Q8_0 Q4_0 Q4_K_M`.
"""

from __future__ import annotations

import argparse
import ctypes
from pathlib import Path

import llama_cpp

_PREFIX = "LLAMA_FTYPE_MOSTLY_"
TYPES = {name.removeprefix(_PREFIX): getattr(llama_cpp, name) for name in dir(llama_cpp) if name.startswith(_PREFIX)}
USUAL = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K")


def quantise(source: Path, target: Path, type_name: str) -> Path:
    """Write `source`, a GGUF file in F16, to `target` as `type_name` (one of `TYPES`, as "Q4_K_M").

    ValueError for a type that llama.cpp does not know, FileNotFoundError for a source that is not there, RuntimeError
    when the quantiser gives up. `target` appears whole or not at all, and is returned.
    """
    if type_name not in TYPES:
        raise ValueError(f"no quantisation is called {type_name!r}; there are {', '.join(sorted(TYPES))}")
    if not source.is_file():
        raise FileNotFoundError(source)
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = TYPES[type_name]
    settings.nthread = 1
    partial = target.with_name(target.name + ".part")
    code = llama_cpp.llama_model_quantize(str(source).encode(), str(partial).encode(), ctypes.byref(settings))
    if code != 0:
        partial.unlink(missing_ok=True)
        raise RuntimeError(f"llama.cpp could not make {target.name} from {source.name} (code {code})")
    return partial.replace(target)


def sibling(source: Path, folder: Path, type_name: str) -> Path:
    """Where a quantised sibling goes: `haif-demo-3.7m-f16.gguf` becomes `haif-demo-3.7m-q4_k_m.gguf`."""
    stem = source.stem.removesuffix("-f16")
    return folder / f"{stem}-{type_name.lower()}.gguf"


def main() -> None:
    """Quantise from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--types", nargs="+", default=USUAL)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.types:
        made = quantise(options.source, sibling(options.source, options.out, name), name)
        print(f"{made}: {made.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
