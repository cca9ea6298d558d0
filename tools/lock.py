"""Renews requirements.lock and requirements.llama.lock from pyproject.toml, with hashes: `make lock`.

llama-cpp-python stands in a file of its own because it is built from source with our flags (tools/setup.py).
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LLAMA = "llama-cpp-python"
BUILD_BACKEND = "setuptools>=77"


def main() -> int:
    """Resolve, split, write; return the exit code."""
    command = [
        sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "-", "--extra", "dev", "--extra", "speed",
        "--generate-hashes", "--no-header", "--no-annotate", "--allow-unsafe", "--quiet",
    ]  # fmt: skip
    resolved = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, input=BUILD_BACKEND)
    entries = re.split(r"\n(?=\S)", resolved.stdout.strip())
    llama = [entry for entry in entries if entry.startswith(LLAMA)]
    others = [entry for entry in entries if not entry.startswith(LLAMA)]
    (ROOT / "requirements.lock").write_text("\n".join(others) + "\n")
    (ROOT / "requirements.llama.lock").write_text("\n".join(llama) + "\n")
    print(f"{len(others)} packages locked, and {LLAMA}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
