"""Files that a liar serves for a model: it in fewer bits, it without some of its layers, other adapters for it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from haif.artifacts.gguf import Header, read_header
from haif.engine.llama.quantise import quantise

LADDER: Final = ("F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K")  # ever fewer bits
_ALIGNMENT: Final = 32
_RANK: Final = 8
_CHANGED: Final = ("attn_q", "attn_v", "ffn_down")  # the products that an adapter changes
_STRING, _FLOAT = 8, 6  # types of GGUF's metadata


class Siblings:
    """Files made of the model in `source`, in `folder`, each when it is wanted first."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.source = source
        self._folder = folder

    def quantised(self, kind: str) -> Path:
        """The model as one of `LADDER`, made by llama.cpp."""
        return self._made(f"{self.source.stem}-as-{kind.lower()}", kind, ())

    def shorn(self, *layers: int) -> Path:
        """The model without these of its layers; negative numbers count from the last."""
        count = self.layers
        numbers = [layer % count for layer in layers]
        name = f"{self.source.stem}-without-{'-'.join(map(str, numbers))}"
        return self._made(name, "F16", numbers)

    def adapter(self, seed: int, *, alpha: float = 16.0, strength: float = 0.5) -> Path:
        """A LoRA adapter of random numbers; `strength` is how large a change is beside a weight, at `alpha` 16."""
        path = self._folder / f"{self.source.stem}-adapter-{seed}-{alpha:g}.gguf"
        if not path.exists():
            _write_adapter(path, self._header(), seed, alpha, strength)
        return path

    @property
    def layers(self) -> int:
        """How many the model has."""
        metadata = self._header().metadata
        count = metadata[f"{metadata['general.architecture']}.block_count"]
        assert isinstance(count, int), "the strict reader and llama.cpp took it for a number"
        return count

    def _header(self) -> Header:
        with self.source.open("rb") as file:
            return read_header(file, self.source.stat().st_size)

    def _made(self, name: str, kind: str, without: Sequence[int]) -> Path:
        path = self._folder / f"{name}.gguf"
        if not path.exists():
            unfinished = path.with_suffix(".part")
            quantise(str(self.source), str(unfinished), kind, without=without)
            unfinished.replace(path)
        return path


def _write_adapter(path: Path, model: Header, seed: int, alpha: float, strength: float) -> None:
    """As llama.cpp's convert_lora_to_gguf.py writes one: a pair of matrices for each product that is changed."""
    random = np.random.default_rng(seed)
    tensors: list[tuple[str, npt.NDArray[np.float32]]] = []
    for name, tensor in model.tensors.items():
        if name.removesuffix(".weight").rpartition(".")[2] in _CHANGED:
            wide, high = tensor.shape
            down = random.standard_normal((_RANK, wide), np.float32) / np.float32(wide**0.5)
            up = random.standard_normal((high, _RANK), np.float32) * np.float32(strength / 16.0)
            tensors += [(f"{name}.lora_a", down), (f"{name}.lora_b", up)]
    texts = {
        "general.architecture": str(model.metadata["general.architecture"]),
        "general.type": "adapter", "adapter.type": "lora",
    }  # fmt: skip
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(texts) + 1)
    head += b"".join(_text(key) + struct.pack("<I", _STRING) + _text(value) for key, value in texts.items())
    head += _text("adapter.lora.alpha") + struct.pack("<If", _FLOAT, alpha)
    data = b""
    for name, values in tensors:
        head += _text(name) + struct.pack("<IQQIQ", 2, *reversed(values.shape), 0, len(data))
        data += _padded(values.tobytes())
    path.write_bytes(_padded(head) + data)


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)
