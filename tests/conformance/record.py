"""Ask llama.cpp's own server everything in the table and keep its answers: `python -m tests.conformance.record`.

Builds the server first where it is not there (benchmarks/peers/llama.py). The tests need only what is kept.
"""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from benchmarks.peers import llama
from haif.artifacts.service import DEMO_FOLDER
from tests.conformance.asked import TABLE
from tests.conformance.heard import ask

ANSWERS = Path(__file__).with_name("answers.json")
CONTEXT = 1024  # what the demo model was trained for


def main() -> None:
    """Record; one line each."""
    (model,) = DEMO_FOLDER.glob("*.gguf")
    with (
        llama.llama_server(model, slots=1, context_tokens=CONTEXT, threads=1) as server,
        httpx.Client(base_url=server.url, timeout=120.0) as client,
    ):
        build = client.get("/props").json()["build_info"]
        answers = {
            asked.name: ask(client, asked.path, {"cache_prompt": False, **asked.body, **asked.only_server})
            for asked in TABLE
        }
    lines = [f"    {json.dumps(name)}: {json.dumps(heard, ensure_ascii=False)}" for name, heard in answers.items()]
    head = f'  "llama.cpp": {json.dumps(build)},\n  "model": {json.dumps(model.name)},\n'
    ANSWERS.write_text("{\n" + head + '  "answers": {\n' + ",\n".join(lines) + "\n  }\n}\n")
    print(f"{len(answers)} answers of llama-server {build}")


if __name__ == "__main__":
    main()
