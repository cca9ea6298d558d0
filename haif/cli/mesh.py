"""A whole mesh on one machine: every role a process of its own, on loopback, supervised.

1. Keys are made on first use; the orchestrator is told which gateway may submit, the others which orchestrator to
   honour. In a closed network whose root key is here, each is admitted in its role.
2. The orchestrator starts and is the DHT's first node; gateway and workers start with its address as their only clue.
3. The mesh is ready when the gateway says so: it found the orchestrator, and the orchestrator a live worker.
4. A role that ends unasked is started again, with the DHT addresses of those still there, after a pause that doubles
   where it goes on ending.
5. At the end every role is asked to drain, and after `STOP_SECONDS` made to. Roles also stop by themselves when the
   supervisor dies, because their standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from haif.base import limits
from haif.base.errors import HaifError, Misuse, Unavailable
from haif.base.roles import Role as NetworkRole
from haif.cli.household import admit_household
from haif.config import Common, parse_address
from haif.identity.service import Keyring
from haif.runtime import disk
from haif.runtime.clock import entropy
from haif.telemetry.targets import scrape_targets

READY_SECONDS = 120.0  # a large model takes this long to hash and load
STOP_SECONDS = 1.6
RESTART_SECONDS = 1.0
RESTART_SECONDS_MAX = 60.0
_HEALTHY_SECONDS = 60.0  # a role that was up so long may be started again at once
_POLL_SECONDS = 0.02
_LOG_BYTES_MAX = 1 << 20  # a role that is started again adds to its log until here; then it begins anew
CARD = "up.json"  # what `haif chat` needs, while the mesh runs
TARGETS = "prometheus.json"  # a `file_sd` file: where each role serves /metrics
KEY = "up.key"  # the tenant key of this mesh, the same every time


@dataclass
class Role:
    """One process of the mesh. `ready` is what it announced: peer, addresses."""

    name: str
    verb: str
    flags: list[str]
    process: asyncio.subprocess.Process | None = None
    ready: dict[str, Any] = field(default_factory=dict)


class Mesh:
    """Inside `async with`, the mesh is up and ready. `report` is told, in a sentence, whatever a person should know."""

    def __init__(
        self,
        settings: Common,
        *,
        models: Sequence[str],
        workers: int,
        http_port: int,
        threads: int,
        report: Callable[[str], None],
        closed: bool = False,
        relay: bool = False,
        validators: int = 0,
        memory: str = "",
    ) -> None:
        self._settings = settings
        self._folder = settings.folder
        self._models = tuple(dict.fromkeys(models))
        self._memory = memory
        self._report = report
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self.roles = self._plan(workers, validators, http_port, threads, relay=relay)
        members = [(role.name, NetworkRole(role.verb)) for role in self.roles]
        self._network = admit_household(settings, members, closed=closed)
        self.key = ""

    def _plan(self, workers: int, validators: int, http_port: int, threads: int, *, relay: bool) -> list[Role]:
        ring = Keyring(self._folder / "keys")
        orchestrator = ring.load_or_create("orchestrator", entropy).peer
        gateway = ring.load_or_create("gateway", entropy).peer
        honours = ["--orchestrator", str(orchestrator)]
        judges = [f"validator-{number}" for number in range(1, validators + 1)]
        trusts = [text for name in judges for text in ("--validator", str(ring.load_or_create(name, entropy).peer))]
        alone = ["--convict", "one"] if validators <= limits.PANEL_SEATS_MIN else []
        models = [text for model in self._models for text in ("--model", model)]
        serves = (*models, *honours, "--threads", str(threads), *(("--memory", self._memory) if self._memory else ()))
        return [
            Role("orchestrator", "orchestrator", ["--gateway", str(gateway), *models, *trusts, *alone]),
            Role("gateway", "gateway", ["--http-port", str(http_port), *honours, *trusts]),
            *([Role("relay", "relay", [])] if relay else []),
            *(Role(f"worker-{number}", "worker", [*serves]) for number in range(1, workers + 1)),
            *(Role(name, "validator", [*honours, "--threads", str(threads)]) for name in judges),
        ]

    async def __aenter__(self) -> Self:
        from haif.gateway.service import tenant_key

        kept = self._folder / KEY
        known = disk.read_private(kept).decode(errors="replace") if kept.exists() else None
        self.key = await tenant_key(self._folder, "local", known)
        disk.write_private(kept, self.key.encode())
        first, *others = self.roles
        try:
            await self._start(first)
            await self._start_relay()
            await asyncio.gather(*(self._start(role) for role in others if not _alive(role)))
            await self._until_ready()
            self._keep_address()
        except BaseException:
            await self._stop()
            raise
        self._write_cards()
        self._tasks = [asyncio.create_task(self._keep(role)) for role in self.roles]
        return self

    async def _start_relay(self) -> None:
        """Before the workers: they are told where it is, and find it there again when it is started again."""
        for relay in [role for role in self.roles if role.verb == "relay"]:
            await self._start(relay)
            relay.flags += ["--wire-port", relay.ready["wire"].rpartition(":")[2]]
            for worker in [role for role in self.roles if role.verb == "worker"]:
                worker.flags += ["--relay", relay.ready["relay"]]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    @property
    def gateway(self) -> str:
        """The gateway's base URL, without /v1."""
        return str(self.roles[1].ready["http"])

    def card(self) -> dict[str, Any]:
        """What a client needs, and where every role is."""
        roles = [
            {"name": role.name, "role": role.verb, "pid": role.process.pid if role.process else None, **role.ready}
            for role in self.roles
        ]
        return {"gateway": self.gateway, "key": self.key, "model": self._models[0], "roles": roles}

    def _keep_address(self) -> None:
        """Tenants know the gateway's address by now: it stays the same when the gateway is started again."""
        self.roles[1].flags += ["--http-port", self.gateway.rpartition(":")[2]]

    # --- processes ----------------------------------------------------------------------------------------------------

    async def _start(self, role: Role) -> None:
        known = [other.ready["dht"] for other in self.roles if other is not role and _alive(other)]
        common = ["--json", "--until-eof", "--name", role.name, "--state", str(self._folder)]
        common += ["--network", self._network, "--host", self._settings.host]
        common += [text for address in known for text in ("--bootstrap", address)]
        log = disk.private_folder(self._folder / "logs") / f"{role.name}.log"
        again = role.process is not None and log.exists() and log.stat().st_size < _LOG_BYTES_MAX
        with log.open("ab" if again else "wb") as errors:  # why it ended is in there
            begin = errors.tell()
            role.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "haif.cli.main", role.verb, *common, *role.flags,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors, start_new_session=True,
            )  # fmt: skip
        assert role.process.stdout is not None
        try:
            line = await asyncio.wait_for(role.process.stdout.readline(), READY_SECONDS)
        except TimeoutError:
            line = b""
            role.process.kill()
        if not line:
            said = log.read_bytes()[begin:].decode(errors="replace").strip() or "it said nothing"
            raise Unavailable(f"{role.name} did not start: {said.removeprefix('haif: ')}\n(its log: {log})")
        role.ready = json.loads(line)

    async def _until_ready(self) -> None:
        """Wait until the gateway answers /readyz with 200. Raises `Unavailable` if a role ends, or after too long."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not await _is_ready(self.gateway):
                    for role in self.roles:
                        if not _alive(role):
                            raise Unavailable(f"{role.name} ended while the mesh came up; see {self._folder}/logs")
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise Unavailable(
                f"every role is up, but the gateway has found no worker within {READY_SECONDS:.0f} s; "
                f"see {self._folder}/logs, and whether one was revoked: haif network show"
            ) from None

    async def _keep(self, role: Role) -> None:
        """Start a role again whenever it ends unasked."""
        pause = RESTART_SECONDS
        clock = asyncio.get_running_loop().time
        while role.process is not None:
            begun = clock()
            code = await role.process.wait()
            if self._stopping:
                return
            if clock() - begun > _HEALTHY_SECONDS:
                pause = RESTART_SECONDS
            self._report(f"{role.name} ended ({_cause(code)}); starting it again in {pause:g} s")
            await asyncio.sleep(pause)
            pause = min(2 * pause, RESTART_SECONDS_MAX)
            try:
                await self._start(role)
                self._write_cards()
            except (HaifError, OSError, ValueError) as error:  # a full disk, for one: the next round tries again
                self._report(error.message if isinstance(error, HaifError) else f"{role.name}: {error}")
            else:
                self._report(f"{role.name} is back")

    async def _stop(self) -> None:
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        running = [role.process for role in self.roles if role.process is not None and role.process.returncode is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        waiting = asyncio.gather(*(process.wait() for process in running))
        try:
            await asyncio.wait_for(asyncio.shield(waiting), STOP_SECONDS)
        except TimeoutError:
            for process in running:
                if process.returncode is None:
                    self._report(f"process {process.pid} did not stop in {STOP_SECONDS} s and was killed")
                    process.kill()
            await waiting
        for name in (CARD, TARGETS):
            (self._folder / name).unlink(missing_ok=True)

    def _write_cards(self) -> None:
        """Tell `haif chat` and Prometheus where everything is now."""
        disk.write_private(self._folder / CARD, json.dumps(self.card()).encode())
        served = [(role.verb, parse_address(role.ready["metrics"].split("/")[2])) for role in self.roles]
        disk.write_private(self._folder / TARGETS, scrape_targets(served).encode())


def read_card(folder: Path) -> dict[str, Any] | None:
    """What a running `haif up` left for `haif chat`; None when none is running."""
    try:
        card = json.loads(disk.read_private(folder / CARD))
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(card, dict) or not all(isinstance(card.get(name), str) for name in ("gateway", "key")):
        raise Misuse(f"{folder / CARD} is damaged; remove it")
    return card


def _alive(role: Role) -> bool:
    return role.process is not None and role.process.returncode is None and bool(role.ready)


def _cause(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


async def _is_ready(gateway: str) -> bool:
    host, port = gateway.removeprefix("http://").rsplit(":", 1)
    try:
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except OSError:
        return False
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: haif\r\nConnection: close\r\n\r\n")
        return (await reader.readline()).split(b" ")[1:2] == [b"200"]
    except OSError:
        return False
    finally:
        writer.close()


def threads_default(workers: int) -> int:
    """Engine threads per worker: the processors shared out, leaving the rest of the mesh room to breathe."""
    return max(1, (os.cpu_count() or 2) // (2 * workers))
