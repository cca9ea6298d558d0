"""Which of a peer's addresses are worth dialling, and in which order: RFC 8305 (Happy Eyeballs), section 4.

An address counts only where it can mean the peer. A loopback address means this very machine, a private one whoever has
it on our own LAN: they are dialled only where we stand in the same scope ourselves. So a record full of private
addresses cannot make us knock at every door of our own network.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from itertools import zip_longest

from haif.base import limits
from haif.base.machine import Address
from haif.dht.diversity import Scope, networks


def order(addresses: Iterable[Address], own: Sequence[str]) -> tuple[Address, ...]:
    """The addresses to dial, at most `limits.CANDIDATES_MAX`: IPv6 first, then in turn, as they were given.

    `own` are the addresses of this machine. What is no literal address that one peer can have is left out.
    """
    usable = [address for address in dict.fromkeys(addresses) if _dialled(address, own)]
    six = [address for address in usable if ":" in address[0]]
    four = [address for address in usable if ":" not in address[0]]
    mixed = [address for pair in zip_longest(six, four) for address in pair if address is not None]
    return tuple(mixed[: limits.CANDIDATES_MAX])


def may_meet(address: Address, relay: Address) -> bool:
    """Whether a relay at `relay` can have seen a peer at `address`: not nearer to us than the relay itself is."""
    return _is_somebodys(address) and networks(address).scope <= networks(relay).scope


def _dialled(address: Address, own: Sequence[str]) -> bool:
    if not _is_somebodys(address):
        return False
    here, scope = networks(address), networks(address).scope
    if scope is Scope.PUBLIC:
        return True
    ours = [networks((host, 1)) for host in own]
    if scope is Scope.LOOPBACK:
        return any(each.scope is Scope.LOOPBACK for each in ours)
    return any(each.narrow == here.narrow for each in ours)


def _is_somebodys(address: Address) -> bool:
    host, port = address
    try:
        ip = ip_address(host)
    except ValueError:
        return False
    return 0 < port < 65536 and not (ip.is_unspecified or ip.is_multicast or ip.is_reserved)
