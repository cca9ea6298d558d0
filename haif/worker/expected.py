"""What a model that was never loaded can be expected to do, told from its file's header: its engine will know."""

from __future__ import annotations

from collections.abc import Mapping

from haif.artifacts.gguf import Value
from haif.base.tasks import Task, Tasks

_RANK = 4  # llama.cpp's number for pooling that scores
_POOLED = {1, 2, 3}  # mean, first token, last token


def expected(header: Mapping[str, Value]) -> tuple[Tasks, int]:
    """Its tasks, and the numbers of one vector, 0 where it makes none."""
    family = str(header.get("general.architecture", ""))
    pooling = header.get(f"{family}.pooling_type")
    if pooling == _RANK:
        return frozenset({Task.RERANK}), 1
    if pooling in _POOLED:
        width = header.get(f"{family}.embedding_length", 0)
        return frozenset({Task.EMBED}), width if isinstance(width, int) else 0
    chat = {Task.CHAT} if "tokenizer.chat_template" in header else set()
    return frozenset({Task.TEXT, *chat}), 0
