"""What a node of the directory did, and what it holds: of one family, and of both together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from haif.base.clock import Instant
from haif.base.errors import Reason
from haif.dht.service.side import Side


@dataclass(frozen=True, slots=True)
class DhtStatistics:
    """A snapshot. Datagrams and bytes count since the start; a contact counts in each directory it is known in."""

    contacts: int
    records: int
    published: int
    operations: int
    datagrams_in: int
    datagrams_out: int
    bytes_in: int
    bytes_out: int
    queries_answered: int
    replies_accepted: int
    queries_resent: int
    queries_failed: int
    eclipses_suspected: int
    nodes_estimated: float
    store_bytes: int
    tickets_given: int
    tickets_redeemed: int
    tickets_void: int
    tickets_held: int
    puts_waited: int
    carried: int
    carried_for_us: int
    watched: int
    watchers: int
    notices_heard: int
    records_missed: int
    unsent: int
    dropped: Mapping[Reason, int]


_OF_BOTH = ("published", "nodes_estimated", "watched")  # the same in both, or not to be added


def gathered(sides: Sequence[Side], published: int, now: Instant) -> DhtStatistics:
    """What is held now, and what was counted since the start."""
    each = [_of(side, published, now) for side in sides]
    whole: dict[str, Any] = {"dropped": sum((Counter(one.dropped) for one in each), Counter[Reason]())}
    for field in fields(DhtStatistics):
        if field.name not in whole:
            values = [getattr(one, field.name) for one in each]
            whole[field.name] = max(values) if field.name in _OF_BOTH else sum(values)
    return DhtStatistics(**whole)


def _of(side: Side, published: int, now: Instant) -> DhtStatistics:
    node, counters = side.node, side.node.counters
    return DhtStatistics(
        contacts=len(node.table),
        records=len(node.store),
        published=published,
        operations=node.busy,
        datagrams_in=counters.datagrams_in,
        datagrams_out=counters.datagrams_out,
        bytes_in=counters.bytes_in,
        bytes_out=counters.bytes_out,
        queries_answered=counters.queries_answered,
        replies_accepted=counters.replies_accepted,
        queries_resent=counters.queries_resent,
        queries_failed=counters.queries_failed,
        eclipses_suspected=counters.eclipses_suspected,
        nodes_estimated=node.nodes_estimated(now),
        store_bytes=node.store.bytes,
        tickets_given=node.answerer.tickets.given,
        tickets_redeemed=node.answerer.tickets.redeemed,
        tickets_void=node.answerer.tickets.void,
        tickets_held=node.waiting,
        puts_waited=counters.puts_waited,
        carried=counters.carried,
        carried_for_us=counters.carried_for_us,
        watched=len(node.attention),
        watchers=len(node.answerer.watchers),
        notices_heard=node.attention.notices,
        records_missed=node.attention.missed,
        unsent=side.endpoint.unsent,
        dropped=dict(counters.dropped),
    )
