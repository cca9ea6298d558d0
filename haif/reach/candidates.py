"""Which of a peer's addresses are worth dialling, and in which order: RFC 8305 (Happy Eyeballs), section 4.

An address counts only where it can mean the peer. A loopback address means this very machine, a private one whoever has
it where we stand: it is dialled only if we would reach it from the same /24, or if the whole mesh is one `site`. So a
record full of private addresses cannot make us knock at every door behind us.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, ip_address
from itertools import zip_longest

from haif.base import limits
from haif.base.machine import Address
from haif.dht.diversity import Scope, networks


def order(addresses: Sequence[Address], own: Sequence[str], *, site: bool = False) -> tuple[Address, ...]:
    """The addresses to dial, at most `limits.CANDIDATES_MAX`: IPv6 first, then in turn, as they were given.

    `own` says from which address of ours each would be reached, empty if from none. What is no literal address that one
    peer can have is left out.
    """
    usable = [
        address
        for address, ours in dict(zip(addresses, own, strict=True)).items()
        if ours and is_somebodys(address) and (site or _same_scope(address, ours))
    ]
    six = [address for address in usable if ":" in address[0]]
    four = [address for address in usable if ":" not in address[0]]
    mixed = [address for pair in zip_longest(six, four) for address in pair if address is not None]
    return tuple(mixed[: limits.CANDIDATES_MAX])


def may_meet(address: Address, relay: Address) -> bool:
    """Whether a relay at `relay` can have seen a peer at `address`: not nearer to us than the relay itself is."""
    return is_somebodys(address) and networks(address).scope <= networks(relay).scope


def _same_scope(address: Address, ours: str) -> bool:
    there, here = networks(address), networks((ours, 1))
    if there.scope is Scope.PRIVATE:
        return there.narrow == here.narrow
    return there.scope is Scope.PUBLIC or here.scope is Scope.LOOPBACK


def is_somebodys(address: Address) -> bool:
    """Whether this is a literal IP address and a port that one peer can have."""
    host, port = address
    try:
        ip = ip_address(host)
    except ValueError:
        return False
    reserved = isinstance(ip, IPv4Address) and ip.is_reserved  # of IPv6, ::1 is too
    return 0 < port < 65536 and not (ip.is_unspecified or ip.is_multicast or reserved)
