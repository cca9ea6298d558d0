"""Through a relay, wherever it is: a peer announces where *it* reaches its relay, which may be no address for us."""

from __future__ import annotations

from haif.base.errors import ConnectionLost
from haif.base.ids import NetId, PeerId
from haif.dht.service import Dht
from haif.protocol.offers import whereabouts
from haif.protocol.records import presence_topic
from haif.protocol.relay import RelayAt
from haif.reach.candidates import order
from haif.reach.service.reach import Carrier, own_addresses, own_towards
from haif.wire.service import Session


class Relayed:
    """Dials as `carry` does; a relay of a family that this machine has not is dialled where its own presence puts it.

    So a peer of IPv4 alone meets one of IPv6 alone, through a relay of both. `site` as for `Reach`.
    """

    def __init__(self, carry: Carrier, dht: Dht, net: NetId, *, site: bool) -> None:
        self._carry, self._dht, self._net, self._site = carry, dht, net, site

    async def __call__(self, relay: RelayAt, peer: PeerId, certificate: bytes) -> Session:
        """A session with the peer, carried by the relay. Raises as `Wire.connect`, and what the directory raises."""
        return await self._carry(await self._reachable(relay), peer, certificate)

    async def _reachable(self, relay: RelayAt) -> RelayAt:
        if own_addresses([relay.address]):
            return relay
        place, _ = whereabouts(await self._dht.lookup(presence_topic(self._net, relay.peer)), relay.peer)
        for address in order(place.addresses, [own_towards(each) for each in place.addresses], site=self._site):
            return RelayAt(relay.peer, *address)
        raise ConnectionLost(f"relay {relay.peer.short}… announced no address that can be dialled from here")
