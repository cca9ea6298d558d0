"""A real PostgreSQL server of a test's own: its data folder, its socket, its user; nothing of this machine's."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import asyncpg
import pytest

_PORT = 5432  # of a socket in a folder of ours: no port of the machine


@dataclass
class Server:
    """A server in `folder`, reached through a socket there; it may be stopped, killed and started again."""

    folder: Path
    programs: Path
    user: dict[str, str]
    durable: bool
    process: subprocess.Popen[bytes] | None = None
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def url(self, schema: str = "public") -> str:
        return f"postgresql://haif@/postgres?host={self.folder}&port={_PORT}&search_path={schema}"

    def start(self) -> None:
        """Start it, and return when it answers."""
        command = [
            self.programs / "postgres", "-D", self.folder / "data", "-k", self.folder, "-c", "listen_addresses=",
            "-p", str(_PORT), "-c", f"fsync={'on' if self.durable else 'off'}",
        ]  # fmt: skip
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **self.user)  # type: ignore[call-overload]
        log.close()
        ready = [self.programs / "pg_isready", "-q", "-t", "60", "-h", self.folder, "-p", str(_PORT)]
        while subprocess.run(ready, check=False).returncode != 0:
            assert self.process.poll() is None, (self.folder / "log").read_text()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: a fast shutdown, connections cut. SIGQUIT: as if it crashed."""
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait()

    async def database(self) -> str:
        """The URL of what is a new, empty database to its user: a schema, which costs nothing to make."""
        name = f"test{next(self.numbers)}"
        connection = await asyncpg.connect(self.url())
        await connection.execute(f"CREATE SCHEMA {name}")
        await connection.close()
        return self.url(name)


def programs() -> Path | None:
    """Where the server's programs are: on the path, or where Debian puts them."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb", path=os.pathsep.join([*map(str, debian), os.environ.get("PATH", "")]))
    return Path(found).resolve().parent if found else None


@contextmanager
def server(*, durable: bool = True, parent: Path | None = None) -> Iterator[Server]:
    """A server that runs. Skips the test where there is no PostgreSQL. Not `durable`: it must not be killed."""
    where = programs()
    if where is None:
        pytest.skip("no PostgreSQL on this machine (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="haif-postgres-", dir=parent))
    user = {"user": "nobody", "group": "nogroup"} if os.getuid() == 0 else {}  # initdb refuses root
    if user:
        shutil.chown(folder, "nobody", "nogroup")
    made = Server(folder, where, user, durable)
    try:
        subprocess.run(
            [where / "initdb", "-D", folder / "data", "-U", "haif", "-A", "trust", "-E", "UTF8", "--no-locale",
             "--no-sync"],
            check=True, stdout=subprocess.DEVNULL, cwd=folder, **user,
        )  # type: ignore[call-overload]  # fmt: skip
        made.start()
        yield made
    finally:
        if made.process is not None and made.process.poll() is None:
            made.stop(signal.SIGQUIT)
        shutil.rmtree(folder, ignore_errors=True)
