"""An end of the engine child becomes a sentence that an operator can act on."""

import signal

import pytest

from haif.engine.service.causes import explain, oom_kills


@pytest.mark.parametrize(
    ("status", "words", "sentence"),
    [
        (0, b"", "it exited with status 0"),
        (3, b"one\nggml: oh\n", "it exited with status 3; its last words: ggml: oh"),
        (-signal.SIGBUS, b"", "killed by SIGBUS (a page of the model is gone: its file was cut short"),
        (-signal.SIGILL, b"", "killed by SIGILL (an instruction that this processor does not have"),
        (-signal.SIGHUP, b"", "killed by SIGHUP"),
        (-40, b"", "killed by signal 40"),
        (
            -signal.SIGABRT,
            b"terminate called\n  what():  std::bad_alloc\n",
            "it needed more memory than its jail allows",
        ),
        (1, b"MemoryError", "it exited with status 1: it needed more memory than its jail allows"),
        (1, "\u2603".encode() * 200, "its last words: \u2603"),
        (1, b"\xff\xfe", "its last words: \ufffd"),
    ],
)
def test_an_end_is_a_sentence(status, words, sentence):
    told = explain(status, words)
    assert sentence in told
    assert len(told) < 600


def test_the_kernels_want_of_memory_is_told_from_somebodys_hand():
    assert "(OOM)" in explain(-signal.SIGKILL, b"", oom_killed=True)
    assert "by somebody" in explain(-signal.SIGKILL, b"", oom_killed=False)
    assert "OOM" not in explain(-signal.SIGTERM, b"", oom_killed=True)


def test_the_kernels_count_only_grows():
    assert 0 <= oom_kills() <= oom_kills()
