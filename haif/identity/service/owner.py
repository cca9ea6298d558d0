"""The owner of a network, or a delegate, at work: makes the network, admits, revokes, and packs what members are given.

The root key is an identity of the keyring named `network-NAME`. It is used here and nowhere else, and never leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from haif.base import codec, limits
from haif.base.clock import WallTime
from haif.base.errors import HaifError, Misuse
from haif.base.ids import NetKey, PeerId
from haif.base.roles import Role
from haif.identity import admission
from haif.identity.admission import Network, Office
from haif.identity.networks import Charter, Invitation, keepable
from haif.identity.service.keyring import Keyring
from haif.identity.service.networks import Networks


class Owner:
    """Signs for the networks of this machine. What it signs is kept in their folders.

    `key` names the identity that signs, for a delegate; without one it is the network's root.
    """

    def __init__(self, ring: Keyring, networks: Networks, key: str | None = None) -> None:
        self._ring, self._networks, self._key = ring, networks, key

    def found(
        self,
        name: str,
        now: WallTime,
        entropy: Callable[[int], bytes],
        *,
        closed: bool,
        others: Collection[PeerId] = (),
    ) -> Charter:
        """Make a network with a new root key and an empty list. `others` rule it too, from wherever their keys are.

        Raises `Misuse` if there is one of this name, or it cannot be one.
        """
        if not keepable(name):
            raise Misuse(f"{name[:80]!r} cannot name a network: use 1 to 64 of a-z A-Z 0-9 . _ -")
        if len(set(others)) >= limits.NETWORK_ROOTS_MAX:
            raise Misuse(f"a network has at most {limits.NETWORK_ROOTS_MAX} roots, the one made here among them")
        key = NetKey(entropy(NetKey.size)) if closed else None
        if name in self._networks.names():
            raise Misuse(f"there is a network {name} already in {self._networks.folder}; choose another name")
        root = self._ring.create(_root_key(name), entropy)
        charter = Charter(Network(name, closed, tuple(sorted({root.peer, *others}))), key)
        self._networks.found(charter)
        self.revoke(charter.network, [], now)
        return charter

    def rules(self, network: Network) -> bool:
        """Whether the root key of a network is on this machine."""
        path = self.root_file(network)
        return path.exists() and self._ring.load(path.stem).peer in network.roots

    def root_file(self, network: Network) -> Path:
        """The file that holds, or would hold, the root key of a network."""
        return self._ring.path(_root_key(network.name))

    def admit(
        self, network: Network, peer: PeerId, roles: Iterable[Role], now: WallTime, *, days: int, owner: str
    ) -> bytes:
        """A certificate for `peer`, kept here. The list of revocations is signed anew: its owner is alive.

        Raises `Misuse` for a peer on that list, and for what nobody would take.
        """
        office = self._office(network, now)
        kept = self._networks.list_of(network, office.identity.peer, now)
        if kept is not None and peer in {entry.peer for entry in kept.revoked}:
            raise Misuse(
                f"{peer.short}… was revoked, and a revocation is for good: give the machine another key "
                f"(haif keys new NAME) and admit that one"
            )
        evidence = admission.admit(office, network, peer, roles, now, days=days, owner=owner)
        try:
            self._networks.keep_admission(network, evidence, now)
        except HaifError as error:
            raise Misuse(f"nobody would take such a certificate: {error.message}") from None
        self.revoke(network, [], now)
        return evidence

    def delegate(self, network: Network, peer: PeerId, roles: Iterable[Role], now: WallTime, *, days: int) -> bytes:
        """A delegation for `peer`, kept here. Raises `Misuse` unless a root signs."""
        evidence = admission.delegate(self._office(network, now), network, peer, roles, now, days)
        try:
            self._networks.keep_delegation(network, evidence, now)
        except HaifError as error:
            raise Misuse(f"nobody would take such a delegation: {error.message}") from None
        return evidence

    def revoke(self, network: Network, peers: Iterable[PeerId], now: WallTime) -> bytes:
        """The next list, with these peers on it, kept here."""
        office = self._office(network, now)
        kept = self._networks.list_of(network, office.identity.peer, now)
        evidence = admission.revise(office, network, kept, now, peers)
        self._networks.keep_list(network, evidence, now)
        return evidence

    def invitation(self, charter: Charter, peer: PeerId) -> bytes:
        """What `peer` is given to join: it holds the key of a closed network's datagrams."""
        network = charter.network
        admissions, delegations = self._networks.admission(network, peer), self._networks.delegation(network, peer)
        return codec.encode_evidence(
            Invitation(
                charter,
                (admissions,) if admissions else (),
                (delegations,) if delegations else (),
                tuple(self._networks.lists(network)),
            )
        )

    def _office(self, network: Network, now: WallTime) -> Office:
        """Who signs, and by what right. Raises `Misuse` if that is nobody here."""
        if self._key is None:
            if not self.rules(network):
                raise Misuse(
                    f"the root key of {network.name} is not on this machine. Do this where the network was made, "
                    f"or as one of its delegates: --as KEY"
                )
            return Office(self._ring.load(_root_key(network.name)))
        identity = self._ring.load(self._key)
        if identity.peer in network.roots:
            return Office(identity)
        delegation = self._networks.delegation(network, identity.peer)
        try:
            admission.read_delegation(delegation, network=network, now=now)
        except HaifError as error:
            raise Misuse(f"{self._key} may not sign for {network.name}: {error.message}") from None
        return Office(identity, delegation)


def _root_key(name: str) -> str:
    return f"network-{name}"
