"""The wire's work done by aioquic: run by `benchmarks.peers` in an environment that has it, prints a line of JSON."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import ssl
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from aioquic.asyncio import connect, serve
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

CALLS, WINDOW, SIZE, ROUNDS = 3200, 64, 1024, 3
BULK_BYTES = 32 << 20


def certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "cert").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert", folder / "key"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    data = await reader.read()
    if data == b"bulk":
        for _ in range(BULK_BYTES >> 16):
            writer.write(bytes(1 << 16))
            await asyncio.sleep(0)
    else:
        writer.write(data)
    writer.write_eof()


async def call(client: QuicConnectionProtocol, data: bytes) -> int:
    reader, writer = await client.create_stream()
    writer.write(data)
    writer.write_eof()
    size = 0
    while piece := await reader.read(1 << 20):
        size += len(piece)
    return size


async def calls(client: QuicConnectionProtocol) -> None:
    async def caller() -> None:
        for _ in range(CALLS // WINDOW):
            assert await call(client, bytes(SIZE)) == SIZE

    async with asyncio.TaskGroup() as group:
        for _ in range(WINDOW):
            group.create_task(caller())


async def bulk(client: QuicConnectionProtocol) -> None:
    assert await call(client, b"bulk") == BULK_BYTES


async def best(work: Callable[[], Awaitable[None]], amount: float) -> float:
    figure = 0.0
    for _ in range(ROUNDS):
        began = time.process_time()
        await work()
        figure = max(figure, amount / (time.process_time() - began))
    return figure


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        cert, key = certificate(Path(folder))
        listening = QuicConfiguration(is_client=False, alpn_protocols=["x"])
        listening.load_cert_chain(cert, key)
        tasks = set[asyncio.Task[None]]()

        def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(asyncio.ensure_future(answer(reader, writer)))

        server = await serve("127.0.0.1", 0, configuration=listening, stream_handler=handle)
        port = server._transport.get_extra_info("sockname")[1]  # noqa: SLF001  # it does not say where it listens
        dialling = QuicConfiguration(alpn_protocols=["x"], verify_mode=ssl.CERT_NONE)
        async with connect("127.0.0.1", port, configuration=dialling) as client:
            print(json.dumps({
                "calls": await best(lambda: calls(client), CALLS),
                "bulk_mb": await best(lambda: bulk(client), BULK_BYTES / 1e6),
            }))  # fmt: skip


if __name__ == "__main__":
    asyncio.run(main())
