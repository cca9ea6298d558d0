"""A model that is not in memory is offered for what it will be able to do."""

import pytest

from haif.artifacts.gguf import Value
from haif.base.tasks import Task
from haif.worker.expected import expected


@pytest.mark.parametrize(
    ("header", "tasks", "dimensions"),
    [
        ({}, {Task.TEXT}, 0),
        ({"general.architecture": "llama", "tokenizer.chat_template": "{{ 1 }}"}, {Task.TEXT, Task.CHAT}, 0),
        ({"general.architecture": "bert", "bert.pooling_type": 1, "bert.embedding_length": 64}, {Task.EMBED}, 64),
        ({"general.architecture": "bert", "bert.pooling_type": 4, "bert.embedding_length": 64}, {Task.RERANK}, 1),
        ({"general.architecture": "qwen3", "qwen3.pooling_type": 3, "qwen3.embedding_length": "x"}, {Task.EMBED}, 0),
        ({"general.architecture": "llama", "llama.pooling_type": 0}, {Task.TEXT}, 0),
    ],
)
def test_a_header_says_what_a_model_can_do(header: dict[str, Value], tasks: set[Task], dimensions: int) -> None:
    assert (tasks, dimensions) == expected(header)
