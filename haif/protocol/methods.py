"""Every method, declared once: what it takes and gives, its limits, who may call it, and whether asking again is safe.

`docs/protocol.md` is printed from this; a test keeps the two equal. Roles serve a method on the terms declared here.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec

from haif.base import limits
from haif.base.codec import Message
from haif.base.roles import Role
from haif.base.traffic import Terms, Traffic
from haif.protocol import audits, embeddings, heartbeats, inference, jobs, networks, reach, relay

A = TypeVar("A", bound=Message)
R = TypeVar("R", bound=Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method(Generic[A, R]):
    """One method. `live`: the argument is a live-signed message of this type; None: it travels bare.

    `retriable`: the same request may be made again when its answer was lost, and counts once. `terms.callers` empty:
    any authenticated peer of the network. `served_by` None: every peer.
    """

    name: str
    summary: str
    argument: type[A]
    reply: type[R]
    terms: Terms
    served_by: Role | None
    streaming: bool = False
    live: int | None = None
    retriable: bool


_GATEWAYS: Final = frozenset({Role.GATEWAY})
_CONTROL: Final = Terms(Traffic.CONTROL, limits.EVIDENCE_BYTES_MAX, limits.CONTROL_CALL_SECONDS)
_JOBS: Final = Terms(Traffic.CONTROL, limits.EVIDENCE_BYTES_MAX, limits.CONTROL_CALL_SECONDS, _GATEWAYS)
_ENDS: Final = Terms(Traffic.CONTROL, 3 * limits.EVIDENCE_BYTES_MAX, limits.CONTROL_CALL_SECONDS, _GATEWAYS)
_PULSE: Final = Terms(Traffic.CONTROL, limits.EVIDENCE_BYTES_MAX, limits.CONTROL_CALL_SECONDS, frozenset({Role.WORKER}))
_SHORT: Final = Terms(Traffic.CONTROL, limits.REACH_BYTES_MAX, limits.CONTROL_CALL_SECONDS)
_AUDITS: Final = Terms(
    Traffic.CONTROL, limits.EVIDENCE_BYTES_MAX, limits.CONTROL_CALL_SECONDS, frozenset({Role.VALIDATOR})
)
_RELAYED: Final = Terms(Traffic.CONTROL, limits.RELAY_ARGUMENT_BYTES_MAX, limits.CONTROL_CALL_SECONDS)
_BY_RELAYS: Final = Terms(
    Traffic.CONTROL, limits.RELAY_ARGUMENT_BYTES_MAX, limits.CONTROL_CALL_SECONDS, frozenset({Role.RELAY})
)

SUBMIT: Final = Method(
    name=jobs.SUBMIT_METHOD, summary="place a new job on a worker", argument=jobs.SubmitJob, reply=jobs.Placed,
    terms=_JOBS, served_by=Role.ORCHESTRATOR, live=jobs.SUBMIT, retriable=True,
)  # fmt: skip
RETRY: Final = Method(
    name=jobs.RETRY_METHOD, summary="an attempt failed; place the next one elsewhere", argument=jobs.RetryJob,
    reply=jobs.Placed, terms=_JOBS, served_by=Role.ORCHESTRATOR, live=jobs.RETRY, retriable=True,
)  # fmt: skip
FINALISE: Final = Method(
    name=jobs.FINALISE_METHOD, summary="here is the receipt, and my signature under it", argument=jobs.FinaliseJob,
    reply=jobs.Finalised, terms=_ENDS, served_by=Role.ORCHESTRATOR, retriable=True,
)  # fmt: skip
FAIL: Final = Method(
    name=jobs.FAIL_METHOD, summary="it is over without an answer", argument=jobs.FailJob, reply=jobs.Finalised,
    terms=_JOBS, served_by=Role.ORCHESTRATOR, live=jobs.FAIL, retriable=True,
)  # fmt: skip
SHOW: Final = Method(
    name=jobs.SHOW_METHOD, summary="what became of a job; only to the gateway that sent it", argument=jobs.ShowJob,
    reply=jobs.JobView, terms=_JOBS, served_by=Role.ORCHESTRATOR, retriable=True,
)  # fmt: skip
MODELS: Final = Method(
    name=jobs.MODELS_METHOD, summary="what can be asked for now", argument=jobs.ListModels, reply=jobs.Models,
    terms=_CONTROL, served_by=Role.ORCHESTRATOR, retriable=True,
)  # fmt: skip
HEARTBEAT: Final = Method(
    name=heartbeats.METHOD, summary="the worker lives, and this is its load", argument=heartbeats.Heartbeat,
    reply=heartbeats.Acknowledged, terms=_PULSE, served_by=Role.ORCHESTRATOR, live=heartbeats.HEARTBEAT, retriable=True,
)  # fmt: skip
RUN: Final = Method(
    name=inference.METHOD, summary="redeem a reservation: tokens as they come, then the receipt",
    argument=inference.Run, reply=inference.Answer, terms=Terms(Traffic.TOKENS, callers=_GATEWAYS),
    served_by=Role.WORKER, streaming=True, retriable=False,
)  # fmt: skip
EMBED: Final = Method(
    name=embeddings.METHOD, summary="redeem a reservation: vectors of texts as they come, then the receipt",
    argument=inference.Run, reply=embeddings.EmbedAnswer, terms=Terms(Traffic.TOKENS, callers=_GATEWAYS),
    served_by=Role.WORKER, streaming=True, retriable=False,
)  # fmt: skip
REVOCATIONS: Final = Method(
    name=networks.METHOD, summary="which lists of revocations I have, and those you lack", argument=networks.Lists,
    reply=networks.Lists, terms=Terms(Traffic.CONTROL, limits.LISTS_BYTES_MAX, limits.CONTROL_CALL_SECONDS),
    served_by=None, retriable=True,
)  # fmt: skip
LOOK: Final = Method(
    name=reach.LOOK_METHOD, summary="where do you see me? answered under the signature of who sees",
    argument=reach.Look, reply=reach.Seen, terms=_SHORT, served_by=None, retriable=True,
)  # fmt: skip
MEET: Final = Method(
    name=reach.MEET_METHOD, summary="let us meet directly: the ports we opened, as the relay between us saw them",
    argument=reach.Meet, reply=reach.Meet, terms=_SHORT, served_by=None, retriable=True,
)  # fmt: skip
SYNC: Final = Method(
    name=reach.SYNC_METHOD, summary="dial the address you were shown, now", argument=reach.Sync, reply=reach.Synced,
    terms=_SHORT, served_by=None, retriable=True,
)  # fmt: skip
AUDITS_ENDED: Final = Method(
    name=audits.ENDED_METHOD, summary="which jobs ended that may be audited, with their evidence",
    argument=audits.ListEnded, reply=audits.Ended, terms=_AUDITS, served_by=Role.ORCHESTRATOR, retriable=True,
)  # fmt: skip
AUDITS_WANTED: Final = Method(
    name=audits.WANTED_METHOD, summary="which of my answers did you draw; only of those I countersigned",
    argument=audits.AskWanted, reply=audits.Wanted, terms=_JOBS, served_by=Role.VALIDATOR, retriable=True,
)  # fmt: skip
AUDITS_GIVE: Final = Method(
    name=audits.GIVE_METHOD, summary="the request and the tokens of an answer that was drawn",
    argument=audits.Payload, reply=audits.Taken,
    terms=Terms(Traffic.BULK, limits.MESSAGE_BYTES_MAX, limits.AUDIT_PAYLOAD_SECONDS, _GATEWAYS),
    served_by=Role.VALIDATOR, retriable=True,
)  # fmt: skip
AUDITS_JUDGE: Final = Method(
    name=audits.JUDGE_METHOD, summary="a sealed verdict about a receipt", argument=audits.Judge, reply=audits.Taken,
    terms=_AUDITS, served_by=Role.ORCHESTRATOR, retriable=True,
)  # fmt: skip
AUDITS_REVEAL: Final = Method(
    name=audits.REVEAL_METHOD, summary="what I had to draw in an epoch that is over", argument=audits.Reveal,
    reply=audits.Taken, terms=_AUDITS, served_by=Role.ORCHESTRATOR, retriable=True,
)  # fmt: skip
AUDITS_PANELS: Final = Method(
    name=audits.PANELS_METHOD, summary="where do I sit and am waited for, and whom did panels convict",
    argument=audits.ListPanels, reply=audits.Summoned, terms=_AUDITS, served_by=Role.ORCHESTRATOR, retriable=True,
)  # fmt: skip
AUDITS_COMMIT: Final = Method(
    name=audits.COMMIT_METHOD, summary="the digest of what I found, before anybody shows anything",
    argument=audits.Commit, reply=audits.Taken, terms=_AUDITS, served_by=Role.ORCHESTRATOR, retriable=True,
)  # fmt: skip
AUDITS_SHOW: Final = Method(
    name=audits.SHOW_METHOD, summary="what I had committed to", argument=audits.Show, reply=audits.Taken,
    terms=_AUDITS, served_by=Role.ORCHESTRATOR, retriable=True,
)  # fmt: skip
AUDITS_SHARE: Final = Method(
    name=audits.SHARE_METHOD, summary="a worker that a panel of another orchestrator convicted, and the proof",
    argument=audits.Share, reply=audits.Taken,
    terms=Terms(
        Traffic.CONTROL, 2 * limits.EVIDENCE_BYTES_MAX, limits.CONTROL_CALL_SECONDS, frozenset({Role.VALIDATOR})
    ),
    served_by=Role.ORCHESTRATOR, retriable=True,
)  # fmt: skip
RELAY_RESERVE: Final = Method(
    name=relay.RESERVE_METHOD, summary="keep a place for me, where others can ask for me", argument=relay.Reserve,
    reply=relay.Reserved, terms=_RELAYED, served_by=Role.RELAY, retriable=True,
)  # fmt: skip
RELAY_CONNECT: Final = Method(
    name=relay.CONNECT_METHOD, summary="I want to meet this peer, who holds a place with you", argument=relay.Connect,
    reply=relay.Connected, terms=_RELAYED, served_by=Role.RELAY, retriable=False,
)  # fmt: skip
RELAY_INCOMING: Final = Method(
    name=relay.INCOMING_METHOD, summary="somebody wants to meet you through me; only from a relay that holds a place",
    argument=relay.Incoming, reply=relay.Noted, terms=_BY_RELAYS, served_by=None, retriable=False,
)  # fmt: skip
RELAY_LEAVING: Final = Method(
    name=relay.LEAVING_METHOD, summary="I stop soon; move elsewhere", argument=relay.Leaving, reply=relay.Noted,
    terms=_BY_RELAYS, served_by=None, retriable=True,
)  # fmt: skip

ALL: Final[tuple[Method[typing.Any, typing.Any], ...]] = (
    SUBMIT, RETRY, FINALISE, FAIL, SHOW, MODELS, HEARTBEAT, RUN, EMBED, REVOCATIONS, LOOK, MEET, SYNC,
    AUDITS_ENDED, AUDITS_WANTED, AUDITS_GIVE, AUDITS_JUDGE, AUDITS_REVEAL,
    AUDITS_PANELS, AUDITS_COMMIT, AUDITS_SHOW, AUDITS_SHARE,
    RELAY_RESERVE, RELAY_CONNECT, RELAY_INCOMING, RELAY_LEAVING,
)  # fmt: skip


def reference() -> str:
    """The text of docs/protocol.md."""
    lines = [
        "# The protocol",
        "",
        "Printed from `haif/protocol/methods.py`; a test keeps the two equal. Messages travel as msgpack arrays, their",
        "fields in this order, over a session of `haif/wire/`. A method that is not here is refused, and so is an",
        "argument over its limit; a call that takes longer than its time ends with `timeout`. In a closed network a",
        "caller that was admitted in none of the roles named here is refused with `forbidden`; in an open one the keys",
        "in the settings are the rule.",
        "",
        "| method | argument → reply | served by | callers | signed | class | limit | time | again |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_row(method) for method in sorted(ALL, key=lambda method: method.name)),
        "",
        "*signed*: the argument is a live-signed message of this type, bound to the session. *class*: how urgently",
        "what comes back leaves. *limit*: bytes of the argument. *again*: a request whose answer was lost may be",
        "made again.",
        "",
        *(f"- `{method.name}`: {method.summary}" for method in sorted(ALL, key=lambda method: method.name)),
        "",
        "## Messages",
        "",
        "| message | fields | meaning |",
        "|---|---|---|",
        *(_message(kind) for kind in sorted(_messages(), key=lambda kind: kind.__name__)),
    ]
    return "\n".join(lines) + "\n"


def _row(method: Method[Message, Message]) -> str:
    arrow = "→ stream of" if method.streaming else "→"
    terms = method.terms
    cells = (
        f"`{method.name}`",
        f"`{method.argument.__name__}` {arrow} `{method.reply.__name__}`",
        method.served_by or "every peer",
        ", ".join(sorted(terms.callers)) or "any peer",
        "no" if method.live is None else str(method.live),
        terms.traffic.name.lower(),
        f"{terms.argument_bytes_max:,}",
        f"{terms.seconds_max:g} s",
        "yes" if method.retriable else "no",
    )
    return f"| {' | '.join(cells)} |"


def _message(kind: type[Message]) -> str:
    hints = typing.get_type_hints(kind)
    fields = ", ".join(f"`{field.name}`: {_type(hints[field.name])}" for field in msgspec.structs.fields(kind))
    meaning = (kind.__doc__ or "").split("\n\n")[0].replace("\n", " ").strip()
    return f"| `{kind.__name__}` | {fields or 'none'} | {meaning} |"


def _type(hint: object) -> str:
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is list:
        return f"list of {_type(parts[0])}"
    if parts:
        return " or ".join(_type(part) for part in parts)
    if hint is type(None):
        return "nil"
    return getattr(hint, "__name__", str(hint))


def _messages() -> set[type[Message]]:
    """Every message that a method names, and those inside them."""
    found: set[type[Message]] = set()
    todo = [kind for method in ALL for kind in (method.argument, method.reply)]
    while todo:
        kind = todo.pop()
        if kind not in found:
            found.add(kind)
            todo += [inner for hint in typing.get_type_hints(kind).values() for inner in _inside(hint)]
    return found


def _inside(hint: object) -> Iterator[type[Message]]:
    if isinstance(hint, type) and issubclass(hint, Message):
        yield hint
    for part in typing.get_args(hint):
        yield from _inside(part)
