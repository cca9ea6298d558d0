"""Whether a GGUF header describes a LoRA adapter that belongs on a model: checked before llama.cpp sees it.

llama.cpp leaves out what it does not know, compares two of the dimensions, and ends its process over a number of
another type or a product that cannot be; so here every tensor must be one half of a pair for a product of the model, in
all its dimensions. What is refused with a reason of its own: changes of the token embedding (where it is the output
too, llama.cpp ends its process over them), of norms (it leaves them out), and adapters that begin to count at certain
tokens only.

Format: `convert_lora_to_gguf.py` and llama-adapter.cpp of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NoReturn

from haif.artifacts.gguf import Double, Header, Tensor
from haif.base import limits
from haif.base.errors import Malformed

_NUMBERS: Final = {0: "F32", 1: "F16", 8: "Q8_0", 30: "BF16"}  # what is written by those who make adapters
_PRODUCTS: Final = frozenset({
    "attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output", "ffn_gate", "ffn_up", "ffn_down", "ffn_gate_exps",
    "ffn_up_exps", "ffn_down_exps", "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp", "output",
})  # fmt: skip
_EMBEDDING: Final = "token_embd.weight"


def is_adapter(header: Header) -> bool:
    """Whether the file says that it is one."""
    return header.metadata.get("general.type") == "adapter"


def check_adapter(header: Header, base: Header) -> int:
    """The adapter's rank, the largest of its pairs', if it can be put on the base. Raises `Malformed`."""
    metadata = header.metadata
    if not is_adapter(header) or metadata.get("adapter.type") != "lora":
        _refuse("general.type is not adapter, or adapter.type not lora")
    family = metadata.get("general.architecture")
    theirs = base.metadata.get("general.architecture")
    if not isinstance(family, str) or family != theirs:
        _refuse(f"it is for the architecture {str(family)[:40]!r}, and the base model is {str(theirs)[:40]!r}")
    if base.metadata.get(f"{family}.pooling_type"):
        _refuse("its base model makes vectors, and adapters are served on models that make text")
    alpha = metadata.get("adapter.lora.alpha")
    if not isinstance(alpha, float) or isinstance(alpha, Double) or not 0 < alpha <= limits.ADAPTER_ALPHA_MAX:
        _refuse(f"adapter.lora.alpha is no number of four bytes from 0 to {limits.ADAPTER_ALPHA_MAX:g}")
    if any(key.startswith("adapter.alora.") for key in metadata):
        _refuse("it begins to count at certain tokens only (aLoRA), which is not served")
    if not header.tensors:
        _refuse("it has no tensors")
    names = dict.fromkeys(_target(tensor, base.tensors) for tensor in header.tensors.values())
    return max(_rank(name, header.tensors, base.tensors[name]) for name in names)


def _target(tensor: Tensor, base: Mapping[str, Tensor]) -> str:
    """Which weight of the base the tensor is half of a change of."""
    name, _, half = tensor.name.rpartition(".")
    if half not in ("lora_a", "lora_b"):
        _refuse(f"the tensor {tensor.name!r} is no half of a pair (.lora_a and .lora_b)")
    if name == _EMBEDDING:
        _refuse("it changes the token embedding, which is not served: llama.cpp may end its process over that")
    if name not in base:
        _refuse(f"it changes {name!r}, which its base model does not have")
    if name.removesuffix(".weight").rpartition(".")[2] not in _PRODUCTS or len(base[name].shape) < 2:
        _refuse(f"it changes {name!r}, which llama.cpp would leave as it is")
    if tensor.kind not in _NUMBERS:
        _refuse(f"the tensor {tensor.name!r} is of type {tensor.kind}; those of adapters are {_listed(_NUMBERS)}")
    return name


def _rank(name: str, tensors: Mapping[str, Tensor], weight: Tensor) -> int:
    halves = [tensors.get(f"{name}.{half}") for half in ("lora_a", "lora_b")]
    down, up = halves
    if down is None or up is None:
        _refuse(f"the pair for {name!r} lacks a half")
    wide, high, *experts = weight.shape
    rank = down.shape[1] if len(down.shape) > 1 else 1
    if not 1 <= rank <= limits.ADAPTER_RANK_MAX:
        _refuse(f"the rank of the pair for {name!r} is {rank}, at most {limits.ADAPTER_RANK_MAX} is served")
    if _full(down.shape) != _full((wide, rank, *experts)) or _full(up.shape) != _full((rank, high, *experts)):
        _refuse(
            f"the pair for {name!r} is {_shape(down)} and {_shape(up)}, and the base model's weight {_shape(weight)}: "
            "it is for another model"
        )
    return rank


def _full(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The four dimensions that ggml has; those that a file leaves out are 1."""
    return (*shape, *(1 for _ in range(4 - len(shape))))


def _shape(tensor: Tensor) -> str:
    return " by ".join(map(str, tensor.shape))


def _listed(kinds: Mapping[int, str]) -> str:
    return ", ".join(kinds.values())


def _refuse(why: str) -> NoReturn:
    raise Malformed(f"not an adapter that can be served: {why}")
