"""Which receipts a validator must audit: drawn with a secret that only it has, and that it shows when it is too late.

    epoch     ten minutes of the orchestrator's clock; a receipt belongs to the one in which its job's end was recorded
    draw      (proof, output) = VRF(validator's key, orchestrator and epoch)                  kept secret in the epoch
    drawn     the first 8 bytes of H(output, receipt), as a share of 2^64, are below the chance
    reveal    proof, when the epoch is long over: then anyone can say which receipts had to be audited

A worker signs its receipt before anybody knows whether it is drawn, and cannot find out: the output takes the
validator's secret. The validator cannot choose what it draws: its key has one output for an epoch (RFC 9381), and what
it did not audit can be counted afterwards.
"""

from __future__ import annotations

import math

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.hashing import digest
from haif.base.ids import Digest, PeerId
from haif.identity import vrf
from haif.identity.keys import Identity


def epoch_of(at: int) -> int:
    """The epoch of a moment in ms since 1970."""
    return at // limits.AUDIT_EPOCH_MS


def may_reveal(epoch: int, now: WallTime) -> bool:
    """Whether the draw of an epoch is of no use to anybody any more: a whole one has passed since."""
    return epoch_of(now) > epoch + 1


def draw(validator: Identity, orchestrator: PeerId, epoch: int) -> tuple[bytes, bytes]:
    """The proof (80 bytes) of a validator's draw, and the secret output. Takes about a millisecond."""
    return vrf.prove(validator, _input(orchestrator, epoch))


def check_draw(validator: PeerId, orchestrator: PeerId, epoch: int, proof: bytes) -> bytes:
    """The output that a proof shows. Raises `BadProof`."""
    return vrf.verify(validator, _input(orchestrator, epoch), proof)


def is_drawn(output: bytes, receipt: Digest, per_mille: int) -> bool:
    """Whether a receipt is drawn, where each is with a chance of `per_mille` in 1000."""
    lot = int.from_bytes(digest("haif v1 audit lot", output, receipt)[:8], "big")
    return lot * 1000 < per_mille << 64


def each(per_mille: int, validators: int) -> int:
    """The chance, in 1000, for each of so many validators, that one of them at least draws with `per_mille`.

    1 - (1 - p)^(1/n), rounded up: to draw independently at p each would cost n times as much.
    """
    missed = math.pow(1 - per_mille / 1000, 1 / max(1, validators))
    return math.ceil(1000 * (1 - missed) - 1e-9)


def _input(orchestrator: PeerId, epoch: int) -> bytes:
    return b"haif v1 audits\0" + orchestrator + epoch.to_bytes(8, "big")
