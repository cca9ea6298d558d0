"""Sets up everything HAIF needs on a fresh machine, and says what it is doing: `python3 tools/setup.py`.

1. a virtual environment in .venv;
2. the locked dependencies (requirements.lock, every file checked by hash);
3. llama-cpp-python, built from source with the flags of the `exact` execution profile, kept in .build/wheels under a
   name derived from version and flags, because pip's own wheel cache does not look at CMAKE_ARGS;
4. HAIF itself, editable.

With `--native`, llama.cpp is built once more, for this machine's own instructions: the profiles `exact-native` and
`fast` take that build.

Each step is skipped when its inputs have not changed. Nothing outside the checkout is written. Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements.lock"
LLAMA_LOCK = ROOT / "requirements.llama.lock"
STAMP = VENV / ".haif-setup"
NATIVE = VENV / "lib" / "haif-llama-native"

_TEXT_ONLY = "-DLLAVA_BUILD=OFF "  # a quarter of the build is for images
# x86-64-v3 with only the kernels whose result does not depend on the batch: docs/decisions/0003-exact-profile.md.
EXACT_X86_64 = _TEXT_ONLY + (
    "-DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON -DGGML_LLAMAFILE=OFF"
)
EXACT_OTHER = _TEXT_ONLY + "-DGGML_LLAMAFILE=OFF"
NATIVE_FLAGS = _TEXT_ONLY + "-DGGML_NATIVE=ON -DGGML_LLAMAFILE=ON"


def main() -> int:
    """Run the steps; return the exit code."""
    if sys.version_info < (3, 11):  # noqa: UP036 -- said by a program that may run under an older Python
        print(f"HAIF needs Python 3.11 or newer; this is {sys.version.split()[0]}. Try: python3.11 tools/setup.py")
        return 1
    if sys.argv[1:] not in ([], ["--native"]):
        print("usage: python3 tools/setup.py [--native]")
        return 2
    flags = EXACT_X86_64 if os.uname().machine == "x86_64" else EXACT_OTHER
    inputs = [LOCK.read_bytes(), LLAMA_LOCK.read_bytes(), (ROOT / "pyproject.toml").read_bytes(), flags.encode()]
    stamp = hashlib.sha256(b"\0".join(inputs)).hexdigest()
    os.environ.setdefault("PIP_CACHE_DIR", str(ROOT / ".build" / "pip"))
    if not (STAMP.exists() and STAMP.read_text() == stamp):
        build(flags)
        STAMP.write_text(stamp)
    if sys.argv[1:] == ["--native"]:
        step("llama.cpp for this machine's own instructions")
        unpack(llama_wheel(NATIVE_FLAGS))
    return 0


def build(flags: str) -> None:
    """The virtual environment and all that is in it."""
    step("virtual environment in .venv")
    if not PYTHON.exists():
        venv.create(VENV, with_pip=True)
    step("locked dependencies")
    pip("install", "--quiet", "--require-hashes", "--no-deps", "--requirement", str(LOCK))
    step("llama.cpp with the flags of the exact profile")
    wheel = llama_wheel(flags)
    pip("install", "--quiet", "--no-deps", "--no-index", "--force-reinstall", str(wheel))
    step("haif")
    pip("install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))


def unpack(wheel: Path) -> None:
    """The libraries of a wheel, and nothing else of it, where the engine looks for the native build."""
    NATIVE.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as packed:
        for name in packed.namelist():
            if name.startswith("llama_cpp/lib/") and not name.endswith("/"):
                (NATIVE / Path(name).name).write_bytes(packed.read(name))


def llama_wheel(flags: str) -> Path:
    """The wheel built with these flags: from .build/wheels, or built now (4 to 8 minutes on two cores)."""
    name = hashlib.sha256(LLAMA_LOCK.read_bytes() + flags.encode()).hexdigest()[:16]
    house = Path(os.environ.get("HAIF_WHEELHOUSE") or ROOT / ".build" / "wheels") / name
    for wheel in house.glob("llama_cpp_python-*.whl"):
        return wheel
    house.mkdir(parents=True, exist_ok=True)
    log = house / "build.log"
    command = [
        str(PYTHON), "-m", "pip", "wheel", "--verbose", "--no-cache-dir", "--no-deps", "--require-hashes",
        "--no-binary", "llama-cpp-python", "--requirement", str(LLAMA_LOCK), "--wheel-dir", str(house),
    ]  # fmt: skip
    environment = dict(os.environ, CMAKE_ARGS=flags, CMAKE_BUILD_PARALLEL_LEVEL=str(os.cpu_count() or 2))
    started = time.monotonic()
    with (
        log.open("w") as kept,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, errors="replace"
        ) as build,
    ):
        assert build.stdout is not None
        for line in build.stdout:
            kept.write(line)
            show_progress(line, started)
    print(flush=True)
    if build.returncode != 0:
        print("".join(log.read_text().splitlines(keepends=True)[-30:]))
        sys.exit(f"Building llama.cpp failed; the whole log is in {log}. It needs a C++ compiler (Debian: g++).")
    return next(house.glob("llama_cpp_python-*.whl"))


def show_progress(line: str, started: float) -> None:
    """Draw the bar from ninja's `[12/139]`; on a terminal in place, elsewhere a line every tenth."""
    found = re.match(r"\s*\[(\d+)/(\d+)\]", line)
    if not found:
        return
    done, total = int(found[1]), int(found[2])
    seconds = time.monotonic() - started
    text = f"   [{'#' * (30 * done // total):<30}] {done}/{total}  {seconds:.0f} s"
    if sys.stdout.isatty():
        print(f"\r{text}", end="", flush=True)
    elif done == total or done % max(1, total // 10) == 0:
        print(text, flush=True)


def step(what: str) -> None:
    """Say what comes now."""
    print(f"-> {what}", flush=True)


def pip(*arguments: str) -> None:
    """Run pip in the virtual environment; stop with its own words when it fails."""
    result = subprocess.run([str(PYTHON), "-m", "pip", "--disable-pip-version-check", *arguments], check=False)
    if result.returncode != 0:
        sys.exit(f"pip {arguments[0]} failed (exit {result.returncode}); its message is above.")


if __name__ == "__main__":
    sys.exit(main())
