"""The tokenizer: a sentencepiece BPE of 2048 pieces with byte fallback, and the chat's control tokens.

Every document becomes `<s>` and then, for each turn of a chat, `<|role|>text<|end|>`; plain text is `<s>text<|end|>`.
`<|end|>` is the end-of-sequence token, so llama.cpp stops there. No space is put before the text: what the model
writes begins with a letter, not with a blank.
"""

from __future__ import annotations

import argparse
import io
from itertools import islice
from pathlib import Path

import sentencepiece

from tools.demo_model.corpus import Turns, documents

VOCABULARY = 2048
ASKED_WEIGHT = 0.2
UNKNOWN, BOS, END = 0, 1, 2
ROLES = {"user": 3, "assistant": 4, "system": 5}
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] | trim + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train(path: Path, seed: int = 7, count: int = 12_000) -> None:
    """Learn the pieces from the first `count` documents and write the model file."""
    lines = (line for turns in islice(documents(seed), count) for _, text in turns for line in text.split("\n"))
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines, model_writer=written, model_type="bpe", vocab_size=VOCABULARY,
        byte_fallback=True, character_coverage=1.0, split_digits=True, add_dummy_prefix=False,
        normalization_rule_name="identity", remove_extra_whitespaces=False, num_threads=1,
        unk_id=UNKNOWN, bos_id=BOS, eos_id=END, pad_id=-1, eos_piece="<|end|>",
        control_symbols=[f"<|{role}|>" for role in ROLES], minloglevel=1,
    )  # fmt: skip
    path.write_bytes(written.getvalue())


def load(path: Path) -> sentencepiece.SentencePieceProcessor:
    """The tokenizer that `train` wrote."""
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


def encode(pieces: sentencepiece.SentencePieceProcessor, turns: Turns) -> tuple[list[int], list[float]]:
    """A document's tokens, and how much each counts in training: questions count little, answers in full."""
    tokens, weights = [BOS], [0.0]
    for role, text in turns:
        part = [*([ROLES[role]] if role in ROLES else []), *pieces.encode(text), END]
        tokens += part
        weights += [1.0 if role in ("assistant", "text") else ASKED_WEIGHT] * len(part)
    return tokens, weights


def main() -> None:
    """Train the tokenizer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where to write the sentencepiece model")
    train(parser.parse_args().out)


if __name__ == "__main__":
    main()
