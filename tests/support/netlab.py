"""A small internet of network namespaces: a core that routes, public hosts, and homes behind NATs of every kind.

    host ── (home NAT) ── (carrier NAT) ── core ── ... ── host

Each site hangs on the core by a network of its own /16 (IPv4) and /32 (IPv6), so that nobody shares a network with
anybody by accident. Nothing leads out: what runs in here reaches what runs in here. A NAT is conntrack and nftables:

    kind             mapping (RFC 4787: which port we get)    filtering (who may answer)
    full_cone        the same for every destination           anybody
    restricted       the same                                 addresses we have sent to
    port_restricted  the same                                 endpoints we have sent to
    symmetric        a random port for every connection       endpoints we have sent to

A NAT that hairpins shows what comes back as coming from outside (RFC 4787, REQ-9).
What arrives uninvited is dropped, as homes do it, not answered with a reset. Names carry the process id of the maker; a
lab removes its namespaces when it closes, and those of makers that died before it.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Literal, Self

Kind = Literal["full_cone", "restricted", "port_restricted", "symmetric"]
KINDS: tuple[Kind, ...] = ("full_cone", "restricted", "port_restricted", "symmetric")
NAMESPACES_MAX = 64  # of one lab
MAPPING_SECONDS = 120
_PREFIX = "haif"
_RUN = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_SERIAL = count()
_COMMAND_SECONDS = 20.0


class Refused(Exception):
    """This machine makes no namespaces; the text says why."""


@dataclass(frozen=True)
class Host:
    """A place to run something. `address` is its own, `outside` the IPv4 address that others see, if there is one."""

    namespace: str
    address: str
    outside: str | None = None
    address6: str = ""

    def command(self, *argv: str) -> list[str]:
        """The command line that runs `argv` here."""
        return ["ip", "netns", "exec", self.namespace, *argv]

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets that this thread opens in the block are this host's. Not to be held over an `await`."""
        with _inside(self.namespace):
            yield


class Lab:
    """Use as `with Lab() as lab`. Raises `Refused` where the machine has no root, ip or nft, or makes no namespaces."""

    def __init__(self) -> None:
        refusal = why_not()
        if refusal:
            raise Refused(refusal)
        self._made: list[str] = []
        self.prefix = f"{_PREFIX}-{os.getpid()}-{next(_SERIAL)}"
        self._sites = count(1)

    def __enter__(self) -> Self:
        sweep()
        try:
            self._core = self._namespace("core", forward=True)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove every namespace of this lab, with whatever still runs inside."""
        for name in self._made:
            remove(name)
        self._made.clear()

    # --- sites --------------------------------------------------------------------------------------------------------

    def public(self, *, firewall: bool = False) -> Host:
        """A host with an address of its own; a `firewall` lets in only answers."""
        number, wan = self._site()
        name = self._namespace(f"s{number}", forward=False)
        self._link(self._core, name, number)
        if firewall:
            load(name, _FIREWALL)
        return Host(name, wan, wan, _six(number))

    def public6(self, *, firewall: bool = False) -> Host:
        """A host that has IPv6 and nothing else."""
        number, _ = self._site()
        name = self._namespace(f"s{number}", forward=False)
        self._link(self._core, name, number, four=False)
        if firewall:
            load(name, _FIREWALL)
        return Host(name, _six(number), None, _six(number))

    def home(self, kind: Kind, *, hosts: int = 1, hairpin: bool = False) -> list[Host]:
        """Hosts on one LAN behind a NAT."""
        number, wan = self._site()
        router = self._namespace(f"r{number}", forward=True)
        self._link(self._core, router, number, six=False)
        return self._lan(router, number, kind, wan, wan, hosts, hairpin=hairpin)

    def carrier(self, kind: Kind, home: Kind = "port_restricted") -> Host:
        """A host behind a home's NAT behind a carrier's: RFC 6598."""
        return self.neighbours(kind, home, homes=1, hairpin=False)[0]

    def neighbours(self, kind: Kind, home: Kind = "port_restricted", *, homes: int = 2, hairpin: bool) -> list[Host]:
        """A host in each of several homes behind one carrier's NAT; `hairpin` is the carrier's."""
        number, wan = self._site()
        carrier = self._namespace(f"c{number}", forward=True)
        self._link(self._core, carrier, number, six=False)
        load(carrier, _rules(kind, wan, "100.64.0.0/10", hairpin=hairpin))
        _ip(carrier, "link add lan type bridge", "addr add 100.64.0.1/10 dev lan", "link set lan up")
        made: list[Host] = []
        for each in range(2, 2 + homes):
            site = number if each == 2 else self._site()[0]
            router, ours = self._namespace(f"r{site}", forward=True), f"100.64.0.{each}"
            self._batch(f"link add l{each} netns {carrier} type veth peer name wan netns {router}")
            _ip(carrier, f"link set l{each} master lan up")
            _ip(router, f"addr add {ours}/10 dev wan", "link set wan up", "route add default via 100.64.0.1")
            made += self._lan(router, site, home, ours, wan, 1, hairpin=False)
        return made

    def router_of(self, host: Host) -> str:
        """The namespace of a home's router."""
        return re.sub(r"-h(\d+)-\d+$", r"-r\1", host.namespace)

    # --- making -------------------------------------------------------------------------------------------------------

    def _site(self) -> tuple[int, str]:
        number = next(self._sites)
        return number, f"11.{number}.0.2"

    def _lan(
        self, router: str, number: int, kind: Kind, wan: str, outside: str, hosts: int, *, hairpin: bool
    ) -> list[Host]:
        load(router, _rules(kind, wan, "192.168.0.0/16", hairpin=hairpin))
        _ip(router, "link add lan type bridge", f"addr add 192.168.{number}.1/24 dev lan", "link set lan up")
        made: list[Host] = []
        for each in range(2, 2 + hosts):
            name = self._namespace(f"h{number}-{each}", forward=False)
            self._batch(f"link add l{each} netns {router} type veth peer name wan netns {name}")
            _ip(router, f"link set l{each} master lan up")
            own = f"192.168.{number}.{each}"
            _ip(name, f"addr add {own}/24 dev wan", "link set wan up", f"route add default via 192.168.{number}.1")
            made.append(Host(name, own, outside))
        return made

    def _link(self, core: str, name: str, number: int, *, four: bool = True, six: bool = True) -> None:
        self._batch(f"link add s{number} netns {core} type veth peer name wan netns {name}")
        ours, theirs = [f"link set s{number} up"], ["link set wan up"]
        if four:
            ours.append(f"addr add 11.{number}.0.1/16 dev s{number}")
            theirs += [f"addr add 11.{number}.0.2/16 dev wan", f"route add default via 11.{number}.0.1"]
        if six:
            ours.append(f"addr add 2a10:{number:x}::1/64 dev s{number} nodad")
            theirs += [f"addr add {_six(number)}/64 dev wan nodad", f"route add default via 2a10:{number:x}::1"]
        _ip(core, *ours)
        _ip(name, *theirs)

    def _namespace(self, label: str, *, forward: bool) -> str:
        if len(self._made) >= NAMESPACES_MAX:
            raise Refused(f"a lab has at most {NAMESPACES_MAX} namespaces")
        name = f"{self.prefix}-{label}"
        _run("ip", "netns", "add", name)
        self._made.append(name)
        _settle(name, forward=forward)
        _ip(name, "link set lo up")
        return name

    def _batch(self, *lines: str) -> None:
        _run("ip", "-batch", "-", text="\n".join(lines))


# --- what a machine must have, and what dead makers left --------------------------------------------------------------


@lru_cache(maxsize=1)
def why_not() -> str:
    """Why there can be no lab on this machine; empty if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool, package in (("ip", "iproute2"), ("nft", "nftables")):
        if shutil.which(tool) is None:
            return f"{tool} is not installed (Debian: {package})"
    name = f"{_PREFIX}-{os.getpid()}-try"
    try:
        _run("ip", "netns", "add", name)
        load(name, _rules("restricted", "11.0.0.2", "192.168.0.0/16", hairpin=True))
    except (OSError, subprocess.SubprocessError) as error:
        return f"namespaces or NAT cannot be made here: {getattr(error, 'stderr', '') or error}".strip()
    finally:
        remove(name)
    return ""


def sweep() -> None:
    """Remove the namespaces of makers that are dead."""
    if not _RUN.is_dir():
        return
    for path in _RUN.iterdir():
        found = re.fullmatch(rf"{_PREFIX}-(\d+)-[\w-]+", path.name)
        if found and not Path(f"/proc/{found[1]}").exists():
            remove(path.name)


def remove(name: str) -> None:
    """End what runs in a namespace, and take the namespace away."""
    listed = subprocess.run(["ip", "netns", "pids", name], check=False, capture_output=True, text=True)
    for pid in listed.stdout.split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), 9)
    subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


# --- helpers ----------------------------------------------------------------------------------------------------------


def _six(number: int) -> str:
    return f"2a10:{number:x}::2"


def _ip(namespace: str, *lines: str) -> None:
    _run("ip", "-netns", namespace, "-batch", "-", text="\n".join(lines))


def load(namespace: str, rules: str) -> None:
    _run("ip", "netns", "exec", namespace, "nft", "-f", "-", text=rules)


def _run(*argv: str, text: str = "") -> None:
    subprocess.run(argv, check=True, input=text, text=True, capture_output=True, timeout=_COMMAND_SECONDS)


def _settle(namespace: str, *, forward: bool) -> None:
    """Addresses are good at once (no duplicate address detection), and a router forwards."""
    with _inside(namespace):
        Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")
        if forward:
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")


@contextmanager
def _inside(namespace: str) -> Iterator[None]:
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(_RUN / namespace, os.O_RDONLY)
    try:
        _setns(there)
        yield
    finally:
        _setns(before)
        os.close(there)
        os.close(before)


def _setns(handle: int) -> None:
    """`os.setns` of Python 3.12, for 3.11."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(handle, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


_FIREWALL = """
table inet wall {
  chain input {
    type filter hook input priority 0; policy drop;
    iif lo accept
    meta l4proto ipv6-icmp accept
    ct state established,related accept
  }
}
"""


def _rules(kind: Kind, wan: str, lan: str, *, hairpin: bool) -> str:
    """nftables rules of one NAT whose outer interface is `wan`. Ports are kept: one inside is the same outside."""
    invited = {
        "full_cone": "{p} dport map @{p}_inside",
        "restricted": "{p} dport map @{p}_inside",
    }.get(kind, "")
    who = "ip saddr . {p} dport @{p}_invited " if kind == "restricted" else ""
    inward = [
        f"iifname wan ip daddr {wan} {who.format(p=p)}dnat to {invited.format(p=p)}" for p in ("tcp", "udp") if invited
    ]
    if hairpin:
        inward += [f"iifname lan ip daddr {wan} dnat to {p} dport map @{p}_inside" for p in ("tcp", "udp")]
    note = [
        line
        for p in ("tcp", "udp")
        for line in (
            f"oifname wan update @{p}_inside {{ {p} sport timeout {MAPPING_SECONDS}s : ip saddr }}",
            f"oifname wan update @{p}_invited {{ ip daddr . {p} sport timeout {MAPPING_SECONDS}s }}",
        )
    ]
    out = "masquerade random,fully-random" if kind == "symmetric" else "masquerade"
    tables = "\n".join(
        f"map {p}_inside {{ type inet_service : ipv4_addr; flags dynamic,timeout; size 4096; }}\n"
        f"set {p}_invited {{ type ipv4_addr . inet_service; flags dynamic,timeout; size 4096; }}"
        for p in ("tcp", "udp")
    )
    joined = "\n    ".join
    return f"""
table ip home {{
  {tables}
  chain inward {{
    type nat hook prerouting priority dstnat;
    {joined(inward)}
  }}
  chain outward {{
    type nat hook postrouting priority srcnat;
    oifname wan {out}
    {f"oifname lan ip saddr {lan} ct status dnat snat to {wan}" if hairpin else ""}
  }}
  chain through {{
    type filter hook forward priority 0; policy drop;
    {joined(note)}
    iifname lan accept
    ct state established,related accept
    ct status dnat accept
  }}
  chain itself {{
    type filter hook input priority 0; policy drop;
    iifname != wan accept
    ct state established,related accept
  }}
}}
"""
