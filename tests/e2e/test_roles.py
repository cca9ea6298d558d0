"""One role at a time, as people start them."""

import signal
import socket
import subprocess
from pathlib import Path

from tests.e2e.conftest import HAIF


def test_a_role_that_is_still_starting_stops_when_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.settimeout(30)
        host, port = silent.getsockname()
        node = subprocess.Popen(
            [*HAIF, "node", "--bootstrap", f"{host}:{port}", "--state", str(tmp_path)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        silent.recvfrom(2048)  # it asks to join, and is told nothing
        node.send_signal(signal.SIGTERM)
        out, err = node.communicate(timeout=2)
    assert (node.returncode, out, err) == (0, b"", b"")
