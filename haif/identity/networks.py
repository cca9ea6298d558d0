"""The file a member is given, and the networks a machine knows, as values: what is kept of each, and under which name.

An invitation is all that a joining machine needs: the network, the key of its datagrams, certificates and lists. It is
not signed as a whole: certificates and lists are, and whoever hands it over decides which network it is anyway. Who
has it can listen to the directory of a closed network, so it is kept like a key.
"""

from __future__ import annotations

import re
from typing import Final

from haif.base import codec, limits
from haif.base.codec import Message
from haif.base.errors import Malformed, Misuse, PeerFault
from haif.base.ids import NetKey
from haif.identity.admission import Network, check_network

SUFFIX: Final = ".network"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Charter(Message, frozen=True):
    """A network, and the key that its members' datagrams are sealed with; None in an open one."""

    network: Network
    key: NetKey | None


class Invitation(Message, frozen=True):
    """A charter with certificates of admission, delegations and lists of revocations that belong to it."""

    charter: Charter
    admissions: tuple[bytes, ...]
    delegations: tuple[bytes, ...]
    revocations: tuple[bytes, ...]


def read_charter(data: bytes) -> Charter:
    """A charter that was kept. Raises `Malformed` or `Oversize`."""
    return check_charter(codec.decode_evidence(Charter, data))


def read_invitation(data: bytes) -> Invitation:
    """An invitation whose network can be one. Raises `Misuse`: it is a person who chose the file."""
    try:
        invitation = codec.decode_evidence(Invitation, data)
        check_charter(invitation.charter)
    except PeerFault as error:
        raise Misuse(f"that is no file of a network ({error.message}); ask its owner for one") from None
    return invitation


def check_charter(charter: Charter) -> Charter:
    """The charter, if its network can be one and has a key exactly if it is closed. Raises `Malformed`."""
    network = check_network(charter.network)
    if network.closed != (charter.key is not None):
        raise Malformed("a closed network has a key for its datagrams, and an open one has none")
    if not _NAME.fullmatch(network.name):
        raise Malformed(f"a network is named by 1 to {limits.NETWORK_NAME_CHARS_MAX} of a-z A-Z 0-9 . _ -")
    return charter


def is_file(text: str) -> bool:
    """Whether the setting `network` names a file rather than a network."""
    return "/" in text or text.endswith(SUFFIX)


def keepable(name: str) -> bool:
    """Whether a network of this name could be kept on disk."""
    return _NAME.fullmatch(name) is not None
