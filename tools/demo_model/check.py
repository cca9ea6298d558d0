"""The checker: llama.cpp must tokenise and compute as the trainer did, and the answers are printed to be read.

`python -m tools.demo_model.check compare` looks at tokens and logits (also near position 1024), `facts` at knowledge,
`ask` at answers to prompts of which many are put as the generator never puts them.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from llama_cpp import Llama

from tools.demo_model.corpus import GROUPS, documents
from tools.demo_model.tokenizer import encode, load
from tools.demo_model.train import HELD_OUT_SEED, batch, restore

LOGIT_GAP_MAX = 0.3  # half precision against single
# fmt: off
PROMPTS = tuple(  # phrasings that the generator does not use are among them on purpose
    """Hello!
who are you?
What can you do?
What is HAIF?
Who is the baker?
What does Ada do?
Where can I find Bram?
Tell me about Otto.
Who bakes the bread around here?
What's the blacksmith called?
Which pet does Finn own?
What animal lives under the jetty?
Where's the windmill?
How do I reach the school?
What is there to eat at the inn?
How do they make cheese?
What happens on Saturdays?
What's the weather like in winter?
Why does Iris put on a veil?
Is Otto older than Finn?
Is Dov the postman?
Name three animals.
Which festival is celebrated in autumn?
Who is married to Kira?
What does Tilda enjoy doing?
Give me some information about the lake.
I'd love to know what Luna looks like.
What is the capital of France?
Who was Einstein?
Write a Python function to reverse a list.
What is 2+2?
Tell me a story about Finn.
Tell me a story about a dragon.
Please write a story about Captain the duck.
Tell me a story about the forest in winter.
Write a short story about Greta and the old oak.
I want a bedtime story about a lost key.
tell me something about a robot who lives in the village
Tell me a joke.
Write a poem about the lake.
My name is Priya. Who is the doctor?
I feel a bit sad today.
Thanks a lot, that was great!
What should we do in summer?
What do you know about the Lantern Night?
Explain photosynthesis to me.""".split("\n")  # noqa: SIM905
)
# fmt: on
BEGINNINGS = (
    "Once upon a time",
    "One winter morning, Lars",
    "Larkmere is a little village",
    "The lake",
    "Tilda was afraid of",
)


def compare(model_path: Path, checkpoint: Path, tokenizer: Path) -> None:
    """Tokens must be the same, logits nearly so (half precision against single)."""
    pieces = load(tokenizer)
    model, _ = restore(checkpoint)
    llama = Llama(str(model_path), n_ctx=1024, n_batch=1024, logits_all=True, n_threads=1, verbose=False)
    for turns in islice(documents(HELD_OUT_SEED + 9), 2000):
        text = "".join(f"<|{role}|>{said}<|end|>" if role != "text" else f"{said}<|end|>" for role, said in turns)
        ours, theirs = encode(pieces, turns)[0], llama.tokenize(text.encode(), add_bos=True, special=True)
        assert ours == theirs, f"tokens differ for {text!r}"
    rows, _ = batch(pieces, HELD_OUT_SEED + 10, 1023, 1023)
    llama.eval(rows[0, :1024].tolist())
    theirs_logits = np.array(llama.scores[:1024])
    with torch.no_grad():
        ours_logits = model(rows[:, :1024])[0].numpy()
    apart = np.abs(ours_logits - theirs_logits)
    same = (ours_logits.argmax(-1) == theirs_logits.argmax(-1)).mean()
    print(f"2000 documents tokenise alike; the best token is the same at {same:.2%} of 1024 positions")
    print(f"logits differ by {apart.mean():.5f} in the mean, {apart.max():.4f} at most")
    assert same > 0.99
    assert apart.max() < LOGIT_GAP_MAX


def answer(llama: Llama, prompt: str, temperature: float) -> tuple[str, str]:
    """What the model says to a single question, and why it stopped."""
    message: Any = {"role": "user", "content": prompt}
    reply: Any = llama.create_chat_completion([message], temperature=temperature, max_tokens=300, top_p=0.95)
    return reply["choices"][0]["message"]["content"], reply["choices"][0]["finish_reason"]


def facts(model_path: Path, count: int, seed: int) -> None:
    """Ask `count` questions about the world and compare the greedy answers with all that the corpus would say."""
    llama = Llama(str(model_path), n_ctx=256, n_threads=1, verbose=False)
    rng = Random(seed)
    items = [item for items in GROUPS.values() for item in items]
    wrong = []
    for item in rng.sample(items, count):
        asked = item.ask(rng)
        right = {item.answer(rng) for _ in range(400)}
        said, _ = answer(llama, asked, 0.0)
        if not said.endswith(tuple(right)):
            wrong.append(f"> {asked}\n  {said!r}\n  rather {min(right)!r}")
    print("\n".join(wrong))
    print(f"{count - len(wrong)} of {count} answered as the tables have it")


def ask(model_path: Path, temperature: float, seed: int) -> None:
    """Print the answers to the prompts, and how the beginnings go on."""
    llama = Llama(str(model_path), n_ctx=1024, n_threads=1, verbose=False, seed=seed)
    for prompt in PROMPTS:
        said, why = answer(llama, prompt, temperature)
        print(f"> {prompt}\n  {said!r} [{why}]")
    for prompt in BEGINNINGS:
        made: Any = llama.create_completion(prompt, temperature=temperature, max_tokens=250, top_p=0.95)
        print(f">> {prompt}\n  {made['choices'][0]['text']!r}")


def main() -> None:
    """Check from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("compare", "ask", "facts"))
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.what == "compare":
        compare(options.model, options.checkpoint, options.tokenizer)
    elif options.what == "facts":
        facts(options.model, options.count, options.seed)
    else:
        ask(options.model, options.temperature, options.seed)


if __name__ == "__main__":
    main()
