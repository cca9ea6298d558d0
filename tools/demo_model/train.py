"""The trainer: rows of packed documents, Muon for the matrices and AdamW for the rest, a seed for everything.

Each step's batch is made from the seed and the step's number alone, so a run that was stopped goes on as if it had not
been. The rate rises for a moment, stays, and falls in a straight line to zero at the end (a trapezoid).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from torch import Tensor
from torch.nn import functional

from tools.demo_model.corpus import documents
from tools.demo_model.model import Model, Shape
from tools.demo_model.tokenizer import BOS, encode, load

STEPS, SEED = 4200, 1
TOKENS_PER_STEP = 4096
LENGTHS = (256, 256, 512, 256, 256, 256, 1024, 256)  # of the rows, step by step; short rows train fastest
RATE_MUON, RATE_ADAM = 0.01, 2e-3
WARM_STEPS, FALLING_PART = 60, 0.4
HELD_OUT_SEED = 999_999_937
Batch = tuple[Tensor, Tensor]


def batch(pieces: sentencepiece.SentencePieceProcessor, seed: int, length: int, tokens: int = TOKENS_PER_STEP) -> Batch:
    """Rows of `length + 1` tokens and their weights. Each row begins with a document; the last one in it may be cut."""
    source = documents(seed)
    rows, weights = [], []
    for _ in range(tokens // length):
        row: list[int] = []
        weight: list[float] = []
        while len(row) <= length:
            some, theirs = encode(pieces, next(source))
            row += some
            weight += theirs
        rows.append(row[: length + 1])
        weights.append(weight[: length + 1])
    return torch.tensor(rows), torch.tensor(weights)


def curtains(tokens: Tensor) -> Tensor:
    """What hides the future and the documents before: 0 where a position may look, minus infinity elsewhere."""
    document = (tokens == BOS).cumsum(1)
    length = tokens.shape[1]
    seen = (document[:, :, None] == document[:, None, :]) & torch.ones(length, length, dtype=torch.bool).tril()
    return torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))[:, None]


def loss_of(model: Model, rows: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean cross-entropy of each next token, in nats.

    In the longest rows everything before is seen, other documents too: so distances up to the full context are met.
    """
    tokens = rows[:, :-1]
    hidden = None if tokens.shape[1] == max(LENGTHS) else curtains(tokens).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(tokens, hidden)
    each = functional.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten(), reduction="none")
    weight = weights[:, 1:].flatten()
    return (each * weight).sum() / weight.sum()


def rate(step: int, steps: int) -> float:
    """The trapezoid, as a part of the full rate."""
    falling = max(1, int(steps * FALLING_PART))
    return min(1.0, (step + 1) / WARM_STEPS, (steps - step) / falling)


def optimisers(model: Model) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for the embedding and the norms."""
    matrices = [w for w in model.blocks.parameters() if w.dim() == 2]
    others = [w for name, w in model.named_parameters() if w.dim() == 1 or name.startswith("embedding")]
    return [
        torch.optim.Muon(matrices, lr=RATE_MUON, weight_decay=0.01),
        torch.optim.AdamW(others, lr=RATE_ADAM, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def save(path: Path, model: Model, optims: list[torch.optim.Optimizer], step: int) -> None:
    """Write a checkpoint, whole or not at all."""
    state = {"shape": asdict(model.shape), "model": model.state_dict(), "step": step}
    state["optimisers"] = [optim.state_dict() for optim in optims]
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def restore(path: Path) -> tuple[Model, dict[str, Any]]:
    """The model of a checkpoint, and the rest of what it holds."""
    state = torch.load(path, weights_only=True)
    model = Model(Shape(**state["shape"]))
    model.load_state_dict(state["model"])
    return model, state


def start(checkpoint: Path) -> tuple[Model, list[torch.optim.Optimizer], int]:
    """A new model, or the one where an earlier run stopped; its optimisers, and the step to go on with."""
    if not checkpoint.exists():
        model = Model(Shape())
        return model, optimisers(model), 0
    model, state = restore(checkpoint)
    optims = optimisers(model)
    for optim, kept in zip(optims, state["optimisers"], strict=True):
        optim.load_state_dict(kept)
    return model, optims, state["step"]


def learn(model: Model, optims: list[torch.optim.Optimizer], rows: Batch, part: float) -> float:
    """One step at that part of the full rate; the loss before it."""
    for optim, full in zip(optims, (RATE_MUON, RATE_ADAM), strict=True):
        for group in optim.param_groups:
            group["lr"] = full * part
    loss = loss_of(model, *rows)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optim in optims:
        optim.step()
        optim.zero_grad()
    return loss.item()


@torch.no_grad()
def held_out_loss(model: Model, batches: list[Batch]) -> list[float]:
    """The loss on documents that are never trained on, for rows of 256, 512 and 1024."""
    return [loss_of(model, *rows).item() for rows in batches]


def run(out: Path, pieces_path: Path, *, steps: int, seed: int, threads: int) -> None:
    """Train up to `steps` steps, going on from `out/checkpoint.pt` where there is one; `log.jsonl` keeps the losses."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    pieces = load(pieces_path)
    model, optims, first = start(out / "checkpoint.pt")
    held_out = [batch(pieces, HELD_OUT_SEED + n, length) for n, length in enumerate(sorted(set(LENGTHS)))]
    print(f"{model.size():,} parameters, {steps} steps of {TOKENS_PER_STEP} tokens", flush=True)
    began = time.monotonic()
    for step, length in islice(enumerate(cycle(LENGTHS)), first, steps):
        loss = learn(model, optims, batch(pieces, seed * 1_000_000 + step, length), rate(step, steps))
        done = step + 1
        if done % 20 == 0:
            speed = (done - first) * TOKENS_PER_STEP / (time.monotonic() - began)
            print(f"step {done} loss {loss:.4f} {speed:.0f} tokens/s", flush=True)
        if done % 200 == 0 or done == steps:
            line = {"step": done, "tokens": done * TOKENS_PER_STEP, "held_out": held_out_loss(model, held_out)}
            print(line, flush=True)
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            save(out / "checkpoint.pt", model, optims, done)


def main() -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    run(options.out, options.tokenizer, steps=options.steps, seed=options.seed, threads=options.threads)


if __name__ == "__main__":
    main()
