"""`haif receipt verify`: check an answer's evidence offline, and say in words what it proves and what it does not."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from haif.config import WorkerSettings
    from haif.protocol.receipts import CheckedBundle

_KEPT_BACK = "none: tenant or gateway keep the request to themselves, or bits cannot be compared"
_MESSAGE = "a message: it must be the `message` of a chat, a response or an Anthropic message, as JSON"
_FILE = "a receipt file: it must be the `haif` object of an answer, as JSON"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verbs."""
    group = commands.add_parser("receipt", help="check what a worker signed for an answer")
    verbs = group.add_subparsers(metavar="VERB", required=True)
    verify = verbs.add_parser("verify", help="check a receipt file; exit code 6 when it does not hold")
    verify.add_argument("file", type=Path, help="the `haif` object of an answer, as JSON; - for standard input")
    answer = verify.add_mutually_exclusive_group()
    answer.add_argument("--text", type=Path, metavar="FILE", help="the answer itself: check that the receipt is for it")
    answer.add_argument("--message", type=Path, metavar="FILE",
                        help="the same with its other parts: a chat's `message`, a response, a message")  # fmt: skip
    answer.add_argument("--vectors", type=Path, metavar="FILE",
                        help="the whole answer of /v1/embeddings, or of /v1/rerank with all documents")  # fmt: skip
    verify.add_argument("--worker", metavar="PEER", help="demand that this worker signed")
    verify.add_argument("--orchestrator", metavar="PEER", help="demand that this orchestrator reserved")
    verify.add_argument("--json", action="store_true", help="as one JSON object")
    verify.set_defaults(handler=_verify)
    replay = verbs.add_parser(
        "replay",
        help="compute the answer again here and compare it to the last bit; exit code 6 if it differs",
    )
    replay.add_argument("file", type=Path, help="the `haif` object of an answer with its transcript; - for stdin")
    add_engine_flags(replay)
    replay.add_argument("--json", action="store_true", help="as one JSON object")
    replay.set_defaults(handler=_replay)


def add_engine_flags(verb: argparse.ArgumentParser) -> None:
    """What it takes to compute an answer again."""
    verb.add_argument("--state", type=Path, help="folder with the model (default: the XDG state folder)")
    verb.add_argument("--profile", default="exact", help="the worker's profile: exact or exact-native")
    verb.add_argument("--threads", help="threads of the engine (default: half of the processors)")
    verb.add_argument("--context-tokens", help="room for prompt and answer, where the default is too little")


def engine_settings(arguments: argparse.Namespace) -> WorkerSettings:
    """The settings of that engine. Raises `Misuse`."""
    from haif import config

    flags = {name: getattr(arguments, name) for name in ("state", "profile", "threads", "context_tokens")}
    return config.load(config.WorkerSettings, flags)


def _verify(arguments: argparse.Namespace) -> int:
    from haif.base.errors import BadSignature
    from haif.cli.parts import parts_of
    from haif.protocol.receipts import check_bundle

    fields = read_object(arguments.file, _FILE)
    answer: tuple[str, str, list[tuple[str, str]]] | None = None
    if arguments.text is not None:
        answer = arguments.text.read_text(), "", []
    elif arguments.message is not None:
        answer = parts_of(read_object(arguments.message, _MESSAGE))
    vectors = None if arguments.vectors is None else _vectors(arguments.vectors)
    checked = check_bundle(fields, *answer) if answer else check_bundle(fields, vectors=vectors)
    for who, wanted, signer in (
        ("worker", arguments.worker, checked.receipt.signer),
        ("orchestrator", arguments.orchestrator, checked.reservation.signer),
    ):
        if wanted is not None and wanted != str(signer):
            raise BadSignature(f"the {who} that signed is {signer}, not {wanted}")
    if arguments.json:
        print(json.dumps(dict(describe(checked))))
    else:
        print("\n".join(f"{name:<14} {value}" for name, value in describe(checked)))
        said = checked.receipt.payload
        told = "text" if vectors is None else "vectors"
        shown = answer is not None or vectors is not None
        print(proves(text_checked=shown, resumed=said.resumed, verifiable=said.verifiable, answer=told))
    return 0


def _replay(arguments: argparse.Namespace) -> int:
    import asyncio

    from haif.node.replay import replay
    from haif.protocol.receipts import check_bundle

    checked = check_bundle(read_object(arguments.file, _FILE))
    done = asyncio.run(replay(engine_settings(arguments), checked))
    if arguments.json:
        print(json.dumps({"tokens": done.tokens, "windows": done.windows, "engine": done.engine}))
    else:
        print(f"proved    {done.tokens} tokens, computed again here from the request, the seed and the model's file,")
        print(f"          are the answer's, and so are the logits behind them, bit for bit ({done.windows} windows)")
        print("so        the worker ran exactly this model on exactly this request, with these options")
    return 0


def describe(checked: CheckedBundle) -> list[tuple[str, str | int]]:
    """The facts of a checked bundle, as (name, value) rows for people and machines."""
    from haif.base.execution import word

    said, terms = checked.receipt.payload, checked.reservation.payload
    return [
        ("job", f"{said.job}"),
        ("worker", str(checked.receipt.signer)),
        ("orchestrator", str(checked.reservation.signer)),
        ("gateway", str(checked.countersignature.signer)),
        ("model_digest", str(said.model)),
        *((("base", str(said.adapted.base)), ("adapter", str(said.adapted.adapter))) if said.adapted else ()),
        ("prompt_tokens", said.prompt_tokens),
        ("tokens", said.completion_tokens),
        ("resumed_after", said.resumed),
        ("finish_reason", said.finish_reason),
        ("seed", "drawn: nobody chose it (RFC 9381)" if terms.tenant_seed is None else f"given: {terms.tenant_seed}"),
        ("started", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(said.started / 1000))),
        ("duration_ms", said.finished - said.started),
        ("engine", said.engine),
        ("execution", word(said.verifiable)),
        ("audit", "a validator may have drawn it" if checked.countersignature.payload.auditable else _KEPT_BACK),
        ("sandbox", str(said.sandbox)),
        ("signature", "Ed25519 (COSE_Sign1): worker, orchestrator and gateway all verify"),
    ]


def proves(*, text_checked: bool, resumed: int, verifiable: bool, answer: str = "text") -> str:
    """What the check showed and what it did not, in words. `resumed`: how many tokens were an earlier worker's."""
    first = (
        f"parts     the first {resumed} tokens came from a worker that failed and signed nothing: the gateway vouches\n"
        "          for them, the worker for what follows them and for having gone on after exactly these\n"
        if resumed
        else ""
    )
    text = f"yes, exactly the {answer} given" if text_checked else "not checked (give it with --text or --vectors FILE)"
    audits = (
        "that takes computing it again, which `haif receipt\n"
        "          replay` does for an answer with its transcript, and validators for those they draw"
        if verifiable
        else "nobody will be able to, for\n          a program that is not ours computed it, and its tokens are unknown"
    )
    return (
        "\nproved    this worker signed that it ran this model for this reserved request, and the gateway\n"
        "          countersigned that it received exactly this output\n"
        f"{first}"
        f"answer    {text}\n"
        f"not shown that the worker really executed this model: {audits}"
    )


def _vectors(path: Path) -> list[bytes]:
    """The vectors of an answer, or the scores of one that ranks, in the order of the inputs."""
    import base64
    import struct

    from haif.base.errors import Malformed

    try:
        answer = json.loads(path.read_bytes())
        ranked = "results" in answer
        found = sorted(answer["results" if ranked else "data"], key=lambda each: each["index"])
        given = [[each["relevance_score"]] if ranked else each["embedding"] for each in found]
        return [
            base64.b64decode(each, validate=True) if isinstance(each, str) else struct.pack(f"<{len(each)}f", *each)
            for each in given
        ]
    except (ValueError, TypeError, KeyError, OSError, OverflowError, struct.error, RecursionError):
        raise Malformed(f"{path} is not an answer of /v1/embeddings or /v1/rerank, as JSON") from None


def read_object(path: Path, what: str) -> dict[str, Any]:
    """The JSON object in a file. Raises `Misuse` or `Malformed`, naming `what` it should be."""
    from haif.base import limits
    from haif.base.errors import Malformed, Misuse

    try:
        raw = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise Misuse(f"{path} cannot be read: {error.strerror}") from None
    if len(raw) > 2 * limits.MESSAGE_BYTES_MAX:
        raise Malformed(f"{path} is too long to be {what}")
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError):
        raise Malformed(f"{path} is not {what}") from None
    if not isinstance(fields, dict):
        raise Malformed(f"{path} is not {what}")
    return fields
