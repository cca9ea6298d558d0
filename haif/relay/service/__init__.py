"""The door of the relay: the relay itself, and what peers do to be met and to meet through one."""

from haif.relay.service.client import Carrier, Places, connect_through
from haif.relay.service.relay import Relay, RelayStatistics

__all__ = ["Carrier", "Places", "Relay", "RelayStatistics", "connect_through"]
