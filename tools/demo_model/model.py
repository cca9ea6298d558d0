"""The network: a plain Llama decoder, small enough to be read and trained in one sitting.

Tensor shapes follow llama.cpp's needs: every matrix's inner dimension is a multiple of 256, so that each of the
K-quants applies. The rotation is the interleaved one (pairs 2i, 2i+1), which is what llama.cpp computes for the
"llama" architecture; a checkpoint therefore goes into the GGUF without permuting Q and K.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the network; the defaults are the ones that ship."""

    vocabulary: int = 2048
    width: int = 256
    layers: int = 4
    heads: int = 4
    heads_kv: int = 2
    ffn: int = 768
    context: int = 1024
    rope_base: float = 10000.0
    norm_epsilon: float = 1e-5

    @property
    def head(self) -> int:
        """The width of one head."""
        return self.width // self.heads


def rotations(shape: Shape) -> Tensor:
    """The angles of RoPE (arXiv 2104.09864): `(context, head / 2, 2)`, cosine and sine."""
    steps = torch.arange(0, shape.head, 2, dtype=torch.float32) / shape.head
    angles = torch.outer(torch.arange(shape.context, dtype=torch.float32), shape.rope_base**-steps)
    return torch.stack((angles.cos(), angles.sin()), dim=-1)


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Turn each pair `(2i, 2i+1)` of the last axis of `x`, shaped `(batch, length, heads, head)`."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = turns[: x.shape[1], None, :, 0], turns[: x.shape[1], None, :, 1]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2).to(x.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None) -> Tensor:
    """Attention over `(batch, heads, length, head)`: causal, or less what `hidden` takes (`-inf` where it does).

    The second is written out: on a CPU, in bfloat16 and for short rows, that takes a third of the fused kernel's time.
    """
    if hidden is None:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    mixed: Tensor = (scores + hidden.to(scores.dtype)).softmax(-1, dtype=scores.dtype) @ v
    return mixed


class Attention(nn.Module):
    """Grouped-query self-attention with a causal mask."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.query = nn.Linear(shape.width, shape.heads * shape.head, bias=False)
        self.key = nn.Linear(shape.width, shape.heads_kv * shape.head, bias=False)
        self.value = nn.Linear(shape.width, shape.heads_kv * shape.head, bias=False)
        self.out = nn.Linear(shape.heads * shape.head, shape.width, bias=False)

    def forward(self, x: Tensor, turns: Tensor, hidden: Tensor | None) -> Tensor:
        """Mix `x`, shaped `(batch, length, width)`, over the positions before each."""
        batch, length, _ = x.shape
        s = self.shape
        q = rotate(self.query(x).view(batch, length, s.heads, s.head), turns).transpose(1, 2)
        k = rotate(self.key(x).view(batch, length, s.heads_kv, s.head), turns).transpose(1, 2)
        v = self.value(x).view(batch, length, s.heads_kv, s.head).transpose(1, 2)
        group = s.heads // s.heads_kv
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        mixed = attend(q, k, v, hidden)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, -1))
        return out


class Block(nn.Module):
    """One layer: attention, then a SwiGLU feed-forward, each behind an RMSNorm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.attention = Attention(shape)
        self.ffn_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.gate = nn.Linear(shape.width, shape.ffn, bias=False)
        self.up = nn.Linear(shape.width, shape.ffn, bias=False)
        self.down = nn.Linear(shape.ffn, shape.width, bias=False)

    def forward(self, x: Tensor, turns: Tensor, hidden: Tensor | None) -> Tensor:
        """Add this layer's contribution to the residual stream."""
        x = x + self.attention(self.attention_norm(x), turns, hidden)
        y = self.ffn_norm(x)
        out: Tensor = x + self.down(functional.silu(self.gate(y)) * self.up(y))
        return out


class Model(nn.Module):
    """Tokens in, logits out. The embedding serves as the output matrix too (tied)."""

    turns: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.register_buffer("turns", rotations(shape), persistent=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                depth = (2 * shape.layers) ** -0.5 if name.endswith(("out.weight", "down.weight")) else 1.0
                nn.init.normal_(weight, std=0.02 if "embedding" in name else depth * weight.shape[1] ** -0.5)

    def forward(self, tokens: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Logits `(batch, length, vocabulary)` for the token after each of `tokens`, `(batch, length)`."""
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.turns, hidden)
        return functional.linear(self.norm(x), self.embedding.weight)

    def size(self) -> int:
        """The number of parameters."""
        return sum(weight.numel() for weight in self.parameters())
