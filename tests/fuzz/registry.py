"""Every message that crosses a wire, by what it is said in: its types, its golden bytes, its way in, a hostile sender.

A new method, frame, datagram, record or piece of evidence appears here by itself, made from the enumerations of the
product; `tests/tidy/test_wire_messages.py` then asks for what is missing. Golden bytes are written anew by
`python -m tests.fuzz.registry > tests/vectors/messages.json`: a change there is a change of the protocol.
"""

from __future__ import annotations

import ast
import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from haif.base import codec
from haif.base.codec import Message
from haif.base.errors import Overloaded
from haif.base.ids import BootId, Digest, NetKey, Nonce
from haif.dht import messages as dht
from haif.dht.beacon import sign_beacon
from haif.dht.envelope import Envelope
from haif.identity.networks import Invitation
from haif.identity.signing import Domain, Header, seal, sign_live
from haif.protocol import methods
from haif.protocol.embeddings import EmbedRequest
from haif.protocol.inference import Request
from haif.protocol.records import Record, RecordKind, sign_record, topic_at
from haif.reach import natpmp
from haif.wire import frames
from haif.wire.frames import Kind
from haif.wire.handshake import Hello, Introduction
from haif.wire.opening import CIRCUIT, preamble, rejection, retry
from haif.wire.puzzle import Puzzle
from tests.fuzz.doors import BODIES, DOMAINS, ENGINE, FRAMES, LIVE, further_path
from tests.fuzz.values import example
from tests.support import wire_pair
from tests.support.wire_pair import CLIENT, NET, SERVER, SERVER_KEY, WALL

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "vectors" / "messages.json"
# read from our own disk: the journal and its snapshots, chained by hashes; answers and requests sealed by the gateway
OUR_OWN = {"haif.orchestrator.events", "haif.orchestrator.snapshots", "haif.gateway.once", "haif.gateway.letters"}

_WIRE = "tests/threats/test_wire.py::"
_HANDSHAKE = "tests/unit/wire/test_handshake.py::"
_CHILD = "tests/unit/engine/test_engine.py::"
_DHT = "tests/threats/test_dht.py::"
_DATAGRAMS = "tests/unit/dht/test_messages.py::"
_CALLER = _WIRE + "test_a_caller_that_breaks_a_rule_is_dropped_with_its_reason"
_CALLEE = _WIRE + "test_a_callee_that_breaks_a_rule_is_dropped_with_its_reason"
_ANY_FRAMES = _WIRE + "test_whatever_frames_come_only_the_session_can_end_and_only_with_a_reason"
_ANY_BYTES = _WIRE + "test_whatever_bytes_come_in_whatever_phase_only_the_session_can_end"
_RELAY = "tests/unit/relay/test_service.py::"
_MEETING = "tests/unit/reach/test_meeting.py::"
_ENVELOPE = "tests/unit/dht/test_envelope.py::"
_ROUTER = "tests/unit/reach/test_natpmp.py::test_what_is_no_answer_to_our_request_is_refused"
_ORCHESTRATOR = "tests/threats/test_orchestrator.py::"
_VALIDATOR = "tests/threats/test_validator.py::"
_PANELS = "tests/unit/orchestrator/test_panels.py::"
_DOCKET = "tests/unit/validator/test_docket.py::"
_SEALED = "tests/fuzz/test_hostile.py::test_no_bit_of_evidence_can_change"
_SIGNED = "tests/fuzz/test_hostile.py::test_no_bit_of_a_live_message_can_change"

# conversation: who lies in it, and what it does not achieve
HOSTILE: dict[str, str] = {
    **dict.fromkeys((f"frame {kind}" for kind in ("REQ", "OPEN", "CANCEL", "DATA", "CREDIT", "GOAWAY")), _CALLER),
    **dict.fromkeys((f"frame {kind}" for kind in ("RES", "ERR", "FIN", "RST")), _CALLEE),
    **dict.fromkeys((f"frame {kind}" for kind in ("PING", "PONG", "REKEY", "REJECT")), _ANY_FRAMES),
    "frame PATH": "tests/unit/wire/test_path.py::test_a_mover_that_breaks_a_rule_is_dropped_with_its_reason",
    "opening path": "tests/unit/wire/test_path.py::test_whoever_copies_a_preamble_and_comes_first_only_costs_one_try",
    "opening circuit": _RELAY + "test_a_stolen_token_leads_to_a_peer_that_does_not_know_the_thief",
    "rpc reach.look": _MEETING + "test_a_sighting_has_these_bytes_and_serves_only_for_what_it_says",
    "rpc reach.meet": _MEETING + "test_an_address_that_the_relay_has_not_signed_for_this_very_peer_is_never_dialled",
    "rpc reach.sync": _MEETING + "test_attempts_are_counted_and_a_meeting_must_be_agreed_on_first",
    "rpc relay.reserve": _RELAY + "test_a_malformed_request_is_refused",
    "rpc relay.connect": _RELAY + "test_only_who_holds_a_place_can_be_met",
    "rpc relay.incoming": _RELAY + "test_only_a_relay_that_holds_a_place_may_call",
    "rpc relay.leaving": _RELAY + "test_only_a_relay_that_holds_a_place_may_call",
    "opening XX": "tests/unit/wire/test_gate.py::test_h_s1_a_bogus_first_message_leaves_no_handshake_behind",
    "opening IK": _HANDSHAKE + "test_h_s3_a_replayed_first_message_gets_no_session",
    "opening ticket": "tests/unit/wire/test_gate.py::test_a_ticket_is_worth_nothing_elsewhere_later_or_altered",
    "opening refusal": _ANY_BYTES,
    "opening puzzle": "tests/unit/wire/test_gate.py::test_nobody_works_for_more_than_the_limit",
    "handshake Introduction": _HANDSHAKE + "test_h_t2_any_byte_of_an_ik_handshake_changed_ends_it",
    "handshake Hello": _WIRE + "test_h_s1_a_peer_cannot_answer_for_another_with_its_own_certificate",
    **dict.fromkeys((f"live {number}" for number in range(1, 5)), _SIGNED),
    "rpc inference.run": "tests/unit/worker/test_ticket.py::test_a_ticket_that_does_not_hold_is_refused",
    "rpc inference.embed": "tests/unit/worker/test_ticket.py::test_a_ticket_for_text_is_none_for_vectors",
    "rpc audits.ended": _VALIDATOR + "test_x_6_a_stranger_is_told_nothing_and_believed_nothing",
    "rpc audits.wanted": _DOCKET + "test_a_gateway_hears_only_of_what_it_countersigned",
    "rpc audits.give": _DOCKET + "test_x_8_a_payload_of_another_answer_is_refused",
    "rpc audits.judge": "tests/unit/orchestrator/test_audits.py::test_x_6_a_verdict_about_another_receipt_is_refused",
    "rpc audits.panels": _VALIDATOR + "test_x_6_a_stranger_is_told_nothing_and_believed_nothing",
    "rpc audits.commit": "tests/unit/proof/test_panel.py::test_who_saw_what_the_others_found_is_bound_to_its_own",
    "rpc audits.show": "tests/unit/proof/test_panel.py::test_a_commitment_that_was_copied_is_of_no_use",
    "rpc audits.share": _PANELS + "test_x_6_a_ruling_that_too_few_of_ours_signed_is_not_believed",
    "rpc audits.reveal": "tests/unit/orchestrator/test_audits.py::test_a_draw_that_is_false_or_too_early_is_refused",
    "rpc jobs.fail": "tests/unit/orchestrator/test_service.py::test_only_its_own_gateways_may_submit_and_see",
    "rpc jobs.finalise": _ORCHESTRATOR + "test_h_r1_a_receipt_with_a_changed_bit_is_refused",
    "rpc jobs.retry": _ORCHESTRATOR + "test_a_worker_cannot_end_a_job_that_was_given_to_another",
    "rpc jobs.show": "tests/unit/orchestrator/test_service.py::test_a_gateway_sees_only_its_own_jobs",
    "rpc jobs.submit": _ORCHESTRATOR + "test_h_s3_a_recorded_submission_places_nothing",
    "rpc models.list": _ORCHESTRATOR + "test_truncated_and_oversize_messages_are_refused",
    "rpc network.revocations": "tests/unit/identity/test_admission.py::test_a_list_that_does_not_hold_is_refused",
    "rpc worker.heartbeat": _ORCHESTRATOR + "test_h_s3_a_recorded_heartbeat_keeps_nobody_alive",
    "record OFFER": _DHT + "test_a_record_that_its_owner_did_not_sign_is_not_stored",
    "record PRESENCE": _DHT + "test_a_reader_believes_only_records_whose_owners_signed_them",
    "record MUTABLE": "tests/unit/protocol/test_records.py::test_nobody_puts_a_mutable_value_where_anothers_is",
    "record IMMUTABLE": "tests/unit/protocol/test_records.py::test_what_does_not_hold_is_refused",
    "query PING": _DHT + "test_ten_thousand_claimed_identities_are_answered_with_at_most_ten_pings",
    "query FIND": _DHT + "test_no_reply_to_an_unproven_address_is_longer_than_three_times_its_query",
    "query GET": _DHT + "test_a_source_that_asks_too_much_gets_an_error_instead_of_signatures_and_others_are_served",
    "query WATCH": "tests/unit/dht/test_notices.py::test_there_is_room_for_so_many_of_a_topic_and_so_few_of_one_subnet",
    "query PUT": _DHT + "test_a_token_is_worth_nothing_from_another_address_requester_or_target",
    "query CARRY": "tests/unit/dht/test_crossing.py::test_what_a_store_would_refuse_is_not_carried",
    "query DIALBACK": "tests/unit/dht/test_node.py::test_a_dial_back_goes_only_to_the_address_that_a_token_proves",
    "datagram DIALBACK": "tests/unit/dht/test_node.py::test_a_dial_back_that_nobody_waits_for_is_refused",
    "datagram REPLY": _DHT + "test_an_unsigned_or_forged_reply_is_refused_and_the_query_stays_open",
    "datagram RETRY": _DHT + "test_a_retry_or_an_error_from_a_stranger_ends_no_query",
    "datagram NOTICE": _DATAGRAMS + "test_a_notice_is_bound_to_network_handle_and_topic_and_is_no_reply",
    "datagram ERROR": _DHT + "test_a_retry_or_an_error_from_a_stranger_ends_no_query",
    "datagram sealed": _ENVELOPE + "test_no_bit_of_it_can_change_and_another_network_cannot_open_it",
    "beacon": "tests/unit/dht/test_beacon.py::test_nobody_makes_a_network_ping_a_stranger_on_the_internet",
    **dict.fromkeys(("router's address", "router's UDP", "router's TCP"), _ROUTER),
    **dict.fromkeys((f"evidence {domain.name}" for domain in Domain), _SEALED),
    "file Invitation": "tests/unit/identity/test_networks.py::test_a_file_of_what_cannot_be_a_network_is_refused",
    "engine Order": "tests/unit/engine/test_frames.py::test_anything_else_is_malformed",
    "engine Report": _CHILD + "test_a_child_that_breaks_the_protocol_is_killed_and_the_cause_told",
}


@dataclass(frozen=True)
class Conversation:
    """Something that is said: of these types, through this door, in these golden bytes."""

    roots: tuple[type[Message], ...]
    door: str | None
    golden: Callable[[], bytes]


def conversations() -> dict[str, Conversation]:
    """All of them, by name."""
    return dict([*_frames(), *_opening(), *_calls(), *_directory(), *_nearby(), *_evidence(), *_files(), *_engine()])


def _frames() -> Iterator[tuple[str, Conversation]]:
    for kind in Kind:
        roots = (frames.Failure,) if kind in {Kind.ERR, Kind.REJECT} else ()
        door = "session" if kind in FRAMES else None
        yield f"frame {kind.name}", Conversation(roots, door, lambda kind=kind: _frame(kind))


def _frame(kind: Kind) -> bytes:
    return frames.frame(kind, 0 if kind in frames.SESSION_KINDS else 1, FRAMES[kind](Random(7))[:64])


_FIRST = {"XX", "IK", "ticket", "path", "circuit"}


def _opening() -> Iterator[tuple[str, Conversation]]:
    puzzle = Puzzle(1000, 2, 3, b"c" * 16)
    ticket = puzzle.pack() + bytes(8)
    dialling = wire_pair.dialling
    for name, golden in {
        "opening XX": lambda: dialling().begin(),
        "opening IK": lambda: dialling(known=SERVER_KEY).begin(),
        "opening ticket": lambda: dialling(ticket=ticket).begin(),
        "opening path": further_path,
        "opening circuit": lambda: preamble(NET, pattern=CIRCUIT) + b"t" * 16,
        "opening refusal": lambda: rejection(Overloaded("no room", retry_after=0.5)),
        "opening puzzle": lambda: retry(puzzle),
    }.items():
        yield name, Conversation((), "doorstep" if name.split()[1] in _FIRST else "dialled", golden)
    yield "handshake Introduction", _plain("doorstep", Introduction)
    yield "handshake Hello", _plain("dialled", Hello)


def _calls() -> Iterator[tuple[str, Conversation]]:
    """Requests to workers travel under a digest, in bytes of their own."""
    for method in methods.ALL:
        inside = {methods.RUN.name: (Request,), methods.EMBED.name: (EmbedRequest,)}.get(method.name, ())
        yield f"rpc {method.name}", _plain("call", method.argument, method.reply, *inside)
    for live, kind in LIVE.items():
        yield f"live {live}", Conversation((kind,), "live", lambda live=live, kind=kind: signed(live, kind))


def signed(live: int, kind: type[Message]) -> bytes:
    """A live message with all its header."""
    header = Header(
        net=NET, scope=Digest(b"s" * 32), sender=CLIENT.peer, receiver=SERVER.peer, boot=BootId(b"b" * 8), sequence=1,
        sent=WALL, expires=WALL + 1000, nonce=Nonce(b"n" * 16), kind=live,
    )  # fmt: skip
    return sign_live(CLIENT, header, example(kind))


def _directory() -> Iterator[tuple[str, Conversation]]:
    for kind in RecordKind:
        topic = topic_at(kind, Digest(b"t" * 32))
        record = Record(kind, topic, CLIENT.peer, 1, WALL + 1000, tombstone=False, body=b"body")
        roots = (Record, BODIES[kind]) if kind in BODIES else ()
        yield f"record {kind.name}", Conversation(roots, "record", lambda r=record: sign_record(CLIENT, NET, r))
    for command in dht.Command:
        roots = (dht.Query, dht.Put) if command in {dht.Command.PUT, dht.Command.CARRY} else (dht.Query,)
        yield f"query {command.name}", Conversation(roots, "directory", lambda command=command: _query(command))
    handle = b"12345678"
    datagrams = {
        dht.Kind.REPLY: _reply,
        dht.Kind.RETRY: lambda: dht.write(dht.Kind.RETRY, handle, b"t" * 16),
        dht.Kind.ERROR: lambda: dht.write(dht.Kind.ERROR, handle, b"\2"),
        dht.Kind.NOTICE: lambda: dht.sign_notice(CLIENT, NET, handle, Digest(b"t" * 32), b"record"),
        dht.Kind.DIALBACK: lambda: dht.write(dht.Kind.DIALBACK, handle, b"n" * 16),
    }
    for kind in set(dht.Kind) - {dht.Kind.QUERY}:
        golden = datagrams.get(kind, _missing)
        yield (
            f"datagram {kind.name}",
            Conversation((dht.Reply,) if kind is dht.Kind.REPLY else (), "directory", golden),
        )


def _nearby() -> Iterator[tuple[str, Conversation]]:
    """What is said in UDP beside the DHT: who nearby there is, all of it sealed in a closed network; and NAT-PMP."""
    envelope = Envelope(NetKey(b"k" * 32))
    yield "beacon", Conversation((), "nearby", lambda: sign_beacon(CLIENT, NET, 4000, WALL))
    yield "datagram sealed", Conversation((), "nearby", lambda: envelope.seal(sign_beacon(CLIENT, NET, 4000, WALL)))
    outside = natpmp.ADDRESS_REQUEST + bytes.fromhex("00800000000000070b040002")
    yield "router's address", Conversation((), "nearby", lambda: outside)
    for opcode in natpmp.Opcode:
        answer = bytes((0, 128 + opcode)) + bytes.fromhex("0000000000071f40200000000e10")
        asked = natpmp.map_request(opcode, 8000, 8192, 3600)
        yield f"router's {opcode.name}", Conversation((), "nearby", lambda both=asked + answer: both)


def _query(command: dht.Command) -> bytes:
    put = codec.encode(example(dht.Put))
    arguments = {dht.Command.PUT: put, dht.Command.CARRY: put, dht.Command.FIND: b"a point" + bytes(25)}
    argument = arguments.get(command, b"handle 8")
    query = _example(dht.Query, command=command, argument=argument, token=b"t" * 16)
    return dht.write(dht.Kind.QUERY, b"12345678", codec.encode(query))


def _reply() -> bytes:
    asked = _query(dht.Command.FIND)
    reply = _example(dht.Reply, token=b"t" * 16, ticket=bytes(32))
    return dht.sign_reply(CLIENT, NET, dht.read(asked), reply)


def _missing() -> bytes:
    """Nothing yet, for what was added to an enumeration and not described here."""
    return b""


def _example(kind: type[Message], **changes: Any) -> Any:
    return msgspec.structs.replace(example(kind), **changes)


def _evidence() -> Iterator[tuple[str, Conversation]]:
    for domain in Domain:
        kinds = (DOMAINS[domain],) if domain in DOMAINS else ()
        golden = (lambda domain=domain: seal(CLIENT, domain, example(DOMAINS[domain]))) if kinds else _missing
        yield f"evidence {domain.name}", Conversation(kinds, "evidence" if kinds else None, golden)


def _files() -> Iterator[tuple[str, Conversation]]:
    yield "file Invitation", Conversation((Invitation,), "file", lambda: codec.encode_evidence(example(Invitation)))


def _engine() -> Iterator[tuple[str, Conversation]]:
    for kind in ENGINE:
        yield f"engine {kind.__name__}", _plain("pipe", kind)


def _plain(door: str, *kinds: type[Message]) -> Conversation:
    return Conversation(kinds, door, lambda: b"".join(codec.encode(example(kind)) for kind in kinds))


def all_messages() -> set[type[Message]]:
    """Every message type of the product, but for what never leaves this machine."""
    found: set[type[Message]] = set()
    for path in (ROOT / "haif").rglob("*.py"):
        classes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
        names = [c.name for c in classes if any(isinstance(b, ast.Name) and b.id == "Message" for b in c.bases)]
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if names and module not in OUR_OWN:
            found |= {getattr(importlib.import_module(module), name) for name in names}
    return found


def golden() -> dict[str, str]:
    """The bytes of every conversation, in hex."""
    return {name: conversation.golden().hex() for name, conversation in sorted(conversations().items())}


if __name__ == "__main__":
    print(json.dumps(golden(), indent=1))
