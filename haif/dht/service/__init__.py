"""The door of the directory: publish, withdraw, look up, over a real UDP socket."""

from haif.dht.service.dht import Dht, DhtStatistics

__all__ = ["Dht", "DhtStatistics"]
