"""The operator's socket: what is asked there happens, and nobody else asks."""

import asyncio
import json
import os
import stat
from pathlib import Path

import pytest

from haif.base import limits
from haif.base.errors import ConnectionLost, InvalidRequest, Oversize, Reason
from haif.worker.control import Asked, Told, Verb, read_request
from haif.worker.service import Pool, ask, controlled
from tests.support.pools import pool_of, served, states
from tests.support.tiny_model import build_tiny_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [build_tiny_model(folder / f"{name}.gguf", seed=seed) for seed, name in enumerate("ab")]


def small(models: list[Path]) -> Pool:
    return pool_of(*models, memory_bytes=int(1.5 * served(models[0]).needs.total))


async def told(folder: Path, verb: Verb, model: str = "", **options: float) -> tuple[list[Told], Told]:
    """The lines of progress, and the last one."""
    lines = [line async for line in ask(folder, Asked(verb=verb, model=model, **options))]
    return lines[:-1], lines[-1]


async def test_models_are_listed_loaded_unloaded_and_pinned(models, tmp_path) -> None:
    async with small(models) as pool, controlled(pool, tmp_path):
        _, last = await told(tmp_path, Verb.LIST)
        assert [("a", "warm", False), ("b", "cold", False)] == [(m.name, m.state, m.pinned) for m in last.models or ()]
        assert last.memory_used == pool.memory_used
        progress, last = await told(tmp_path, Verb.PIN, "b")
        assert {"b"} == {line.progress.name for line in progress if line.progress} or not progress
        assert ["cold", "warm"] == [m.state for m in last.models or ()]
        _, last = await told(tmp_path, Verb.LOAD, "a")
        assert (Reason.OVERLOADED.value, True) == (last.reason, "unpin" in last.error)
        _, last = await told(tmp_path, Verb.UNPIN, "b")
        assert [False, False] == [m.pinned for m in last.models or ()]
        _, last = await told(tmp_path, Verb.UNLOAD, str(pool.find("b")))
        assert {"cold"} == set(states(pool).values())
        _, last = await told(tmp_path, Verb.RELEASE, "b")
        assert "it was not quarantined" == last.note
        _, last = await told(tmp_path, Verb.LOAD, "nothing")
        assert Reason.UNKNOWN_MODEL.value == last.reason


async def test_the_socket_is_its_owners_alone_and_goes_with_the_worker(models, tmp_path) -> None:
    folder = tmp_path / ("deep" * 30)  # longer than an address of a socket can be
    folder.mkdir()
    (folder / "control").touch()  # of a worker that was killed
    async with pool_of(models[0]) as pool, controlled(pool, folder):
        found = (folder / "control").stat()
        assert stat.S_ISSOCK(found.st_mode)
        assert 0o600 == stat.S_IMODE(found.st_mode)
        assert (await told(folder, Verb.LIST))[1].models
    assert [] == list(folder.iterdir())
    with pytest.raises(ConnectionLost, match="no worker is running"):
        await told(folder, Verb.LIST)


async def said(folder: Path, raw: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{os.open(folder, os.O_RDONLY)}/control")
    try:
        writer.write(raw)
        writer.write_eof()
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_whatever_is_said_at_the_socket_the_worker_goes_on(models, tmp_path) -> None:
    async with pool_of(models[0]) as pool, controlled(pool, tmp_path):
        for raw in (
            b"", b"\n", b"nonsense\n", b"{}\n", b'{"verb":"list","x":1}\n', b'{"verb":"load"}\n', b"[" * 4000 + b"\n",
            b'{"verb":"unload","model":"a","seconds":1e9}\n', b'{"verb":"list"', b"\xff\xfe\n", b"x" * 200_000,
        ):  # fmt: skip
            answer = await said(tmp_path, raw)
            if answer:
                assert json.loads(answer)["reason"] in {"invalid_request", "oversize"}
        assert (await told(tmp_path, Verb.LIST))[1].models
        assert {"warm"} == set(states(pool).values())


async def test_only_so_many_are_listened_to_at_once(models, tmp_path) -> None:
    async with pool_of(models[0]) as pool, controlled(pool, tmp_path):
        handle = os.open(tmp_path, os.O_RDONLY)
        idle = [
            await asyncio.open_unix_connection(f"/proc/self/fd/{handle}/control")
            for _ in range(limits.CONTROL_CONNECTIONS_MAX)
        ]
        os.close(handle)
        while True:  # until all of them were accepted
            try:
                await told(tmp_path, Verb.LIST)
            except ConnectionLost:
                break
        for _, writer in idle:
            writer.close()
        while True:
            try:
                assert (await told(tmp_path, Verb.LIST))[1].models
                break
            except ConnectionLost:
                await asyncio.sleep(0)


def test_requests_are_read_strictly() -> None:
    assert Asked(verb=Verb.LIST) == read_request(b'{"verb":"list"}')
    with pytest.raises(Oversize):
        read_request(b" " * 5000)
    for raw in (
        b'{"verb":"list","model":"a"}',
        b'{"verb":"boil","model":"a"}',
        b'{"verb":"pin","model":"' + b"a" * 300,
    ):
        with pytest.raises(InvalidRequest):
            read_request(raw)
