"""The settings of each role: defaults < file (TOML) < environment < flags. Unknown settings are refused.

The file is `haif.toml` in the working directory, else `$XDG_CONFIG_HOME/haif/config.toml`; a table per role, and the
settings all roles share at the top level. The environment spells them `HAIF_STATE` and `HAIF_WORKER_SLOTS`.
"""

from __future__ import annotations

import argparse
import dataclasses
import ipaddress
import os
import re
import tomllib
import typing
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

from haif.base import limits
from haif.base.confinement import LEVELS
from haif.base.errors import Misuse
from haif.base.machine import Address

T = TypeVar("T", bound="Common")


RELAYS = "PEER@HOST:PORT of a relay to be reached through, where nobody can dial this machine; up to 3"
AUDITED = ("exact", "exact-native")  # profiles in which bits can be compared
CONVICT = ("panel", "one")  # who takes a worker out of placement
DHT_MODES = ("auto", "persistent", "ephemeral")


def _setting(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every role needs to know."""

    name: str = _setting("", "name of this instance; its key, databases and lock go by it (default: the role)")
    state: Path | None = _setting(None, "folder for keys, databases and models (default: the XDG state folder)")
    network: str = _setting(
        "local", "name of the network, or the file its owner gave you; networks do not hear each other"
    )
    host: str = _setting("127.0.0.1", "address to listen on; anything but loopback is reachable by others")
    host6: str = _setting(
        "", "an IPv6 address to listen on beside an IPv4 --host (`::` for all): a node of both, at the same ports"
    )
    wire_port: int = _setting(0, "TCP port for calls between peers; 0 picks a free one")
    dht_port: int = _setting(0, "UDP port for the DHT; 0 picks a free one")
    metrics_port: int = _setting(0, "loopback TCP port for /metrics; 0 picks a free one")
    bootstrap: tuple[str, ...] = _setting((), "HOST:PORT of a DHT node that is up; may be given more than once")
    allow_private: bool = _setting(False, "true: a mesh inside one site, where many nodes share a private network")
    lan: bool = _setting(
        True, "find nodes of the same network nearby by multicast, and be found; never on a loopback address"
    )
    dht_mode: str = _setting(
        "auto",
        "persistent: others may rely on this node; ephemeral: it only asks; auto: once it was reachable for long",
    )
    port_mapping: bool = _setting(
        False, "true: ask the router at home for ports that strangers can reach (NAT-PMP, UPnP)"
    )
    otlp: str = _setting("", "URL of an OTLP/HTTP collector for traces; they are kept locally in any case")

    def __post_init__(self) -> None:
        if self.dht_mode not in DHT_MODES:
            raise Misuse(f"--dht-mode: wanted one of {', '.join(DHT_MODES)}, got {self.dht_mode!r}")
        if self.host6 and (_version(self.host), _version(self.host6)) != (4, 6):
            raise Misuse("--host6 is an IPv6 address that goes with an IPv4 --host; for IPv6 alone, give it as --host")

    @property
    def folder(self) -> Path:
        """The state folder."""
        return self.state if self.state is not None else state_dir()

    @property
    def bootstrap_addresses(self) -> tuple[Address, ...]:
        """Where to look for the first DHT nodes. Raises `Misuse` for what is not HOST:PORT."""
        return tuple(parse_address(text) for text in self.bootstrap)


@dataclass(frozen=True, kw_only=True)
class NodeSettings(Common):
    """`haif node`: a node of the DHT that others can find and shake hands with, and nothing else."""


@dataclass(frozen=True, kw_only=True)
class OrchestratorSettings(Common):
    """`haif orchestrator`."""

    gateways: tuple[str, ...] = _setting(
        (), "peer id of a gateway that may submit jobs; none: those a closed network admits"
    )
    workers: tuple[str, ...] = _setting((), "peer id of an admitted worker; none given: every worker is admitted")
    relays: tuple[str, ...] = _setting((), RELAYS)
    models: tuple[str, ...] = _setting((), "model to serve, by name; none given: every model of the store")
    publishers: tuple[str, ...] = _setting((), "peer id of a trusted model publisher, besides this machine's own")
    store: str = _setting(
        "", "postgresql:// URL of the database that several orchestrators share; none: a file in the state folder"
    )
    sandbox_min: str = _setting(
        "none", "none, reduced or full: jobs go only to workers who sign that their engine's jail has this level"
    )
    validators: tuple[str, ...] = _setting(
        (), "peer id of a validator that is believed; PEER*3 for one that is drawn for panels three times as often"
    )
    convict: str = _setting(
        "panel", "panel: validators convict a worker together, which takes six or more; one: each of them alone"
    )
    owners: tuple[str, ...] = _setting(
        (), "NAME=PEER: whose a validator or worker is; nobody judges the workers of its owner"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_level(self.sandbox_min, LEVELS)
        if self.convict not in CONVICT:
            raise Misuse(f"--convict: wanted one of {', '.join(CONVICT)}, got {self.convict!r}")
        if self.store:
            _check_store(self.store)


@dataclass(frozen=True, kw_only=True)
class WorkerSettings(Common):
    """`haif worker`."""

    relays: tuple[str, ...] = _setting((), RELAYS)
    orchestrators: tuple[str, ...] = _setting((), "peer id of an orchestrator whose reservations are honoured")
    models: tuple[str, ...] = _setting(
        (), f"model to serve, by name or digest; up to {limits.WORKER_MODELS_MAX}, or `all` (default: haif-demo)"
    )
    pins: tuple[str, ...] = _setting((), "one of them that is loaded first and never leaves memory for another")
    memory: str = _setting("", "what models may take of this machine's memory, such as 12G (default: 3/4 of it)")
    upstream: str = _setting(
        "", "base URL of an OpenAI-compatible server that computes the answers, such as http://127.0.0.1:8000/v1"
    )
    upstream_models: tuple[str, ...] = _setting((), "what that server calls each --model, in their order")
    upstream_hosts: tuple[str, ...] = _setting((), "a host other than this machine that --upstream may name")
    upstream_key_file: Path | None = _setting(None, "file with the key for it; or in HAIF_UPSTREAM_KEY")
    publishers: tuple[str, ...] = _setting((), "peer id of a trusted model publisher, besides this machine's own")
    slots: int = _setting(8, "requests computed at the same time")
    context_tokens: int = _setting(0, "tokens of one request, prompt and answer; 0: as trained, at most 4096")
    threads: int = _setting(0, "threads of the engine; 0 takes half of the processors")
    profile: str = _setting(
        "exact", "exact: same bits in any batch, on any machine; exact-native: on such machines; fast: bits may vary"
    )
    kv_tokens: int = _setting(
        0,
        "tokens in the KV cache of the profile fast; 0: for all slots at their longest; with less, answers may wait",
    )
    kv_type: str = _setting("f16", "f16, or q8_0 with profile fast: the numbers of the KV cache, in half the memory")
    gpu_layers: int = _setting(
        0, "layers computed on GPUs, where llama.cpp was built for them; needs profile fast and --insecure-no-sandbox"
    )
    split_mode: str = _setting("layer", "layer, row or none: how a model is split among several GPUs")
    main_gpu: int = _setting(0, "the GPU that holds what is not split")
    sandbox_min: str = _setting("reduced", "reduced or full: serve only in a jail of this level (`--probe` shows it)")
    insecure_no_sandbox: bool = _setting(
        False, "serve even where no jail can be built around the engine: code in a model is then code as this user"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_level(self.sandbox_min, LEVELS[1:])
        if self.insecure_no_sandbox and self.sandbox_min != LEVELS[1]:
            raise Misuse("--insecure-no-sandbox and --sandbox-min full contradict each other: leave one out")


@dataclass(frozen=True, kw_only=True)
class GatewaySettings(Common):
    """`haif gateway`."""

    orchestrators: tuple[str, ...] = _setting((), "peer id of an orchestrator to submit jobs to")
    http_host: str = _setting(
        "127.0.0.1", "address on which the API listens, whatever --host is; anything but loopback needs --tls-cert"
    )
    http_port: int = _setting(8080, "TCP port of the OpenAI-compatible API; 0 picks a free one")
    tls_cert: Path | None = _setting(
        None, "PEM file with the API's certificate and its chain: TLS 1.3 only; read again when it changes"
    )
    tls_key: Path | None = _setting(None, "PEM file with its private key")
    client_ca: Path | None = _setting(
        None, "PEM file with authorities: whoever shows no certificate of theirs is not answered (mutual TLS)"
    )
    insecure_plain_http: bool = _setting(
        False, "listen without TLS on other than loopback: keys, prompts and answers can be read on the way"
    )
    admin: bool = _setting(
        False, "answer operators on a listener of its own; `haif admin create NAME` makes their keys"
    )
    admin_host: str = _setting("127.0.0.1", "address of that listener; anything but loopback needs --tls-cert")
    admin_port: int = _setting(0, "TCP port of that listener; 0 picks a free one")
    address_rpm: int = _setting(
        limits.ADDRESS_REQUESTS_PER_MINUTE,
        "requests of inference in any minute from one address; this machine's own have no limit; 0: nobody's has",
    )
    cors_origins: tuple[str, ...] = _setting(
        (), "origin whose web pages may call the API from a browser, such as https://app.example; none given: none may"
    )
    first_token_ms: int = _setting(
        int(limits.FIRST_TOKEN_SECONDS * 1000), "milliseconds after which another worker takes over from a silent one"
    )
    token_ms: int = _setting(int(limits.TOKEN_SECONDS * 1000), "the same between two tokens of an answer")
    allow_unverifiable: bool = _setting(
        False, "use workers, too, whose answers come from a program that is not ours (`haif worker --upstream`)"
    )
    validators: tuple[str, ...] = _setting(
        (), "peer id of a validator that may see requests and answers it drew; none given: nobody audits answers"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.first_token_ms and self.token_ms):
            raise Misuse("--first-token-ms and --token-ms: a worker needs more than 0 milliseconds for a token")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise Misuse("--tls-cert and --tls-key belong together: give both or neither")
        if self.client_ca is not None and self.tls_cert is None:
            raise Misuse("--client-ca asks for certificates of clients, which takes TLS: give --tls-cert and --tls-key")
        if self.tls_cert is not None and self.insecure_plain_http:
            raise Misuse("--insecure-plain-http and --tls-cert contradict each other: leave one out")
        for flag, host in (("--http-host", self.http_host), ("--admin-host", self.admin_host)):
            if self.tls_cert is None and not self.insecure_plain_http and not is_loopback(host):
                raise Misuse(
                    f"{flag} {host} can be reached by others, who could read keys and prompts on the way: "
                    "give --tls-cert and --tls-key, or stay on loopback behind a TLS proxy"
                )
        for origin in self.cors_origins:
            if not _ORIGIN.fullmatch(origin):
                raise Misuse(f"--cors-origin: wanted SCHEME://HOST or SCHEME://HOST:PORT, got {origin[:80]!r}")


@dataclass(frozen=True, kw_only=True)
class ValidatorSettings(Common):
    """`haif validator`."""

    relays: tuple[str, ...] = _setting((), RELAYS)
    orchestrators: tuple[str, ...] = _setting((), "peer id of an orchestrator whose finished jobs are audited")
    publishers: tuple[str, ...] = _setting((), "peer id of a trusted model publisher, besides this machine's own")
    context_tokens: int = _setting(0, "tokens of one request that there is room for; 0: as trained, at most 4096")
    threads: int = _setting(0, "threads of the engine; 0 takes half of the processors")
    profile: str = _setting("exact", "the profile of the workers that can be judged: exact or exact-native")
    sandbox_min: str = _setting("reduced", "reduced or full: compute only in a jail of this level")
    insecure_no_sandbox: bool = _setting(False, "compute even where no jail can be built around the engine")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_level(self.sandbox_min, LEVELS[1:])
        if self.profile not in AUDITED:
            raise Misuse(f"--profile: bits can be compared in {' and '.join(AUDITED)} only, not in {self.profile!r}")


@dataclass(frozen=True, kw_only=True)
class RelaySettings(Common):
    """`haif relay`."""

    circuits: int = _setting(limits.RELAY_CIRCUITS_MAX, "circuits open at once; at most 1000")
    bytes_per_second: int = _setting(
        limits.RELAY_BYTES_PER_SECOND, "bytes a second, both directions, of one circuit and of all of one peer"
    )
    circuit_bytes: int = _setting(limits.RELAY_CIRCUIT_BYTES, "bytes one circuit may carry before it is cut")
    circuit_seconds: int = _setting(limits.RELAY_CIRCUIT_SECONDS, "seconds one circuit may last")


SECTIONS: dict[type[Common], str] = {
    NodeSettings: "node",
    OrchestratorSettings: "orchestrator",
    WorkerSettings: "worker",
    GatewaySettings: "gateway",
    ValidatorSettings: "validator",
    RelaySettings: "relay",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ORIGIN = re.compile(r"https?://(\[[0-9a-f:]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")  # as browsers write it: RFC 6454, 6.1
_COMMON = {each.name for each in dataclasses.fields(Common)}


def _check_level(level: str, allowed: tuple[str, ...]) -> None:
    if level not in allowed:
        raise Misuse(f"--sandbox-min: wanted one of {', '.join(allowed)}, got {level!r}")


def _check_store(url: str) -> None:
    """Return if nobody on the way can read or change what the database is told. Raises `Misuse`."""
    parts = urllib.parse.urlsplit(url)
    query = urllib.parse.parse_qs(parts.query)
    if parts.scheme not in ("postgresql", "postgres"):
        raise Misuse(f"--store: wanted postgresql://HOST/DATABASE, got {parts.scheme or 'no scheme'}")
    host = query.get("host", [parts.hostname or ""])[-1]
    if host and not host.startswith("/") and not is_loopback(host) and query.get("sslmode") != ["verify-full"]:
        raise Misuse(f"--store: {host} is another machine: add ?sslmode=verify-full, so that nobody poses as it")


def upstream_key(settings: WorkerSettings, environment: Mapping[str, str] | None = None) -> str:
    """The key for the server behind a worker: of the file that is named, else of the environment, else none."""
    if settings.upstream_key_file is None:
        return (os.environ if environment is None else environment).get("HAIF_UPSTREAM_KEY", "")
    try:
        return settings.upstream_key_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Misuse(f"--upstream-key-file: {settings.upstream_key_file} cannot be read: {error}") from None


def state_dir() -> Path:
    """`$HAIF_STATE`, else the XDG state folder."""
    return Path(os.environ.get("HAIF_STATE") or platformdirs.user_state_path("haif", appauthor=False))


def parse_address(text: str) -> Address:
    """(host, port) of HOST:PORT or [IPv6]:PORT. Raises `Misuse`."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise Misuse(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def _version(host: str) -> int:
    """4 or 6; 0 for a name."""
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return 0


def is_loopback(host: str) -> bool:
    """Whether whoever listens there hears only this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def add_flags(parser: argparse.ArgumentParser, kind: type[Common]) -> None:
    """Declare a flag for each setting. Flags that are not given leave the word to the environment and the file."""
    for each, hint in _fields(kind):
        flag = (
            "--" + each.name.replace("_", "-").removesuffix("s")
            if hint is tuple
            else "--" + each.name.replace("_", "-")
        )
        text = each.metadata["help"]
        if each.default not in (None, "", ()):
            text += f" (default: {each.default})"
        if hint is bool:
            parser.add_argument(flag, dest=each.name, action=argparse.BooleanOptionalAction, default=None, help=text)
        elif hint is tuple:
            parser.add_argument(flag, dest=each.name, action="append", metavar="VALUE", help=text)
        else:
            parser.add_argument(flag, dest=each.name, metavar=hint.__name__.upper(), help=text)


def load(kind: type[T], flags: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> T:
    """The settings of a role. Raises `Misuse` naming the setting and where it came from."""
    environment = os.environ if environment is None else environment
    section = SECTIONS[kind]
    values: dict[str, Any] = {}
    path, document = _read_file(environment)
    table = {key: value for key, value in document.items() if key not in SECTIONS.values()}
    own = document.get(section, {})
    if not isinstance(own, dict):
        raise Misuse(f"{path}: {section} must be a table, begun with a line [{section}]")
    table |= own
    known = {each.name: hint for each, hint in _fields(kind)}

    def take(key: str, value: Any, where: str) -> None:
        values[key] = _convert(known[key], value, where)
        if key.endswith("_port") and values[key] > 65535:  # some systems take the remainder, and listen elsewhere
            raise Misuse(f"{where}: a port is at most 65535, not {value}")

    for key, value in table.items():
        if key not in known:
            raise Misuse(f"{path}: unknown setting {key!r} for {section}; known are: {', '.join(sorted(known))}")
        take(key, value, f"{path}: {key}")
    for key in known:
        name = f"HAIF_{key.upper()}" if key in _COMMON else f"HAIF_{section.upper()}_{key.upper()}"
        if name in environment:
            take(key, environment[name], f"environment variable {name}")
    for key, value in flags.items():
        if key in known and value is not None:
            take(key, value, f"--{key.replace('_', '-')}")
    settings = kind(**values)
    if settings.name and not _NAME.fullmatch(settings.name):  # keys and folders go by it
        raise Misuse(f"--name: {settings.name[:80]!r} cannot name an instance: use 1 to 64 of a-z A-Z 0-9 . _ -")
    return settings


def _read_file(environment: Mapping[str, str]) -> tuple[Path | None, dict[str, Any]]:
    named = environment.get("HAIF_CONFIG")
    candidates = [Path(named)] if named else [Path("haif.toml"), platformdirs.user_config_path("haif") / "config.toml"]
    for path in candidates:
        if path.exists():
            try:
                return path, tomllib.loads(path.read_text())
            except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
                raise Misuse(f"{path} is not a readable TOML file: {error}") from None
    if named:
        raise Misuse(f"HAIF_CONFIG names {named}, which does not exist")
    return None, {}


def _fields(kind: type[Common]) -> list[tuple[dataclasses.Field[Any], type]]:
    """Each field with the plain type its values have: str, int, bool, Path or tuple."""
    hints = typing.get_type_hints(kind)
    plain: list[tuple[dataclasses.Field[Any], type]] = []
    for each in dataclasses.fields(kind):
        hint = hints[each.name]
        origin = typing.get_origin(hint)
        plain.append((each, tuple if origin is tuple else Path if Path in typing.get_args(hint) else hint))
    return plain


def _convert(hint: type, value: Any, where: str) -> Any:
    if hint is tuple:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
            raise Misuse(f"{where}: wanted a list of texts, got {value!r}")
        return tuple(item.strip() for item in items if item.strip())
    if hint is bool:
        if not isinstance(value, bool) and value not in ("true", "false"):
            raise Misuse(f"{where}: wanted true or false, got {value!r}")
        return value is True or value == "true"
    if hint is int:
        try:
            number = int(value)
        except (TypeError, ValueError):
            raise Misuse(f"{where}: wanted a whole number, got {value!r}") from None
        if isinstance(value, bool) or number < 0:
            raise Misuse(f"{where}: wanted a whole number of 0 or more, got {value!r}")
        return number
    if not isinstance(value, str | Path):
        raise Misuse(f"{where}: wanted a text, got {value!r}")
    return hint(value)
