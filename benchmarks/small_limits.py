"""Imported before anything else, this makes HAIF's memories smaller, so that minutes show whether their bounds hold."""

from __future__ import annotations

from haif.base import limits

SHRUNK = {
    "CERTIFICATES_REMEMBERED_MAX": 64, "HANDSHAKE_TIMES_REMEMBERED": 256, "NONCE_WINDOW_SENDERS": 256,
    "GATE_SOURCES_MAX": 256, "PUZZLES_SPENT_MAX": 1024, "DHT_IDS_CACHED": 64, "DHT_ROUND_TRIPS_MAX": 32,
    "DHT_SUBNETS_MAX": 16, "DHT_PENALTIES_MAX": 32, "RECORDS_STORED_MAX": 512, "DHT_EVENTS_MAX": 256,
    "HANDSHAKES_HALF_OPEN_MAX": 16, "SESSIONS_MAX": 32, "SESSIONS_SUBNET_SHARE": 16,
}  # fmt: skip

for _name, _value in SHRUNK.items():
    assert getattr(limits, _name) > _value, f"{_name} is no memory to shrink"
    setattr(limits, _name, _value)
