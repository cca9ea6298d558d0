"""N-1: an engine that dies, or has to, takes nobody with it, and the operator is told of what."""

import asyncio
import os
import re
import signal
import sys

import pytest

from haif.base import limits
from haif.engine.service import process
from tests.support.engines import LIAR, engine, read, request

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the jail is for Linux")

ANSWER = (
    "say(Report(step=Step([Output(0, [1], 'x', End('length', 1, 1, 0, 0, 0, 0), [], [b'r' * 32])], [], 1, 0, 0, 1)))"
)
SPIN = "any(None for _ in iter(int, 1))"


async def cause_of_death(tiny, lie, *, before="pass", during=None):
    """What the operator is told of a sealed child that does `lie` when it is asked; `during` happens meanwhile."""
    causes = asyncio.Queue()
    program = LIAR.replace("LIE", lie).replace("told =", f"{before}\ntold =")
    async with engine(tiny, program=program, died=causes.put_nowait) as running:
        answer = asyncio.create_task(read(running, request(tokens_max=1)))
        if during is not None:
            during(running)
        cause = await causes.get()
        await asyncio.gather(answer, return_exceptions=True)
    return cause


async def test_cpu_spin_of_an_engine_that_answered_all_is_ended_by_the_worker(tiny, monkeypatch):
    monkeypatch.setattr(limits, "ENGINE_IDLE_SECONDS", 0.5)
    monkeypatch.setattr(limits, "ENGINE_SILENCE_SECONDS", 1e6)  # as long as after one that was cancelled
    monkeypatch.setattr(limits, "ENGINE_LOOK_SECONDS", 0.05)
    assert "it owed nothing and computed" in await cause_of_death(tiny, f"{ANSWER}; {SPIN}")


async def test_cpu_spin_behind_steps_in_which_nothing_happens_is_ended_by_the_worker(tiny, monkeypatch):
    monkeypatch.setattr(limits, "ENGINE_SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(limits, "ENGINE_LOOK_SECONDS", 0.05)
    nothing = "while True: say(Report(step=Step([], [], 0, 0, 0, 1)))"
    assert "it owed an answer and said nothing" in await cause_of_death(tiny, nothing)


async def test_cpu_spin_on_more_cores_than_it_was_given_is_ended_by_the_worker(tiny, monkeypatch):
    monkeypatch.setattr(limits, "ENGINE_CORES_SECONDS", 0.2)
    monkeypatch.setattr(limits, "ENGINE_LOOK_SECONDS", 0.05)
    really = process.processor_seconds  # the machine may not have so many to give
    monkeypatch.setattr(process, "processor_seconds", lambda pid: 1000 * really(pid))
    assert "cores, more than it was given" in await cause_of_death(tiny, SPIN)


MAPPED = (
    "mapped = ctypes.CDLL(None).mmap; mapped.restype = ctypes.c_void_p; "
    "place = mapped(None, ctypes.c_size_t(4096), 1, 2, model, ctypes.c_long(0)); ctypes.string_at(place)\n"
    "while os.lseek(model, 0, os.SEEK_END): sleep(0.001)\n"
    "ctypes.string_at(place)"
)


@pytest.mark.parametrize(
    ("lie", "cause"),
    [
        ("os.abort()", r"SIGABRT \(llama.cpp stopped itself"),
        ("os.write(2, b'ggml.c:1: GGML_ASSERT(x) failed'); os.abort()", r"SIGABRT .*last words: ggml.c:1: GGML_ASSERT"),
        ("ctypes.string_at(0)", r"SIGSEGV \(a memory fault"),
        ("bytearray(1 << 45)", r"status 1: it needed more memory than its jail allows.*MemoryError"),
        ("os.kill(1, 9)", r"SIGSYS \(its jail forbids.*tried system call 62 \(kill\)"),
        ("os._exit(7)", "it exited with status 7"),
    ],
)
async def test_every_death_has_its_cause(tiny, lie, cause):
    assert re.search(cause, await cause_of_death(tiny, lie, before="import ctypes"))


async def test_a_limit_of_processor_time_around_the_worker_is_named(tiny):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_CPU, (2, 5))"
    assert "SIGXCPU (a limit of processor time" in await cause_of_death(tiny, SPIN, before=limit)


async def test_a_model_that_is_cut_short_while_in_use_ends_that_child_only_and_is_named(tiny, tmp_path):
    model = tmp_path / "model.gguf"
    model.write_bytes(tiny.read_bytes())
    cause = await cause_of_death(model, MAPPED, before="import ctypes", during=lambda _: os.truncate(model, 0))
    assert "SIGBUS (a page of the model is gone" in cause


async def test_a_child_that_somebody_kills_is_told_from_one_that_the_kernel_killed(tiny):
    def kill(running):
        os.kill(running._child._engine, signal.SIGKILL)

    cause = await cause_of_death(tiny, "sleep(100)", during=kill)
    assert "SIGKILL (by somebody on this machine" in cause
