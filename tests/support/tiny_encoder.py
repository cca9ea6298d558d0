"""A random BERT as a GGUF file, and the same network in numpy: what a vector should be, by another hand.

The layers are those of Devlin et al. 2019 as llama.cpp runs them: embeddings of token, position and sentence 0, a norm,
then per layer attention and a GELU feed-forward, each added to its input and normed after.
"""

from pathlib import Path

import gguf
import numpy as np

POOLING = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}
CLS, SEP = 2, 3
WORDS = ("the", "a", "cat", "dog", "sat", "on", "mat", "red", "blue", "fast", "car", "tree", "sun", "moon", "river")


def build_tiny_encoder(
    path: Path, *, pooling: str | None = "mean", layers: int = 2, width: int = 64, heads: int = 4, seed: int = 3,
    context: int = 128, matryoshka: list[int] | None = None, poison: bool = False, quantisation: str = "F32",
) -> Path:  # fmt: skip
    """Write it to `path`. `pooling` None: the file does not say. `poison`: the word "river" is not a number."""
    kind = gguf.GGMLQuantizationType[quantisation]
    writer = gguf.GGUFWriter(str(path), "bert")
    writer.add_name("tiny random bert")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(2 * width)
    writer.add_head_count(heads)
    writer.add_layer_norm_eps(1e-5)
    writer.add_causal_attention(False)
    if pooling is not None:
        writer.add_pooling_type(gguf.PoolingType(POOLING[pooling]))
    if matryoshka is not None:
        writer.add_string("bert.matryoshka_dimensions", ",".join(map(str, matryoshka)))
    _vocabulary(writer)
    for name, values in tiny_encoder_weights(
        layers=layers, width=width, seed=seed, context=context, rank=pooling == "rank", poison=poison
    ).items():
        if kind == gguf.GGMLQuantizationType.F32 or values.ndim == 1 or "embd" in name or "types" in name:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tiny_encoder_weights(
    *, layers: int = 2, width: int = 64, seed: int = 3, context: int = 128, rank: bool = False, poison: bool = False
) -> dict[str, np.ndarray]:
    """The tensors by their names in the file."""
    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int, scale: float = 1.0) -> np.ndarray:
        return random.standard_normal((rows, columns), dtype=np.float32) * np.float32(scale / columns**0.5)

    def bias(size: int) -> np.ndarray:
        return random.standard_normal(size, dtype=np.float32) * np.float32(0.1)

    def norm(name: str) -> dict[str, np.ndarray]:
        return {f"{name}.weight": 1 + bias(width), f"{name}.bias": bias(width)}

    tokens = matrix(len(_tokens()), width, 4.0)
    if poison:
        tokens[_tokens().index("▁river")] = np.nan
    found = {
        "token_embd.weight": tokens, "token_types.weight": matrix(2, width),
        "position_embd.weight": matrix(context, width), **norm("token_embd_norm"),
    }  # fmt: skip
    for layer in range(layers):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            found[f"blk.{layer}.{name}.weight"] = matrix(width, width, 2.0)
            found[f"blk.{layer}.{name}.bias"] = bias(width)
        found |= {
            **norm(f"blk.{layer}.attn_output_norm"),
            f"blk.{layer}.ffn_up.weight": matrix(2 * width, width), f"blk.{layer}.ffn_up.bias": bias(2 * width),
            f"blk.{layer}.ffn_down.weight": matrix(width, 2 * width), f"blk.{layer}.ffn_down.bias": bias(width),
            **norm(f"blk.{layer}.layer_output_norm"),
        }  # fmt: skip
    if rank:
        found |= {
            "cls.weight": matrix(width, width), "cls.bias": bias(width),
            "cls.output.weight": matrix(1, width), "cls.output.bias": bias(1),
        }  # fmt: skip
    return found


def tiny_encoder_vector(
    tokens: list[int], weights: dict[str, np.ndarray], *, pooling: str, layers: int = 2, heads: int = 4
) -> np.ndarray:
    """What the network makes of one input: the pooled vector of length 1, or with `rank` the score."""
    w = {name: values.astype(np.float64) for name, values in weights.items()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    x = w["token_embd.weight"][tokens] + w["token_types.weight"][0] + w["position_embd.weight"][: len(tokens)]
    x = norm(x, "token_embd_norm")
    for layer in range(layers):
        at = f"blk.{layer}"
        query, key, value = (
            dense(x, f"{at}.attn_{name}").reshape(len(tokens), heads, -1).transpose(1, 0, 2) for name in "qkv"
        )
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1])
        weights_of = np.exp(scores - scores.max(-1, keepdims=True))
        weights_of /= weights_of.sum(-1, keepdims=True)
        mixed = (weights_of @ value).transpose(1, 0, 2).reshape(len(tokens), -1)
        x = norm(x + dense(mixed, f"{at}.attn_output"), f"{at}.attn_output_norm")
        up = dense(x, f"{at}.ffn_up")
        up = 0.5 * up * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3)))
        x = norm(x + dense(up, f"{at}.ffn_down"), f"{at}.layer_output_norm")
    if pooling == "rank":
        return dense(np.tanh(dense(x[0], "cls")), "cls.output")
    pooled = {"mean": x.mean(0), "cls": x[0], "last": x[-1]}[pooling]
    return pooled / np.linalg.norm(pooled)


def tiny_encoder_tokens(text: str) -> list[int]:
    """The tokens of lower-case words of the vocabulary, framed."""
    return [CLS, *(_tokens().index(f"▁{word}") for word in text.split()), SEP]


def _tokens() -> list[str]:
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"▁{word}" for word in WORDS), *letters,
            *(f"▁{letter}" for letter in letters if letter != "a")]  # fmt: skip


def _vocabulary(writer: gguf.GGUFWriter) -> None:
    tokens = _tokens()
    kinds = [gguf.TokenType.CONTROL] * 5 + [gguf.TokenType.NORMAL] * (len(tokens) - 5)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_type_count(2)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_scores([-1000.0] * len(tokens))
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(CLS)
    writer.add_sep_token_id(SEP)
    writer.add_eos_token_id(SEP)
    writer.add_mask_token_id(4)
    writer.add_vocab_size(len(tokens))
