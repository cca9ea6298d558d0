"""Makes model files of a size and format, with random parameters: what a benchmark needs where nothing is downloaded.

    python -m tools.random_model SIZE FORMAT [--folder .build/models]        SIZE: 100m, 1b   FORMAT: f16, q8_0, q4_0

1. Parameters are drawn tensor by tensor from a seed and written as F16, so that memory never holds more than one.
2. llama.cpp's own quantiser (`llama_model_quantize`) makes the format of that, as it does of any model.

The text of such a model is nonsense; its shapes, speed and rounding are those of a real one.
"""

from __future__ import annotations

import argparse
import ctypes
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import gguf
import llama_cpp as api
import numpy as np

from tests.support.tiny_model import write_vocabulary
from tools.setup import show_progress

FOLDER = Path(__file__).resolve().parents[1] / ".build" / "models"


@dataclass(frozen=True)
class Shape:
    """A llama architecture."""

    layers: int
    width: int
    heads: int
    heads_kv: int
    feed_forward: int
    vocabulary: int
    context: int = 4096

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...], float]]:
        """Name, shape and standard deviation of each; 0 stands for a norm, which is all ones."""
        width, keys = self.width, self.width // self.heads * self.heads_kv
        unit = width**-0.5
        yield "token_embd.weight", (self.vocabulary, width), 1.0
        yield "output.weight", (self.vocabulary, width), 3.0 * unit
        yield "output_norm.weight", (width,), 0.0
        for layer in range(self.layers):
            for name, rows, columns, deviation in (
                ("attn_q", width, width, 2.0 * unit),
                ("attn_k", keys, width, 2.0 * unit),
                ("attn_v", keys, width, 2.0 * unit),
                ("attn_output", width, width, 2.0 * unit),
                ("ffn_gate", self.feed_forward, width, unit),
                ("ffn_up", self.feed_forward, width, unit),
                ("ffn_down", width, self.feed_forward, self.feed_forward**-0.5),
            ):
                yield f"blk.{layer}.{name}.weight", (rows, columns), deviation
            yield f"blk.{layer}.attn_norm.weight", (width,), 0.0
            yield f"blk.{layer}.ffn_norm.weight", (width,), 0.0


SHAPES: Final = {
    "100m": Shape(layers=12, width=768, heads=12, heads_kv=12, feed_forward=2048, vocabulary=8192),
    "1b": Shape(layers=16, width=2048, heads=32, heads_kv=8, feed_forward=8192, vocabulary=32_000),
}
_callbacks: Final[list[object]] = []  # llama.cpp keeps the last; were it gone, the next line it logs ends the process
FORMATS: Final = {"q8_0": api.LLAMA_FTYPE_MOSTLY_Q8_0, "q4_0": api.LLAMA_FTYPE_MOSTLY_Q4_0}


def random_model(size: str, kind: str, folder: Path = FOLDER) -> Path:
    """The file of that size and format, made now if it is not there."""
    path = folder / f"random-{size}-{kind}.gguf"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    if kind == "f16":
        print(f"-> {path.name}: drawing parameters", flush=True)
        _draw(SHAPES[size], unfinished)
    else:
        whole = random_model(size, "f16", folder)
        print(f"-> {path.name}: quantising", flush=True)
        _quantise(whole, unfinished, FORMATS[kind])
    return unfinished.rename(path)


def _draw(shape: Shape, path: Path) -> None:
    writer = gguf.GGUFWriter(str(path), "llama")
    _header(writer, shape)
    write_vocabulary(writer, shape.vocabulary, None)
    tensors = list(shape.tensors())
    for name, size, deviation in tensors:
        kind = np.dtype(np.float16 if deviation else np.float32)
        writer.add_tensor_info(name, size, kind, int(np.prod(size)) * kind.itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = np.random.default_rng(7)
    began = time.monotonic()
    for place, (name, size, deviation) in enumerate(tensors):
        if deviation:
            values = random.standard_normal(size, np.float32)
            values *= np.float32(deviation)
            if name == "output.weight":
                values[2] = 0.0  # the token that ends a text: hardly ever the likeliest
            writer.write_tensor_data(values.astype(np.float16))
        else:
            writer.write_tensor_data(np.ones(size, np.float32))
        show_progress(f"[{place + 1}/{len(tensors)}]", began)
    writer.close()
    print(flush=True)


def _header(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_name("random llama")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads_kv)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_vocab_size(shape.vocabulary)


def _quantise(source: Path, target: Path, kind: int) -> None:
    began = time.monotonic()

    def log(_: int, text: bytes, __: object) -> None:
        if found := re.match(rb"\[ *(\d+)/ *(\d+)\]", text):
            show_progress(f"[{int(found[1])}/{int(found[2])}]", began)

    _callbacks.append(api.llama_log_callback(log))
    api.llama_log_set(_callbacks[-1], ctypes.c_void_p(0))
    params = api.llama_model_quantize_default_params()
    params.ftype, params.nthread = kind, 1
    if api.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)) != 0:
        sys.exit(f"llama.cpp could not quantise {source}")
    print(flush=True)


def main() -> None:
    """Make one and say where it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=SHAPES)
    parser.add_argument("format", choices=("f16", *FORMATS))
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    print(random_model(options.size, options.format, options.folder))


if __name__ == "__main__":
    main()
