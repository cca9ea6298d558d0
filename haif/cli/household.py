"""The peers of one machine in a closed network that is ruled from it: `haif up` admits them itself."""

from __future__ import annotations

from collections.abc import Iterable

from haif import config
from haif.base.errors import Misuse
from haif.base.roles import Role

OBSERVER = "observer"  # the key under which this machine looks at a closed network
HOUSE_DAYS = 365  # for how long the peers of this machine are admitted


def admit_household(settings: config.Common, members: Iterable[tuple[str, Role]], *, closed: bool) -> str:
    """The name of the network that `haif up` is to use, made if it is to be closed and is not there yet.

    If it is closed and ruled from here, the roles of this machine and its observer are admitted to it, and anew when
    half of their time is over. Raises `Misuse` for a network that is open and should be closed.
    """
    from haif.identity.admission import DAY_MS
    from haif.identity.networks import is_file
    from haif.identity.service import Keyring, Networks, Owner
    from haif.runtime.clock import SystemClock, entropy

    now, wanted = SystemClock().wall(), settings.network
    ring, networks = Keyring(settings.folder / "keys"), Networks(settings.folder / "networks")
    owner = Owner(ring, networks)
    if closed and not is_file(wanted) and wanted not in networks.names():
        owner.found(wanted, now, entropy, closed=True)
    network = networks.find(wanted, now).network
    if closed and not network.closed:
        raise Misuse(f"{network.name} is an open network; choose another name with --network for a closed one")
    if network.closed and owner.rules(network):
        held = {each.payload.peer: each.payload for each in networks.admissions(network, now)}
        for name, role in [*members, (OBSERVER, Role.OBSERVER)]:
            peer = ring.load_or_create(name, entropy).peer
            known = held.get(peer)
            if known is None or role not in known.roles or known.not_after < now + HOUSE_DAYS * DAY_MS // 2:
                owner.admit(network, peer, [role], now, days=HOUSE_DAYS, owner="this machine")
    return network.name
