"""Sockets that speak to everybody in the local network, and hear it: of IPv4 or IPv6, as the address of ours is.

Of IPv6 each interface has its own group (`GROUP_6` reaches one link), so there is a pair of sockets for each of them.
What is said comes from the address we have, and only those on whose own link that address is believe it (`beacon`).
"""

from __future__ import annotations

import socket
import sys
from contextlib import ExitStack
from typing import Final

from haif.base import limits

GROUP: Final = "239.255.72.65"  # administratively scoped to the site (RFC 2365); "H" and "A"
GROUP_6: Final = "ff12::4841:4946"  # one link, transient: assigned to nobody (RFC 4291, section 2.7); "HAIF"
PORT: Final = 47265

Ends = tuple[list[socket.socket], list[socket.socket]]
"""What speaks, each connected to the group, and what hears."""


def join(host: str) -> Ends:
    """The sockets for the local networks in which we have this address; the caller's to close.

    Raises `OSError` where the system offers none.
    """
    with ExitStack() as opened:
        ends = _ends6(host, opened) if ":" in host else ([_speaker(host, opened)], [_listener(host, opened)])
        opened.pop_all()
        return ends


def _speaker(host: str, opened: ExitStack) -> socket.socket:
    udp = _udp(socket.AF_INET, opened)
    udp.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(host))
    udp.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
    udp.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)  # other nodes of this machine hear it
    udp.bind((host, 0))
    udp.connect((GROUP, PORT))
    return udp


def _listener(host: str, opened: ExitStack) -> socket.socket:
    udp = _udp(socket.AF_INET, opened)
    udp.bind((GROUP, PORT))
    udp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + socket.inet_aton(host))
    return udp


def _ends6(host: str, opened: ExitStack) -> Ends:
    """A pair for each interface on which the system lets us; not all lead to a local network."""
    ends: Ends = ([], [])
    refused = OSError("there is no interface")
    for index, _ in socket.if_nameindex()[: limits.LAN_INTERFACES_MAX]:
        with ExitStack() as pair:
            try:
                speaking, hearing = _speaker6(host, index, pair), _listener6(index, pair)
            except OSError as error:
                refused = error
                continue
            opened.push(pair.pop_all())
        ends[0].append(speaking)
        ends[1].append(hearing)
    if not ends[0]:
        raise refused
    return ends


def _speaker6(host: str, index: int, opened: ExitStack) -> socket.socket:
    udp = _udp(socket.AF_INET6, opened)
    udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 1)
    udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)
    udp.bind((host, 0))
    udp.connect((GROUP_6, PORT, 0, index))
    return udp


def _listener6(index: int, opened: ExitStack) -> socket.socket:
    udp = _udp(socket.AF_INET6, opened)
    udp.bind((GROUP_6, PORT, 0, index))  # this link's, and nothing that is sent to an address of ours
    membership = socket.inet_pton(socket.AF_INET6, GROUP_6) + index.to_bytes(4, sys.byteorder)
    udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
    return udp


def _udp(family: socket.AddressFamily, opened: ExitStack) -> socket.socket:
    udp = opened.enter_context(socket.socket(family, socket.SOCK_DGRAM))
    udp.setblocking(False)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return udp
