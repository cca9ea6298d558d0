"""What a machine keeps of identities: its keyring, what a process remembers for the next, and its networks."""

from haif.identity.service.keyring import Keyring, Memory
from haif.identity.service.networks import Networks
from haif.identity.service.owner import Owner

__all__ = ["Keyring", "Memory", "Networks", "Owner"]
