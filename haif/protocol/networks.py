"""How lists of revocations spread: two peers tell each other which they have, and hand over what the other lacks.

Method `network.revocations`, both ways `Lists`. Who gives a list out is seen from its signature, so it does not matter
from whom it comes.
"""

from __future__ import annotations

from typing import Final

from haif.base.codec import Message
from haif.base.ids import PeerId

METHOD: Final = "network.revocations"


class Edition(Message, frozen=True):
    """The number of the list that we have of this issuer."""

    issuer: PeerId
    sequence: int


class Lists(Message, frozen=True):
    """Which lists of revocations the sender has, and those (`identity.admission.Revocations`) the receiver may lack."""

    have: list[Edition]
    lists: list[bytes]
