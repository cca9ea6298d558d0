import gguf
import pytest

from tools import random_model
from tools.random_model import Shape

TINY = Shape(layers=2, width=256, heads=4, heads_kv=2, feed_forward=512, vocabulary=512, context=256)


@pytest.mark.parametrize(("kind", "expected"), [("f16", "F16"), ("q8_0", "Q8_0"), ("q4_0", "Q4_0")])
def test_a_model_of_random_parameters_has_the_shape_and_format_asked_for(tmp_path, monkeypatch, kind, expected):
    monkeypatch.setitem(random_model.SHAPES, "tiny", TINY)
    path = random_model.random_model("tiny", kind, tmp_path)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    assert {name for name, _, _ in TINY.tensors()} == set(tensors)
    assert [256, 128] == list(tensors["blk.1.attn_k.weight"].shape)
    assert expected == tensors["blk.0.ffn_up.weight"].tensor_type.name
    assert not list(tmp_path.glob("*.part"))


def test_a_model_that_is_there_is_not_made_again(tmp_path):
    (tmp_path / "random-100m-q8_0.gguf").write_text("here")
    assert "here" == random_model.random_model("100m", "q8_0", tmp_path).read_text()
