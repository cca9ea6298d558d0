"""The exporter: a checkpoint and its tokenizer become one GGUF file, F16, that llama.cpp reads as a Llama.

The network rotates the pairs (2i, 2i+1), as llama.cpp does for the "llama" architecture, so Q and K go out as they
are (models from Hugging Face rotate halves and must be permuted). The output matrix is the embedding and is not
written twice: llama.cpp falls back to `token_embd`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
from numpy.typing import NDArray

from tools.demo_model.model import Model, Shape
from tools.demo_model.tokenizer import BOS, CHAT_TEMPLATE, END, UNKNOWN, load
from tools.demo_model.train import restore

NAME = "HAIF demo 3.7M"
DESCRIPTION = "A very small Llama that tells stories and answers questions about one invented village."
SIZE_MAX_BYTES = 8_000_000
BLOCK = {
    "attn_norm": "attention_norm", "attn_q": "attention.query", "attn_k": "attention.key", "attn_v": "attention.value",
    "attn_output": "attention.out", "ffn_norm": "ffn_norm", "ffn_gate": "gate", "ffn_up": "up", "ffn_down": "down",
}  # fmt: skip


def metadata(writer: gguf.GGUFWriter, shape: Shape, parameters: int) -> None:
    """Who the model is and how large."""
    writer.add_name(NAME)
    writer.add_description(DESCRIPTION)
    writer.add_license("Apache-2.0")
    writer.add_size_label("3.7M")
    writer.add_uint64("general.parameter_count", parameters)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads_kv)
    writer.add_rope_dimension_count(shape.head)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_vocab_size(shape.vocabulary)


def kind(pieces: sentencepiece.SentencePieceProcessor, token: int) -> gguf.TokenType:
    """What sort of token this is, in llama.cpp's terms."""
    if pieces.is_unknown(token):
        return gguf.TokenType.UNKNOWN
    if pieces.is_control(token):
        return gguf.TokenType.CONTROL
    return gguf.TokenType.BYTE if pieces.is_byte(token) else gguf.TokenType.NORMAL


def vocabulary(writer: gguf.GGUFWriter, pieces: sentencepiece.SentencePieceProcessor) -> None:
    """Pieces, scores and kinds; `<|end|>` ends a sequence, and no blank is put before a text."""
    count = pieces.vocab_size()
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([pieces.id_to_piece(token).encode() for token in range(count)])
    writer.add_token_scores([pieces.get_score(token) for token in range(count)])
    writer.add_token_types([kind(pieces, token) for token in range(count)])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(END)
    writer.add_eot_token_id(END)
    writer.add_unk_token_id(UNKNOWN)
    writer.add_pad_token_id(END)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def tensors(model: Model) -> dict[str, NDArray[np.generic]]:
    """The weights by llama.cpp's names: matrices in half precision, norms in single."""
    state = model.state_dict()
    names = {"token_embd": "embedding", "output_norm": "norm"}
    for layer in range(model.shape.layers):
        names |= {f"blk.{layer}.{theirs}": f"blocks.{layer}.{ours}" for theirs, ours in BLOCK.items()}
    weights = {f"{theirs}.weight": state[f"{ours}.weight"].numpy() for theirs, ours in names.items()}
    assert len(weights) == len(state), "a weight would be left behind"
    return {name: w.astype(np.float16 if w.ndim == 2 else np.float32) for name, w in weights.items()}


def export(checkpoint: Path, tokenizer: Path, target: Path) -> Path:
    """Write the GGUF file. A file that would be too large for the repository is refused (ValueError)."""
    model, _ = restore(checkpoint)
    writer = gguf.GGUFWriter(target, "llama")
    metadata(writer, model.shape, model.size())
    vocabulary(writer, load(tokenizer))
    for name, weight in tensors(model).items():
        writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    size = target.stat().st_size
    if size > SIZE_MAX_BYTES:
        raise ValueError(f"{target} has {size} bytes; at most {SIZE_MAX_BYTES} may go into the repository")
    return target


def main() -> None:
    """Export from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    target = export(options.checkpoint, options.tokenizer, options.out)
    print(f"{target}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
