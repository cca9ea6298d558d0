"""llama.cpp by its low-level API: the only place that knows it, set up by the recipe of an execution profile.

library      llama.cpp in this process: its log, its build, what it can compute on
files        models and adapters, from files that are open
vocabulary   what a model's file says besides its weights: texts to tokens and back
context      a model's KV cache and the bounds of its batches
batch        what goes in, and the logits that come out
model        all of it together: a model that computes
selftest     whether its bits depend on who else is computed, tried at every start
"""

from haif.engine.llama.library import build, devices, set_log, set_progress, supports_offload
from haif.engine.llama.model import Llama
from haif.engine.llama.selftest import climb, is_exact

__all__ = ["Llama", "build", "climb", "devices", "is_exact", "set_log", "set_progress", "supports_offload"]
