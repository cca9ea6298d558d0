"""HAIF: a peer-to-peer inference mesh in which nobody has to trust anybody."""

__version__ = "0.1.0"
