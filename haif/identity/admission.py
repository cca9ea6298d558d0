r"""Who may take part in a network: certificates of admission, and lists of those who may not any more.

    network     a name and its root keys; a closed network's id = BLAKE3(name, roots), so that knowing the id is knowing
                who decides. An open network's id is of its name alone, and it takes everybody
    root ──────────────► Admission (COSE_Sign1): this peer, in these roles, of this owner, between these times
    root ► Delegation ─► Admission: a delegate admits peers in the roles it was given, and cannot delegate further
    root, or delegate ─► Revocations (COSE_Sign1): what was signed for these peers holds no more; one list an issuer,
                its sequence only rises. A root's list speaks of everybody, a delegate's of those it admitted itself

A revocation is for good: the machine comes back under another key.
What is worth a sentence to whoever is refused is a `Refusal`; only what was forged or garbled is a `PeerFault`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.codec import Message
from haif.base.errors import Expired, Forbidden, HaifError, Malformed, OverQuota, Oversize, Replayed, Unauthenticated
from haif.base.hashing import digest
from haif.base.ids import NetId, PeerId
from haif.base.roles import Role
from haif.identity.keys import Identity
from haif.identity.signing import Domain, Verified, open_sealed, seal

DAY_MS: Final = 24 * 3600 * 1000


class Network(Message, frozen=True):
    """What makes a network: its name, whether it is closed, and the keys that decide who may take part."""

    name: str
    closed: bool
    roots: tuple[PeerId, ...]

    @property
    def net(self) -> NetId:
        """Its id. A closed network's id commits to its roots."""
        if not self.closed:
            return NetId(digest("haif v1 network", self.name.encode()))
        return NetId(digest("haif v1 closed network", self.name.encode(), *self.roots))


def open_network(name: str) -> Network:
    """The open network of that name, which nobody decides about."""
    return Network(name, closed=False, roots=())


def check_network(network: Network) -> Network:
    """The network, if it can be one. Raises `Malformed`."""
    roots = network.roots
    if len(roots) > limits.NETWORK_ROOTS_MAX or list(roots) != sorted(set(roots)):
        raise Malformed(f"a network has at most {limits.NETWORK_ROOTS_MAX} roots, each once and in order")
    if network.closed and not roots:
        raise Malformed("a closed network needs a root, or nobody could be admitted")
    if not 0 < len(network.name) <= limits.NETWORK_NAME_CHARS_MAX or not network.name.isprintable():
        raise Malformed(f"a network's name has 1 to {limits.NETWORK_NAME_CHARS_MAX} printable characters")
    return network


# --- what is signed ---------------------------------------------------------------------------------------------------


class Delegation(Message, frozen=True):
    """The signer, a root, lets `peer` admit others in these roles, between these times (ms since the epoch)."""

    net: NetId
    peer: PeerId
    roles: tuple[Role, ...]
    not_before: int
    not_after: int


class Admission(Message, frozen=True):
    """The signer admits `peer` in these roles, between these times (ms since the epoch).

    `owner` says whose machine it is, for people. `delegation` is the signer's own evidence; empty if it is a root.
    """

    net: NetId
    peer: PeerId
    roles: tuple[Role, ...]
    owner: str
    not_before: int
    not_after: int
    delegation: bytes


class Revoked(Message, frozen=True):
    """Nothing signed for this peer holds any more; so it was decided then (ms since the epoch)."""

    peer: PeerId
    at: int


class Revocations(Message, frozen=True):
    """The signer's list, the whole of it. A list with a higher sequence takes its place.

    `issued` in ms since the epoch; `delegation` is the signer's own evidence; empty if it is a root.
    """

    net: NetId
    sequence: int
    issued: int
    revoked: tuple[Revoked, ...]
    delegation: bytes


@dataclass(frozen=True, slots=True)
class Office:
    """Who signs for a network, and by what right: `delegation` is empty for a root."""

    identity: Identity
    delegation: bytes = b""


def delegate(office: Office, network: Network, peer: PeerId, roles: Iterable[Role], now: WallTime, days: int) -> bytes:
    """Let `peer` admit others in these roles for so many days."""
    statement = Delegation(network.net, peer, _ordered(roles), now, now + days * DAY_MS)
    return seal(office.identity, Domain.DELEGATION, statement)


def admit(
    office: Office, network: Network, peer: PeerId, roles: Iterable[Role], now: WallTime, *, days: int, owner: str = ""
) -> bytes:
    """A certificate that admits `peer` in these roles for so many days."""
    return seal(
        office.identity, Domain.ADMISSION,
        Admission(network.net, peer, _ordered(roles), owner, now, now + days * DAY_MS, office.delegation),
    )  # fmt: skip


def revise(
    office: Office, network: Network, last: Revocations | None, now: WallTime, revoke: Iterable[PeerId]
) -> bytes:
    """The next list: what the last one said, and these peers, from now on. Raises `OverQuota` when it is full.

    Its sequence is higher than any that a copy of the issuer's files from the past could lead to.
    """
    known = {entry.peer: entry.at for entry in last.revoked} if last else {}
    if network.closed:  # what was signed so long ago has expired by itself
        known = {peer: at for peer, at in known.items() if at + limits.ADMISSION_TTL_MS_MAX > now}
    known |= dict.fromkeys(revoke, now)
    if len(known) > limits.REVOCATIONS_MAX:
        raise OverQuota(
            f"a list of revocations holds {limits.REVOCATIONS_MAX}; make the network anew with another root"
        )
    entries = tuple(Revoked(peer, at) for peer, at in sorted(known.items()))
    sequence = max(last.sequence + 1 if last else 0, now)
    statement = Revocations(network.net, sequence, now, entries, office.delegation)
    return seal(office.identity, Domain.REVOCATIONS, statement)


def _ordered(roles: Iterable[Role]) -> tuple[Role, ...]:
    return tuple(sorted(set(roles)))


# --- what was signed, checked -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Admitted:
    """A certificate that holds, but for revocations, and the delegation under it, if a delegate signed it."""

    admission: Verified[Admission]
    delegation: Verified[Delegation] | None


def read_delegation(evidence: bytes, *, network: Network, now: WallTime) -> Verified[Delegation]:
    """A root's delegation that holds now. Raises as `read`."""
    opened = _delegation(evidence)
    _check_frame(opened.payload, network, now, "delegation")
    if opened.signer not in network.roots:
        raise Unauthenticated("the delegation was not signed by a root of this network")
    return opened


def read(evidence: bytes, *, network: Network, now: WallTime) -> Admitted:
    """What a certificate says, once its signature, network, time and issuer hold. Revocations are `Book`'s to know.

    Raises `Malformed`, `Oversize`, `BadSignature`, `Expired`, `Unauthenticated` (another network's, or signed by
    nobody who may) or `Forbidden` (a role beyond the delegate's).
    """
    opened = _admission(bytes(evidence))
    statement = opened.payload
    _check_frame(statement, network, now, "certificate of admission")
    if len(statement.owner) > limits.OWNER_CHARS_MAX or not (statement.owner.isprintable() or not statement.owner):
        raise Malformed("the owner's name in the certificate is not one", statement.peer)
    delegation = _right_of(opened.signer, statement.delegation, network, now)
    if delegation is not None and not set(statement.roles) <= set(delegation.payload.roles):
        raise Forbidden("the certificate of admission names a role that its issuer may not give")
    return Admitted(opened, delegation)


def read_revocations(evidence: bytes, *, network: Network, now: WallTime) -> Verified[Revocations]:
    """A list that its issuer may give out. Raises as `read`."""
    opened = _revocations(bytes(evidence))
    statement = opened.payload
    if statement.net != network.net:
        raise Unauthenticated("the list of revocations is another network's")
    if len(statement.revoked) > limits.REVOCATIONS_MAX:
        raise Oversize(f"a list of revocations holds at most {limits.REVOCATIONS_MAX}", opened.signer)
    if not 0 <= statement.sequence <= limits.SEQUENCE_MAX:
        raise Malformed("a sequence has 63 bits", opened.signer)
    if statement.issued > now + limits.CLOCK_SKEW_MS:
        raise Expired("the list of revocations is from the future; check both clocks", opened.signer)
    _right_of(opened.signer, statement.delegation, network, now)
    return opened


def _right_of(issuer: PeerId, evidence: bytes, network: Network, now: WallTime) -> Verified[Delegation] | None:
    """None for a root, a delegate's delegation that holds, or `Unauthenticated`."""
    if issuer in network.roots and not evidence:
        return None
    if not evidence:
        raise Unauthenticated("its issuer is neither a root of this network nor shows a delegation")
    delegation = read_delegation(evidence, network=network, now=now)
    if delegation.payload.peer != issuer:
        raise Unauthenticated("the delegation is for another peer than the issuer")
    return delegation


def _check_frame(statement: Admission | Delegation, network: Network, now: WallTime, what: str) -> None:
    """Network, roles and time."""
    if statement.net != network.net:
        raise Unauthenticated(f"the {what} is another network's")
    if not statement.roles or statement.roles != _ordered(statement.roles):
        raise Malformed(f"a {what} names its roles once each, in order", statement.peer)
    if not 0 < statement.not_after - statement.not_before <= limits.ADMISSION_TTL_MS_MAX:
        raise Expired(f"the {what} claims to live too long", statement.peer)
    if now >= statement.not_after:
        raise Expired(f"the {what} has expired; ask the network's owner for a new one", statement.peer)
    if now < statement.not_before - limits.CLOCK_SKEW_MS:
        raise Expired(f"the {what} is not valid yet; check both clocks", statement.peer)


@lru_cache(maxsize=limits.CERTIFICATES_REMEMBERED_MAX)
def _admission(evidence: bytes) -> Verified[Admission]:
    """A signature is checked once: the same bytes stay as true as they were."""
    if len(evidence) > limits.ADMISSION_BYTES_MAX:
        raise Oversize(f"a certificate of admission has at most {limits.ADMISSION_BYTES_MAX} bytes")
    return open_sealed(Admission, Domain.ADMISSION, evidence)


@lru_cache(maxsize=limits.NETWORK_LISTS_MAX)
def _delegation(evidence: bytes) -> Verified[Delegation]:
    return open_sealed(Delegation, Domain.DELEGATION, evidence)


@lru_cache(maxsize=limits.NETWORK_LISTS_MAX)
def _revocations(evidence: bytes) -> Verified[Revocations]:
    return open_sealed(Revocations, Domain.REVOCATIONS, evidence)


# --- the book ---------------------------------------------------------------------------------------------------------


class Book:
    """What one process knows of who may take part: the network, its own certificate, and the lists it has heard.

    It only learns: a list is replaced by one of the same issuer with a higher sequence and by nothing else.
    """

    def __init__(self, network: Network, own: bytes = b"") -> None:
        """`own`: the certificate to show, empty for none."""
        self.network = check_network(network)
        self.net = network.net
        self.own = own
        self._lists: dict[PeerId, Verified[Revocations]] = {}
        self._revoked: dict[PeerId, frozenset[PeerId]] = {}  # by issuer

    def certificate(self, now: WallTime) -> bytes:
        """What we show to others: our certificate while it holds, else nothing."""
        if not self.own:
            return b""
        try:
            read(self.own, network=self.network, now=now)
        except HaifError:
            return b""
        return self.own

    def judge(self, peer: PeerId, evidence: bytes, now: WallTime) -> frozenset[Role] | None:
        """The roles in which a peer that shows this takes part; None in an open network, where roles are not asked for.

        Raises what `read` raises, `Unauthenticated` without a certificate or with another peer's, and `Forbidden` for
        one that was revoked.
        """
        if not self.network.roots:
            return None
        if not evidence:
            if self.network.closed:
                raise Unauthenticated(
                    "this network is closed: ask its owner to admit your peer id (haif network admit)"
                )
            if any(peer in self._revoked.get(root, ()) for root in self.network.roots):
                raise Forbidden(_REVOKED)
            return None
        admitted = read(evidence, network=self.network, now=now)
        if admitted.admission.payload.peer != peer:
            raise Unauthenticated("the certificate of admission is another peer's")
        self._check_revoked(admitted)
        return frozenset(admitted.admission.payload.roles) if self.network.closed else None

    def _check_revoked(self, admitted: Admitted) -> None:
        admission, delegation = admitted.admission, admitted.delegation
        issuers = {admission.signer, *self.network.roots}
        statements: list[Admission | Delegation] = [admission.payload]
        if delegation is not None:
            statements.append(delegation.payload)
        for statement in statements:
            for issuer in issuers:
                if statement.peer in self._revoked.get(issuer, ()):
                    raise Forbidden(_REVOKED)

    def learn(self, evidence: bytes, now: WallTime) -> bool:
        """Take a list; False if it is the one we have.

        Raises as `read_revocations`, `Replayed` for an old one, and `OverQuota` when too many issuers gave out lists.
        """
        found = read_revocations(evidence, network=self.network, now=now)
        issuer, held = found.signer, self._lists.get(found.signer)
        if held is not None:
            if held.evidence == found.evidence:
                return False
            if found.payload.sequence <= held.payload.sequence:
                raise Replayed(
                    f"an old list of revocations: number {found.payload.sequence}, and we have {held.payload.sequence}"
                )
        elif len(self._lists) >= limits.NETWORK_LISTS_MAX and issuer not in self.network.roots:
            raise OverQuota(f"more than {limits.NETWORK_LISTS_MAX} issuers have given out lists of revocations")
        self._lists[issuer] = found
        self._revoked[issuer] = frozenset(entry.peer for entry in found.payload.revoked)
        return True

    def lists(self) -> tuple[Verified[Revocations], ...]:
        """The lists in force."""
        return tuple(self._lists.values())

    def newer(self, than: Mapping[PeerId, int]) -> list[bytes]:
        """The lists that somebody lacks who has those numbers of them."""
        return [
            found.evidence for issuer, found in self._lists.items() if found.payload.sequence > than.get(issuer, -1)
        ]

    def stale(self, now: WallTime) -> bool:
        """Whether no root has given out a list for `limits.REVOCATIONS_FRESH_MS`: a newer one may be kept from us."""
        issued = [self._lists[root].payload.issued for root in self.network.roots if root in self._lists]
        return bool(self.network.roots) and max(issued, default=0) < now - limits.REVOCATIONS_FRESH_MS

    def revoked(self) -> frozenset[PeerId]:
        """Every peer that a list in force names."""
        return frozenset(peer for entries in self._revoked.values() for peer in entries)


_REVOKED: Final = "this peer was revoked by the network's owner"
