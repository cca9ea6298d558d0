"""The daemon of most home routers, on a router of the lab: it gives ports by NAT-PMP or by UPnP."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.netlab import load

DAEMON = shutil.which("miniupnpd") or "/usr/sbin/miniupnpd"
CHAINS = """
table inet filter {
  chain forward { type filter hook forward priority 10; policy accept; }
  chain miniupnpd { }
  chain prerouting { type nat hook prerouting priority -110; policy accept; jump prerouting_miniupnpd; }
  chain postrouting { type nat hook postrouting priority 90; policy accept; jump postrouting_miniupnpd; }
  chain prerouting_miniupnpd { }
  chain postrouting_miniupnpd { }
}
"""
SETTINGS = """
ext_ifname=wan
listening_ip=lan
enable_natpmp={natpmp}
enable_upnp={upnp}
secure_mode=yes
uuid=00000000-0000-0000-0000-000000000000
upnp_table_name=filter
upnp_nat_table_name=filter
upnp_forward_chain=miniupnpd
upnp_nat_chain=prerouting_miniupnpd
upnp_nat_postrouting_chain=postrouting_miniupnpd
allow 1024-65535 192.168.0.0/16 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"""


@contextmanager
def daemon(router: str, protocol: str, folder: Path) -> Iterator[None]:
    load(router, CHAINS)
    settings = folder / "miniupnpd.conf"
    settings.write_text(SETTINGS.format(natpmp=yes(protocol == "natpmp"), upnp=yes(protocol == "upnp")))
    with subprocess.Popen(
        ["ip", "netns", "exec", router, DAEMON, "-d", "-f", str(settings), "-P", str(folder / "pid")],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    ) as running:  # fmt: skip
        try:
            assert running.stderr is not None
            said = next(line for line in running.stderr if "istening" in line)
            assert said
            yield
        finally:
            running.kill()


def yes(value: bool) -> str:
    return "yes" if value else "no"
