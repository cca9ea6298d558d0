"""Two orchestrators, one PostgreSQL, real processes: with one of them killed no accepted request fails."""

import asyncio
import contextlib
import json
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import openai
import pytest

from haif.artifacts.service import DEMO_NAME
from haif.identity.service import Keyring
from haif.runtime.clock import entropy
from tests.e2e.conftest import HAIF, Mesh, stop
from tests.support.postgres import Server, server

TOKENS = 48


@dataclass
class House:
    """Roles started one by one, each of which may be killed and started again."""

    state: Path
    key: str
    server: Server
    url: str
    flags: dict[str, list[str]] = field(default_factory=dict)
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    ready: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def start(self, name: str) -> None:
        known = [text for role in self.ready.values() for text in ("--bootstrap", role["dht"])]
        with (self.state / f"{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *HAIF, *self.flags[name], "--name", name, "--state", str(self.state), "--json", "--until-eof", *known,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert process.stdout is not None
        line = await process.stdout.readline()
        assert line, (self.state / f"{name}.log").read_text()
        self.processes[name], self.ready[name] = process, json.loads(line)

    async def kill(self, name: str) -> None:
        process = self.processes[name]
        process.kill()
        await process.communicate()

    async def end(self) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()

    def metric(self, name: str, metric: str) -> float:
        """What a role counts; 0 where it has counted nothing."""
        told = httpx.get(self.ready[name]["metrics"]).text.splitlines()
        return sum(float(each.removeprefix(metric)) for each in told if each.startswith(f"{metric} "))

    async def until(self, name: str, metric: str) -> None:
        while not await asyncio.to_thread(self.metric, name, metric):
            await asyncio.sleep(0)

    async def entries(self, kind: int) -> list[bytes]:
        """Which jobs have journal entries of this kind, in any journal, each as often as it has one."""
        connection = await asyncpg.connect(self.url)
        found = await connection.fetch("SELECT subject FROM journal WHERE get_byte(entry, 0) = $1", kind)
        await connection.close()
        return [bytes(subject) for (subject,) in found]

    def client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.ready['gateway']['http']}/v1", api_key=self.key, max_retries=0)


@pytest.fixture(scope="module")
def own() -> Iterator[Server]:
    with server() as made:
        yield made


@pytest.fixture
async def house(tmp_path: Path, begin: Callable[..., Mesh], own: Server) -> AsyncIterator[House]:
    prepared = await asyncio.to_thread(begin, tmp_path, "--workers", "1")  # it leaves a model and a tenant behind
    key = prepared.first_card["key"]
    await asyncio.to_thread(stop, prepared)
    ring = Keyring(tmp_path / "keys")
    names = ("orchestrator", "orchestrator-2")
    honours = [text for name in names for text in ("--orchestrator", str(ring.load_or_create(name, entropy).peer))]
    gateway = str(ring.load_or_create("gateway", entropy).peer)
    url = await own.database()
    made = House(tmp_path, key, own, url)
    for name in names:
        made.flags[name] = ["orchestrator", "--gateway", gateway, "--model", DEMO_NAME, "--store", url]
    made.flags["gateway"] = ["gateway", "--http-port", "0", *honours]
    for number in (1, 2):
        made.flags[f"worker-{number}"] = ["worker", "--model", DEMO_NAME, "--threads", "1", *honours]
    try:
        for name in made.flags:
            await made.start(name)
        yield made
    finally:
        await made.end()


async def answer(client: openai.AsyncOpenAI, begun: asyncio.Event, number: int) -> str:
    """A streamed answer, whole, with its receipt."""
    text, end, proof = "", None, None
    stream = await client.completions.create(
        model=DEMO_NAME, prompt=f"The {number}", max_tokens=TOKENS, stream=True, seed=number,
    )  # fmt: skip
    async for chunk in stream:
        begun.set()
        for choice in chunk.choices:
            text += choice.text
            end = choice.finish_reason or end
        proof = getattr(chunk, "haif", None) or proof
    assert end in {"stop", "length"}
    assert proof is not None
    return text


async def until_served(client: openai.AsyncOpenAI) -> None:
    while True:
        with contextlib.suppress(openai.APIStatusError):
            await client.completions.create(model=DEMO_NAME, prompt="The", max_tokens=1)
            return
        await asyncio.sleep(0)


async def test_with_one_of_two_orchestrators_killed_no_accepted_request_fails(house: House) -> None:
    async with house.client() as client:
        await until_served(client)
        usual = [await answer(client, asyncio.Event(), number) for number in range(8)]
        for name in ("orchestrator", "orchestrator-2"):
            begun = [asyncio.Event() for _ in range(8)]
            streams = [asyncio.create_task(answer(client, each, n)) for n, each in enumerate(begun)]
            await asyncio.wait([asyncio.create_task(each.wait()) for each in begun], return_when="FIRST_COMPLETED")
            await house.kill(name)
            more = [asyncio.create_task(answer(client, asyncio.Event(), number)) for number in range(8)]
            assert usual == await asyncio.gather(*streams)
            assert usual == await asyncio.gather(*more)
            if name == "orchestrator":  # the one they were with, being the first of the two
                assert house.metric("orchestrator-2", "haif_job_takeovers_total") > 0
            await house.start(name)
            await until_served(client)


async def test_one_that_was_paused_for_longer_than_its_lease_comes_back_by_itself(house: House) -> None:
    async with house.client() as client:
        await until_served(client)
        usual = [await answer(client, asyncio.Event(), number) for number in range(4)]
        begun = [asyncio.Event() for _ in range(4)]
        streams = [asyncio.create_task(answer(client, each, n)) for n, each in enumerate(begun)]
        await begun[0].wait()
        house.processes["orchestrator"].send_signal(signal.SIGSTOP)
        await house.until("orchestrator-2", "haif_job_takeovers_total")
        house.processes["orchestrator"].send_signal(signal.SIGCONT)
        assert usual == await asyncio.gather(*streams)
        await house.until("orchestrator", "haif_orchestrator_rejoins_total")
        await house.kill("orchestrator-2")
        assert usual == await asyncio.gather(*(answer(client, asyncio.Event(), number) for number in range(4)))


async def test_the_database_restarted_under_load_loses_no_accepted_job_and_doubles_none(house: House) -> None:
    async with house.client() as client:
        await until_served(client)
        usual = [await answer(client, asyncio.Event(), number) for number in range(6)]
        for how in (signal.SIGINT, signal.SIGQUIT):
            begun = [asyncio.Event() for _ in range(6)]
            streams = [asyncio.create_task(answer(client, each, n)) for n, each in enumerate(begun)]
            await begun[0].wait()
            await asyncio.to_thread(house.server.stop, how)
            await asyncio.to_thread(house.server.start)
            assert usual == await asyncio.gather(*streams)
    finalised = await house.entries(4)
    assert len(finalised) == len(set(finalised)), "no job ends twice"
    assert len(finalised) >= 18
