"""How the beginnings of a request are named, so that it can be placed where they were computed before.

    h 0 = hash(scope),   h n = hash(h n-1, the n-th message),   tag n = the first 8 bytes of h n

The gateway sends a request's tags when it asks for a place, a worker tells in its heartbeats the tags of what it
computed lately, and the orchestrator compares. Who knows the scope (the gateway, and a worker that was given a request
under it) can compute them. To the orchestrator they are random bytes: it can see that two requests of one tenant, whose
id it knows anyway, begin alike, and nothing of what they say; across tenants and gateways even that is hidden, for each
has a scope of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from haif.base import limits
from haif.base.hashing import digest
from haif.protocol.inference import Request

_TAG_BYTES: Final = 8
_FIRST: Final = 2  # of many beginnings, so many of the shortest are named, and for the rest the longest


def prefix_tags(request: Request) -> list[bytes]:
    """Tags of the request's beginnings, the longest last. None without a scope, and none for what is soon computed.

    A chat begins with each of its messages, a text at 512 characters and every doubling.
    """
    if not request.scope or request.suffix is not None:
        return []
    tags: list[bytes] = []
    size, chain = 0, digest("haif v1 prefix", request.scope)
    for part in _parts(request):
        size += len(part)
        chain = digest("haif v1 prefix", chain, part)
        if size >= limits.PREFIX_TAG_BYTES_MIN:
            tags.append(chain[:_TAG_BYTES])
    if len(tags) <= limits.PREFIX_TAGS_MAX:
        return tags
    return tags[:_FIRST] + tags[_FIRST - limits.PREFIX_TAGS_MAX :]


def are_tags(tags: list[bytes], most: int) -> bool:
    """Whether these can be tags, and are not too many."""
    return len(tags) <= most and all(len(tag) == _TAG_BYTES for tag in tags)


def _parts(request: Request) -> Iterator[bytes]:
    if request.chat is not None:
        for turn in request.chat:
            yield f"{turn.role}\0{turn.content}".encode()
        return
    text, start, end = request.text or "", 0, 512
    while start < len(text):
        yield text[start:end].encode()
        start, end = end, 2 * end
