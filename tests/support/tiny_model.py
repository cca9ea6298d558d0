"""Random llama models as GGUF files, made in milliseconds: real architecture, real vocabulary, no sense."""

from pathlib import Path

import gguf
import numpy as np

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONTROLS = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
_WORDS = (
    "the", "a", "an", "and", "of", "to", "in", "is", "was", "it", "that", "he", "she", "they", "we", "you", "on",
)  # fmt: skip


def build_tiny_model(
    path: Path,
    *,
    seed: int = 1,
    layers: int = 2,
    width: int = 256,
    heads: int = 4,
    feed_forward: int = 512,
    vocabulary: int = 512,
    context: int = 1024,
    quantisation: str = "F32",
    template: str | None = TEMPLATE,
    end_bias: float = 0.0,
    pooling: int | None = None,
    more_controls: tuple[str, ...] = (),
) -> Path:
    """Write a random llama model to `path`.

    `quantisation` is a type of `gguf.GGMLQuantizationType` ("F32", "F16", "Q8_0", "Q4_0"). `end_bias` scales the output
    row of the end-of-text token, so that answers end sooner (positive) or never (0 makes its logit 0). `pooling`: a
    number of `gguf.PoolingType`, for a model that makes vectors. `more_controls`: texts of further control tokens.
    """
    kind = gguf.GGMLQuantizationType[quantisation]
    writer = gguf.GGUFWriter(str(path), "llama")
    _header(writer, layers, width, heads, feed_forward, vocabulary, context)
    if pooling is not None:
        writer.add_pooling_type(gguf.PoolingType(pooling))
    write_vocabulary(writer, vocabulary, template, more_controls)
    random = np.random.default_rng(seed)

    def matrix(name: str, rows: int, columns: int, scale: float) -> None:
        values = random.standard_normal((rows, columns), dtype=np.float32) * np.float32(scale)
        if name == "output.weight":
            values[2] *= end_bias
            values[262] = 0.0  # <|end|> ends an answer too
        _add(writer, name, values, kind)

    matrix("token_embd.weight", vocabulary, width, 1.0)
    matrix("output.weight", vocabulary, width, 3.0 / width**0.5)
    _norm(writer, "output_norm.weight", width)
    for layer in range(layers):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{layer}.{name}.weight", width, width, 2.0 / width**0.5)
        matrix(f"blk.{layer}.ffn_gate.weight", feed_forward, width, 1.0 / width**0.5)
        matrix(f"blk.{layer}.ffn_up.weight", feed_forward, width, 1.0 / width**0.5)
        matrix(f"blk.{layer}.ffn_down.weight", width, feed_forward, 1.0 / feed_forward**0.5)
        _norm(writer, f"blk.{layer}.attn_norm.weight", width)
        _norm(writer, f"blk.{layer}.ffn_norm.weight", width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def build_benchmark_model(path: Path, *, quantisation: str = "Q8_0") -> Path:
    """About 100 million random parameters: 12 layers of width 768."""
    return build_tiny_model(
        path,
        seed=7,
        layers=12,
        width=768,
        heads=12,
        feed_forward=2048,
        vocabulary=8192,
        context=4096,
        quantisation=quantisation,
    )


def _header(
    writer: gguf.GGUFWriter, layers: int, width: int, heads: int, feed_forward: int, vocabulary: int, context: int
) -> None:
    writer.add_name("tiny random llama")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_vocab_size(vocabulary)


def write_vocabulary(
    writer: gguf.GGUFWriter, size: int, template: str | None, more_controls: tuple[str, ...] = ()
) -> None:
    kinds = gguf.TokenType
    tokens: list[tuple[str, kinds]] = [("<unk>", kinds.UNKNOWN), ("<s>", kinds.CONTROL), ("</s>", kinds.CONTROL)]
    tokens += [(f"<0x{byte:02X}>", kinds.BYTE) for byte in range(256)]
    tokens += [(text, kinds.CONTROL) for text in (*CONTROLS, *more_controls)]
    tokens += [(chr(code), kinds.NORMAL) for code in range(33, 127)]
    tokens += [(f"▁{word}", kinds.NORMAL) for word in ("", *_WORDS)]
    tokens += [(f"▁w{number}", kinds.NORMAL) for number in range(size - len(tokens))]
    assert len(tokens) == size, f"a vocabulary has at least {len(tokens)} tokens"
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_scores([-float(place) for place in range(size)])
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    if template is not None:
        writer.add_chat_template(template)


def _norm(writer: gguf.GGUFWriter, name: str, width: int) -> None:
    writer.add_tensor(name, np.ones(width, np.float32))


def _add(writer: gguf.GGUFWriter, name: str, values: np.ndarray, kind: gguf.GGMLQuantizationType) -> None:
    if kind == gguf.GGMLQuantizationType.F32:
        writer.add_tensor(name, values)
    else:
        data = gguf.quants.quantize(values, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
