"""The door of the directory: publish, withdraw, look up, over a real UDP socket."""

from haif.dht.service.dht import Dht
from haif.dht.service.side import Side
from haif.dht.service.statistics import DhtStatistics

__all__ = ["Dht", "DhtStatistics", "Side"]
