"""Makes LoRA adapters of random numbers for any model of the llama family: what tests and benchmarks need of one.

    python -m tools.random_adapter MODEL.gguf ADAPTER.gguf [--rank 8] [--seed 1] [--format f32|f16|bf16|q8_0]

Each product of the model that an adapter may change gets a pair (A: rank rows of the width that goes in, B: as many
columns), as llama.cpp's `convert_lora_to_gguf.py` writes them. `strength` is how much of a weight's own size a change
has, so that answers differ and stay numbers.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import gguf
import numpy as np

from haif.artifacts.gguf import read_header

_CHANGED: Final = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
FORMATS: Final = ("f32", "f16", "bf16", "q8_0")


def random_adapter(
    model: Path, path: Path, *, rank: int = 8, alpha: float = 16.0, seed: int = 1, strength: float = 0.5,
    kind: str = "f32",
) -> Path:  # fmt: skip
    """Write an adapter for the model to `path`."""
    with model.open("rb") as file:
        header = read_header(file, model.stat().st_size)
    writer = gguf.GGUFWriter(str(path), str(header.metadata["general.architecture"]))
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    random = np.random.default_rng(seed)
    stored = gguf.GGMLQuantizationType[kind.upper()]
    for name, tensor in header.tensors.items():
        if name.removesuffix(".weight").rpartition(".")[2] not in _CHANGED:
            continue
        wide, high = tensor.shape
        down = random.standard_normal((rank, wide), np.float32) / np.float32(wide**0.5)
        up = random.standard_normal((high, rank), np.float32) * np.float32(strength / alpha)
        _add(writer, f"{name}.lora_a", down, stored)
        _add(writer, f"{name}.lora_b", up, stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, name: str, values: np.ndarray, kind: gguf.GGMLQuantizationType) -> None:
    if kind == gguf.GGMLQuantizationType.F32:
        writer.add_tensor(name, values)
    elif kind == gguf.GGMLQuantizationType.F16:
        writer.add_tensor(name, values.astype(np.float16))
    else:
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)


def main() -> None:
    """Make one and say where it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--format", choices=FORMATS, default="f32")
    chosen = parser.parse_args()
    print(random_adapter(chosen.model, chosen.adapter, rank=chosen.rank, seed=chosen.seed, kind=chosen.format))


if __name__ == "__main__":
    main()
