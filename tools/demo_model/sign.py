"""Signs the demo model's manifest: `python -m tools.demo_model.sign MODEL.gguf`.

A key is drawn, used once and forgotten: the demo's publisher signs one file. Its public key is printed; it is pinned as
`DEMO_PUBLISHER` in `haif/artifacts/service.py`, so a rebuilt model is signed and pinned in one commit.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from haif.artifacts.manifest import Manifest, publish
from haif.artifacts.service import DEMO_NAME, hash_file
from haif.identity.keys import Identity
from haif.runtime.clock import SystemClock

TEN_YEARS_MS = 10 * 365 * 24 * 3600 * 1000


def main() -> int:
    """Write the manifest beside the model and print who signed it."""
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    file = Path(sys.argv[1])
    model, sha256, size = hash_file(file, lambda *_: None)
    now = SystemClock().wall()
    publisher = Identity(os.urandom(32))
    statement = Manifest(DEMO_NAME, model, sha256, size, "Apache-2.0", now, now + TEN_YEARS_MS)
    file.with_suffix(".manifest").write_bytes(publish(publisher, statement))
    print(f'DEMO_PUBLISHER: Final = PeerId.parse("{publisher.peer}")')
    return 0


if __name__ == "__main__":
    sys.exit(main())
