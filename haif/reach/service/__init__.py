"""The door of reach: dialling peers by every way, meeting them directly, how we are seen, and being found."""

from haif.reach.service.meeting import Meetings
from haif.reach.service.outlook import Outlook, judge, judge_wire
from haif.reach.service.portmap import PortMapper, PortMapping
from haif.reach.service.presence import Announced
from haif.reach.service.reach import Reach, own_addresses
from haif.reach.service.relayed import Relayed

__all__ = [
    "Announced",
    "Meetings",
    "Outlook",
    "PortMapper",
    "PortMapping",
    "Reach",
    "Relayed",
    "judge",
    "judge_wire",
    "own_addresses",
]
