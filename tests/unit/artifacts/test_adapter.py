"""An adapter is taken for what its header says only where every pair in it fits a product of its base."""

from dataclasses import replace

import pytest

from haif.artifacts.adapter import check_adapter
from haif.artifacts.gguf import Double, Header, Tensor, read_header
from haif.base.errors import Malformed
from tests.support.tiny_model import build_tiny_model
from tools.random_adapter import FORMATS, random_adapter

SMALL = {"layers": 1, "width": 64, "heads": 2, "feed_forward": 96}
Q = "blk.0.attn_q.weight"


def header_of(path):
    with path.open("rb") as file:
        return read_header(file, path.stat().st_size)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("m")
    base = build_tiny_model(folder / "base.gguf", **SMALL)
    return base, random_adapter(base, folder / "adapter.gguf", rank=4)


@pytest.fixture(scope="module")
def base(paths):
    return header_of(paths[0])


@pytest.fixture(scope="module")
def adapter(paths):
    return header_of(paths[1])


@pytest.mark.parametrize("kind", FORMATS)
def test_whole_adapters_of_every_format_pass(paths, base, tmp_path, kind):
    found = header_of(random_adapter(paths[0], tmp_path / "a.gguf", rank=32, kind=kind))
    assert 32 == check_adapter(found, base)


def refused(adapter, base):
    with pytest.raises(Malformed, match="not an adapter that can be served") as caught:
        check_adapter(adapter, base)
    return caught.value.message


def test_a_model_is_no_adapter(base):
    assert "general.type is not adapter" in refused(base, base)


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("general.type", "model", "general.type is not adapter"),
        ("general.type", 5, "general.type is not adapter"),
        ("adapter.type", "dora", "adapter.type not lora"),
        ("general.architecture", "qwen3", "it is for the architecture 'qwen3', and the base model is 'llama'"),
        ("general.architecture", 7, "for the architecture '7'"),
        ("adapter.lora.alpha", Double(16.0), "no number of four bytes"),
        ("adapter.lora.alpha", 16, "no number of four bytes"),
        ("adapter.lora.alpha", "16", "no number of four bytes"),
        ("adapter.lora.alpha", 0.0, "from 0 to"),
        ("adapter.lora.alpha", float("nan"), "from 0 to"),
        ("adapter.lora.alpha", float("inf"), "from 0 to"),
        ("adapter.alora.invocation_tokens", 1, "at certain tokens only"),
    ],
)
def test_what_it_says_of_itself_must_be_what_is_served(adapter, base, key, value, why):
    assert why in refused(replace(adapter, metadata={**adapter.metadata, key: value}), base)


def changed(adapter: Header, *tensors: Tensor, without=()) -> Header:
    kept = {name: tensor for name, tensor in adapter.tensors.items() if name not in without}
    return replace(adapter, tensors=kept | {tensor.name: tensor for tensor in tensors})


def half(name, *shape, kind=0):
    return Tensor(name, shape, kind, 0, 0)


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        ([half("blk.0.attn_q.weight", 64, 64)], "no half of a pair"),
        ([half("blk.0.attn_norm.weight", 64)], "no half of a pair"),
        ([half("token_embd.weight.lora_a", 64, 4)], "changes the token embedding"),
        ([half("blk.7.attn_q.weight.lora_a", 64, 4)], "which its base model does not have"),
        ([half(".lora_a", 64, 4)], "which its base model does not have"),
        ([half("blk.0.attn_norm.weight.lora_a", 64, 4)], "llama.cpp would leave as it is"),
        ([half(f"{Q}.lora_a", 64, 4, kind=26)], "is of type 26; those of adapters are F32, F16, Q8_0, BF16"),
        ([half(f"{Q}.lora_a", 64, 4, kind=2)], "is of type 2"),
        ([half(f"{Q}.lora_a", 4, 64)], "4 by 64 and 4 by 64, and the base model's weight 64 by 64"),
        ([half(f"{Q}.lora_a", 32, 4)], "it is for another model"),
        ([half(f"{Q}.lora_b", 4, 32)], "it is for another model"),
        ([half(f"{Q}.lora_b", 5, 64)], "it is for another model"),
        ([half(f"{Q}.lora_a", 64, 4, 2)], "it is for another model"),
        ([half(f"{Q}.lora_b", 4, 64, 1, 3)], "it is for another model"),
        ([half(f"{Q}.lora_a", 64)], "it is for another model"),
        ([half(f"{Q}.lora_a", 64, 4096), half(f"{Q}.lora_b", 4096, 64)], "is 4096, at most 1024"),
        ([half("output.weight.lora_a", 64, 4)], "lacks a half"),
    ],
)
def test_every_tensor_is_half_of_a_change_of_a_product_of_the_base(adapter, base, tensors, why):
    assert why in refused(changed(adapter, *tensors), base)


def test_a_half_that_is_missing_and_one_without_tensors_are_refused(adapter, base):
    assert "lacks a half" in refused(changed(adapter, without=[f"{Q}.lora_b"]), base)
    assert "it has no tensors" in refused(replace(adapter, tensors={}), base)


def test_experts_each_have_their_part(adapter, base):
    """llama.cpp does not compare them, and would read beyond what there is."""
    name = "blk.0.ffn_gate_exps.weight"
    mixed = replace(base, tensors={**base.tensors, name: half(name, 64, 96, 8)})
    halves = [half(f"{name}.lora_a", 64, 4, 8), half(f"{name}.lora_b", 4, 96, 8)]
    assert 4 == check_adapter(changed(adapter, *halves), mixed)
    for wrong in (half(f"{name}.lora_a", 64, 4, 7), half(f"{name}.lora_b", 4, 96), half(f"{name}.lora_b", 4, 96, 9)):
        assert "it is for another model" in refused(changed(adapter, *halves, wrong), mixed)


def test_a_base_that_makes_vectors_takes_none(adapter, base):
    pooled = replace(base, metadata={**base.metadata, "llama.pooling_type": 1})
    assert "makes vectors" in refused(adapter, pooled)
