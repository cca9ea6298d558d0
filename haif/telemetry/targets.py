"""Which addresses Prometheus is to ask, in the form its file-based service discovery reads."""

from __future__ import annotations

import json
from collections.abc import Iterable

from haif.base.machine import Address


def scrape_targets(roles: Iterable[tuple[str, Address]]) -> str:
    """The JSON of a `file_sd` file: one target per (role, address of its /metrics), labelled job="haif-<role>"."""
    groups = [
        {"targets": [f"[{host}]:{port}" if ":" in host else f"{host}:{port}"], "labels": {"job": f"haif-{role}"}}
        for role, (host, port) in roles
    ]
    return json.dumps(groups, indent=2) + "\n"
