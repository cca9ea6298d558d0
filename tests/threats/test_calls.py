"""N-1: the list of system calls has what the real engine makes, and no more; it is traced anew with each run."""

import asyncio
import contextlib
import os
import sys

import pytest

from haif.base.errors import HaifError
from haif.engine.sandbox import policy
from haif.engine.service import Engine, EngineSettings
from haif.runtime.clock import SystemClock
from tests.support import traced
from tests.support.engines import LIAR, digest_of, read, request
from tests.support.tiny_model import TEMPLATE, build_tiny_model

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the jail is for Linux")

KNOWN = """
brk clone close exit_group fadvise64 fcntl futex getpid getrandom gettid lseek madvise mmap mprotect munmap poll pread64
prlimit64 read rseq rt_sigaction rt_sigprocmask rt_sigreturn set_robust_list setitimer sysinfo tgkill write
"""
"""What the trace shows. A call more, here or in `policy`, is a decision: say in `policy.RARE` what makes it."""
SLOW_TEMPLATE = (
    TEMPLATE + "{% if 'slow' in messages[0].content %}{% for a in range(99999) %}{% for b in range(99999) %}"
)
SLOW_TEMPLATE += "{% endfor %}{% endfor %}{% endif %}"


async def traced_calls(model, asked, *, program=traced.PROGRAM):
    """The calls of a child that answers these requests."""
    made = set()
    settings = EngineSettings(model, digest_of(model), slots=4, context_tokens=512, threads=2)
    with contextlib.suppress(HaifError):
        async with Engine(
            settings, clock=SystemClock(), entropy=os.urandom, on_died=lambda _: None, program=program
        ) as running:
            child = running._child
            for each in asked:
                with contextlib.suppress(HaifError):
                    await asyncio.gather(*(read(running, what) for what in each))
        made = traced.names(await child._child._words.end)
    return made


async def test_the_real_engine_makes_every_listed_system_call_and_no_other(tiny, tmp_path):
    """Other calls would end it; here it is the list that must not have more than what is made, or explained."""
    assert set(KNOWN.split()) | set(policy.RARE) == policy.allowed(), "the list grew, or shrank: see KNOWN"
    slow = build_tiny_model(tmp_path / "slow.gguf", template=SLOW_TEMPLATE)
    everything = [
        [request(tokens_max=40), request("x " * 150, temperature=0.7, tokens_max=60), request(stop=["a"])],
        [request(chat=[("user", "hi")], temperature=1.0, logprobs=5)],
        [request(json_schema='{"type": "object"}', tokens_max=30)],
        [request(chat=[("user", "slow")])],
        [request(f"and {number}", temperature=1.0, seed=number, tokens_max=20) for number in range(12)],
    ]
    made = await traced_calls(slow, everything)
    aborting = LIAR.replace("LIE", "os.abort()").replace(
        "told =", "from tests.support import traced; traced.trace()\ntold ="
    )
    made |= await traced_calls(tiny, [[request()]], program=aborting)
    reached = {name for name in made if "=" not in name}
    assert set() == reached - policy.allowed()
    assert set() == set(KNOWN.split()) - reached, "listed and not made: take it off the list"
