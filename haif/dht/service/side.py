"""The directory of one family: a node on a socket, how it joins, who is nearby, and how others see it."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Final

from haif.base import limits
from haif.base.clock import Clock
from haif.base.errors import Dropped
from haif.base.ids import NetId
from haif.base.machine import Address
from haif.dht import messages
from haif.dht.contact import Contact
from haif.dht.diversity import Scope, networks
from haif.dht.envelope import Envelope
from haif.dht.node import Node
from haif.dht.operations import Found
from haif.dht.service.endpoint import Endpoint, News, bind
from haif.dht.service.lan import Lan
from haif.dht.service.survey import Survey, dialled_back
from haif.dht.sightings import Sighting
from haif.identity.keys import Identity
from haif.runtime.net import ANYWHERE, ANYWHERE_6, own_address

_GREETING_SECONDS: Final = 0.1  # before bootstrap addresses that refused us are greeted again


class Side:
    """A node at an address of one family. `on_news` hears what is no outcome of an operation."""

    def __init__(
        self,
        udp: socket.socket,
        identity: Identity,
        net: NetId,
        clock: Clock,
        entropy: Callable[[int], bytes],
        *,
        allow_private: bool,
        ephemeral: bool,
        envelope: Envelope | None,
        on_dropped: Callable[[Dropped], None],
        on_news: Callable[[Side, News], None],
    ) -> None:
        self.address: Address = udp.getsockname()[:2]
        self._identity, self._net, self._clock, self._entropy = identity, net, clock, entropy
        self._envelope, self._on_dropped = envelope, on_dropped
        self.node = Node(
            identity, net, entropy=entropy, wall=clock.wall, now=clock.now(),
            exempt=_exempt(self.address, allow_private=allow_private), ephemeral=ephemeral,
        )  # fmt: skip
        self.endpoint = Endpoint(udp, self.node, clock, on_dropped, lambda news: on_news(self, news), envelope)
        self._lan: Lan | None = None

    @property
    def is_alone(self) -> bool:
        """Whether it knows nobody."""
        return not len(self.node.table)

    def takes(self, address: Address) -> bool:
        """Whether this literal address is of its family."""
        return (":" in address[0]) == (":" in self.address[0])

    def close(self) -> None:
        """Close the sockets."""
        if self._lan is not None:
            self._lan.close()
        self.endpoint.close()

    # --- joining ------------------------------------------------------------------------------------------------------

    async def join(self, bootstrap: Sequence[Address], known: Sequence[Contact]) -> bool:
        """Whether somebody answered at a bootstrap address of our family within `limits.DHT_JOIN_SECONDS`.

        Those known from a former life are asked where none does. Who is alone with them, or is the only one that was
        named, has done what there was to do. Whoever knows nobody goes on trying.
        """
        others: list[Address] = []
        try:
            async with asyncio.timeout(limits.DHT_JOIN_SECONDS):
                named = await self._resolved(bootstrap)
                others = [address for address in named if address != self.address]
                if others and await self._joined(others):
                    return True
                if not others:
                    return (bool(known) and await self._joined((), known)) or bool(named or known)
                while True:
                    if await self._joined(others, known):
                        return True
                    await asyncio.sleep(_GREETING_SECONDS)
        except TimeoutError:
            return not others

    async def _joined(self, others: Sequence[Address], known: Sequence[Contact] = ()) -> bool:
        found = await self.endpoint.outcome(Found, self.node.join(others, self._clock.now(), known=known))
        return bool(found.contacts)

    async def _resolved(self, bootstrap: Sequence[Address]) -> list[Address]:
        """Those of our family."""
        found: list[Address] = []
        for address in bootstrap:
            try:
                found.append(await self.endpoint.resolve(address))
            except OSError:
                continue  # of the other family, or known to nobody
        return found

    # --- nearby -------------------------------------------------------------------------------------------------------

    def look_nearby(self) -> bool:
        """Begin to hear who is nearby; False where that cannot be."""
        host = self._own_host()
        if not host:
            return False
        self._lan = Lan(
            self._identity, self._net, self._clock, self._entropy, host=host, listening=self.address[1],
            envelope=self._envelope, found=self._meet, on_dropped=self._on_dropped,
        )  # fmt: skip
        return self._lan.open()

    async def say_nearby(self) -> None:
        """Say that we are there, until cancelled."""
        assert self._lan is not None, "who speaks has ears"
        await self._lan.say_forever(is_silent=lambda: self.node.ephemeral, is_alone=lambda: self.is_alone)

    def _meet(self, contact: Contact) -> None:
        self.node.meet(contact, self._clock.now())
        self.endpoint.pump()

    def _own_host(self) -> str:
        """An address of ours in the local network: of IPv4, "0.0.0.0" will do; of IPv6, it takes one of our own."""
        host = self.address[0]
        return own_address(ANYWHERE_6) if host == "::" else host

    # --- how others see us --------------------------------------------------------------------------------------------

    def appear(self, *, ephemeral: bool) -> None:
        """From now on be a node that others may know and rely on; or one that is only here to ask."""
        self.node.appear(ephemeral=ephemeral)

    def whereabouts(self) -> Address | None:
        """Where others reach this node, as far as we know; None if they are not to."""
        if self.node.ephemeral:
            return None
        if not ip_address(self.address[0]).is_unspecified:
            return self.address
        seen = Counter(sighting.seen for sighting in self.sightings()).most_common(1)
        if seen:
            return seen[0][0]
        host = own_address(ANYWHERE_6 if ":" in self.address[0] else ANYWHERE)
        return (host, self.address[1]) if host else None

    async def survey(self) -> Survey:
        """As `Dht.survey`."""
        nonce = self._entropy(messages.NONCE_BYTES)
        with await bind(self.address[0], 0) as second:
            asked = {address for _, address in self.node.survey(second.getsockname()[1], nonce, self._clock.now())}
            self.endpoint.pump()
            back = await dialled_back(second, asked, nonce, self._envelope)
        return Survey(self.sightings(), len(asked), back)

    def sightings(self) -> tuple[Sighting, ...]:
        """What replies of late said of our address: one for each network they came from."""
        return self.node.sightings.recent(self._clock.now())


def _exempt(address: Address, *, allow_private: bool) -> Scope:
    if allow_private:
        return Scope.PRIVATE
    return Scope.LOOPBACK if networks(address).scope is Scope.LOOPBACK else Scope.NOTHING
