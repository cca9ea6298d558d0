"""One command from nothing to the GGUF: tokenizer, training, export, comparison with llama.cpp.

`python -m tools.demo_model.rebuild --work .build/demo` takes an hour or so on one core; what is already there is kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tools.demo_model import check, export, tokenizer, train

TARGET = Path("haif/data/demo/haif-demo-3.7m-f16.gguf")


def rebuild(work: Path, target: Path, threads: int) -> None:
    """Make what is missing in `work`, then write and check `target`."""
    work.mkdir(parents=True, exist_ok=True)
    pieces, checkpoint = work / "tokenizer.model", work / "checkpoint.pt"
    if not pieces.exists():
        tokenizer.train(pieces)
    train.run(work, pieces, steps=train.STEPS, seed=train.SEED, threads=threads)
    target.parent.mkdir(parents=True, exist_ok=True)
    export.export(checkpoint, pieces, target)
    check.compare(target, checkpoint, pieces)


def main() -> None:
    """Rebuild from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="a folder for the tokenizer, checkpoints and the log")
    parser.add_argument("--out", type=Path, default=TARGET)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    rebuild(options.work, options.out, options.threads)


if __name__ == "__main__":
    main()
