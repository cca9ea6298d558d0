"""llama.cpp driven directly: a plain loop over llama-cpp-python's low-level API, in a process of its own.

It reads one JSON line per measurement from standard input (`{"streams": 8, "tokens": 64}`) and answers with one:
tokens per second, and the seconds to the first token. One process, greedy, no sampling noise, no text, no pipe per
token: the least a Python program can do. Same build, threads, context and settings as HAIF's `exact` profile.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time

import llama_cpp as api
import numpy as np


class Direct:
    """A model, a context, and greedy decoding of several sequences in one batch."""

    def __init__(self, path: str, slots: int, context_tokens: int, threads: int) -> None:
        params = api.llama_model_default_params()
        params.n_gpu_layers, params.use_extra_bufts = 0, False
        self.model = api.llama_model_load_from_file(path.encode(), params)
        self.vocabulary = api.llama_model_get_vocab(self.model)
        self.size = api.llama_vocab_n_tokens(self.vocabulary)
        settings = api.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max = slots * context_tokens, slots
        settings.n_batch = settings.n_ubatch = 512
        settings.n_threads = settings.n_threads_batch = threads
        settings.flash_attn_type, settings.kv_unified = api.LLAMA_FLASH_ATTN_TYPE_DISABLED, False
        self.context = api.llama_init_from_model(self.model, settings)
        self.batch = api.llama_batch_init(512, 0, 1)

    def tokens(self, text: str) -> list[int]:
        """The prompt, as the model's tokeniser has it, with its start token."""
        raw = text.encode()
        found = (api.llama_token * 512)()
        count = api.llama_tokenize(self.vocabulary, raw, len(raw), found, 512, True, True)
        return list(found[:count])

    def decode(self, rows: list[tuple[int, int, int, bool]]) -> None:
        """One batch of (sequence, position, token, wants logits)."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for index, (sequence, position, token, logits) in enumerate(rows):
            batch.token[index], batch.pos[index], batch.logits[index] = token, position, logits
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, sequence
        assert api.llama_decode(self.context, batch) == 0

    def best(self, index: int) -> int:
        """The likeliest token after row `index` of the last batch."""
        row = api.llama_get_logits_ith(self.context, index)
        values = np.ctypeslib.as_array(ctypes.cast(row, ctypes.POINTER(ctypes.c_float)), (self.size,))
        return int(values.argmax())

    def run(self, prompt: list[int], streams: int, tokens: int) -> tuple[float, float]:
        """(tokens per second, seconds to the first token) of `streams` sequences of `tokens` tokens each."""
        began = time.perf_counter()
        last = []
        for sequence in range(streams):
            rows = [(sequence, place, token, place == len(prompt) - 1) for place, token in enumerate(prompt)]
            self.decode(rows)
            last.append(self.best(len(prompt) - 1))
        first = time.perf_counter() - began
        for place in range(len(prompt), len(prompt) + tokens - 1):
            self.decode([(sequence, place, last[sequence], True) for sequence in range(streams)])
            last = [self.best(sequence) for sequence in range(streams)]
        seconds = time.perf_counter() - began
        api.llama_memory_clear(api.llama_get_memory(self.context), True)
        return streams * tokens / seconds, first


def main() -> None:
    """Load, then measure for each line of standard input."""
    path, slots, context_tokens, threads = sys.argv[1], *map(int, sys.argv[2:5])
    log = api.llama_log_callback(lambda *_: None)
    api.llama_log_set(log, ctypes.c_void_p(0))
    direct = Direct(path, slots, context_tokens, threads)
    for line in sys.stdin:
        asked = json.loads(line)
        prompt = direct.tokens(asked["prompt"])
        rate, first = direct.run(prompt, asked["streams"], asked["tokens"])
        print(json.dumps({"rate": rate, "first": first, "prompt_tokens": len(prompt)}), flush=True)


if __name__ == "__main__":
    main()
