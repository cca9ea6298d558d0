"""llama.cpp's own programs, built from the sources inside the llama-cpp-python package that HAIF itself is built from.

`llama-server` and `llama-batched-bench` are made as anybody makes them (CMake's release build, native instructions, no
GPU), once, into `.build/peers` or the folder that HAIF_PEERS names. `python -m llama_cpp.server` runs on the very same
libraries, in a virtual environment of its own. On two quiet cores that takes about ten minutes; on busy ones it says
how far it is.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from benchmarks.peers import BUILD, HERE
from tools.setup import show_progress

LOCK = HERE.parents[1] / "requirements.llama.lock"
TARGETS = ("llama-server", "llama-batched-bench")
FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_USE_PREBUILT_UI=OFF", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
)  # fmt: skip
POLITE = ("nice", "-n", "10")
_TRIES = 5  # llama-batched-bench on a busy machine may end before it printed its last lines
_SECONDS = -3  # the column of llama-batched-bench's table
READY_SECONDS = 600.0  # until a server that reads a large model on a busy machine answers


@dataclass
class Server:
    """A running server: where it answers, and its process."""

    address: tuple[str, int]
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.address[0]}:{self.address[1]}"

    def ask(self, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """The status and the JSON of one request; POST with a body, else GET."""
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(self.url + path, data, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(asked, timeout=READY_SECONDS) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


@contextmanager
def llama_server(
    model: Path, *, slots: int, context_tokens: int, threads: int, more: Sequence[str] = ()
) -> Iterator[Server]:
    """llama-server with its defaults and as many slots, tokens each and threads."""
    command = [
        str(programs() / "llama-server"), "--model", str(model), "--host", "127.0.0.1", "--port", "0", "--no-ui",
        "--parallel", str(slots), "--ctx-size", str(slots * context_tokens), "--threads", str(threads),
        "--threads-batch", str(threads), *more,
    ]  # fmt: skip
    with _running(command, re.compile(r"listening on http://([\d.]+):(\d+)"), {}) as server:
        yield server


@contextmanager
def python_server(model: Path, *, context_tokens: int, threads: int) -> Iterator[Server]:
    """`python -m llama_cpp.server`, which answers one request at a time."""
    command = [
        str(_python()), "-m", "llama_cpp.server", "--model", str(model), "--host", "127.0.0.1", "--port", "0",
        "--n_ctx", str(context_tokens), "--n_threads", str(threads), "--n_threads_batch", str(threads),
        "--interrupt_requests", "False",
    ]  # fmt: skip
    more = {"LLAMA_CPP_LIB_PATH": str(programs()), "PYTHONPATH": str(sources())}
    with _running(command, re.compile(r"running on http://([\d.]+):(\d+)"), more) as server:
        yield server


def batched_bench(model: Path, *, prompt: int, tokens: int, streams: int, context_tokens: int, threads: int) -> float:
    """Seconds for the prompts and the tokens of so many streams, loading not counted."""
    command = [
        str(programs() / "llama-batched-bench"), "-m", str(model), "-c", str(streams * context_tokens),
        "-npp", str(prompt), "-ntg", str(tokens), "-npl", str(streams), "-t", str(threads), "-tb", str(threads),
    ]  # fmt: skip
    for _ in range(_TRIES):
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        cells = [line.split("|") for line in done.stdout.splitlines() if line.startswith("|")]
        if cells and (seconds := cells[-1][_SECONDS].strip()).replace(".", "").isdigit():
            return float(seconds)
    raise RuntimeError(f"llama-batched-bench printed no figures in {_TRIES} runs")


def programs() -> Path:
    """The folder of the built programs and libraries; builds them if they are not there."""
    folder = BUILD / "llama.cpp"
    if not all((folder / "bin" / name).exists() for name in TARGETS):
        _build(folder)
    return folder / "bin"


def sources() -> Path:
    """The unpacked source package of llama-cpp-python, checked by the hash that HAIF's own build is locked to."""
    found = list(BUILD.glob("llama_cpp_python-*/"))
    if found:
        return found[0]
    BUILD.mkdir(parents=True, exist_ok=True)
    print("-> sources of llama.cpp", flush=True)
    subprocess.run(
        [
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--no-binary",
            "llama-cpp-python", "--requirement", str(LOCK), "--dest", str(BUILD),
        ],
        check=True,
    )  # fmt: skip
    (archive,) = BUILD.glob("llama_cpp_python-*.tar.gz")
    with tarfile.open(archive) as package:
        package.extractall(BUILD, filter="data")
    archive.unlink()
    return next(BUILD.glob("llama_cpp_python-*/"))


def _build(folder: Path) -> None:
    """CMake and two compilers at low priority, so that the machine stays usable."""
    where = sources() / "vendor" / "llama.cpp"
    print("-> llama-server and llama-batched-bench (about ten minutes on two quiet cores)", flush=True)
    subprocess.run(
        ["cmake", "-G", "Ninja", "-S", str(where), "-B", str(folder), *FLAGS], check=True, stdout=subprocess.DEVNULL
    )
    began = time.monotonic()
    command = [*POLITE, "cmake", "--build", str(folder), "--parallel", "2", "--target", *TARGETS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as build:
        assert build.stdout is not None
        for line in build.stdout:
            show_progress(line, began)
    print(flush=True)
    if build.returncode != 0:
        sys.exit(f"building llama.cpp's programs failed; try: {' '.join(command)}")


def _python() -> Path:
    """The interpreter of an environment that has what llama_cpp.server needs beside llama_cpp itself."""
    folder = BUILD / "llama_cpp_server"
    python, made = folder / "bin" / "python", folder / "made"
    if not made.exists():
        print("-> an environment for llama_cpp.server", flush=True)
        venv.create(folder, with_pip=True)
        needs = [
            "numpy", "diskcache", "jinja2", "typing-extensions", "uvicorn", "fastapi", "pydantic-settings",
            "sse-starlette", "starlette-context<0.4", "PyYAML",
        ]  # fmt: skip
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *needs], check=True, stderr=subprocess.DEVNULL)
        made.touch()
    return python


@contextmanager
def _running(command: list[str], listening: re.Pattern[str], environment: dict[str, str]) -> Iterator[Server]:
    """The program, once it said where it listens and /v1/models answers; ended when the block is left."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        env=os.environ | environment,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        said: list[str] = []
        for line in process.stdout:
            said.append(line)
            if found := listening.search(line):
                break
        else:
            raise RuntimeError(f"{command[0]} ended: {''.join(said[-20:])}")
        Thread(target=process.stdout.read, daemon=True).start()  # what else it says goes nowhere
        yield Server((found[1], int(found[2])), process)
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()
