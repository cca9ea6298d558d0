"""`haif verdict`: what a validator on this machine convicted, and whether the file of a conviction holds."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from haif.cli.receipt import add_engine_flags, engine_settings, read_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haif.identity.signing import Verified
    from haif.protocol.audits import Verdict

_FILE = "a verdict file: one of `convictions/` in a validator's folder"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    group = commands.add_parser("verdict", help="check what a validator signed against a worker")
    verbs = group.add_subparsers(metavar="VERB", required=True)
    listed = verbs.add_parser("ls", help="the convictions that validators on this machine keep, the latest last")
    listed.add_argument("--state", type=Path, help="the state folder (default: the XDG state folder)")
    listed.add_argument("--json", action="store_true", help="one JSON object a line")
    listed.set_defaults(handler=_list)
    verify = verbs.add_parser("verify", help="check the file of a conviction; exit code 6 when it does not hold")
    verify.add_argument("file", type=Path, help=f"{_FILE}; - for standard input")
    verify.add_argument("--validator", metavar="PEER", help="demand that this validator signed")
    verify.add_argument("--panel", action="store_true", help="demand that a panel of validators convicted")
    verify.add_argument(
        "--replay", action="store_true", help="believe nobody: compute the answer again here, to the last bit"
    )
    add_engine_flags(verify)
    verify.add_argument("--json", action="store_true", help="as one JSON object")
    verify.set_defaults(handler=_verify)


def _list(arguments: argparse.Namespace) -> int:
    from haif import config
    from haif.protocol.audits import check_conviction

    folder = config.load(config.NodeSettings, {"state": arguments.state}).folder
    paths = sorted(folder.glob("*/convictions/*.json"), key=lambda path: path.stat().st_mtime)
    for path in paths:
        _, verdict = check_conviction(read_object(path, _FILE))
        rows = dict(describe(verdict)) | {"file": str(path)}
        if arguments.json:
            print(json.dumps(rows))
        else:
            print(f"{rows['judged']}  worker {str(rows['worker'])[:16]}…  {rows['cause']:<7} {path}")
    if not paths and not arguments.json:
        print("no validator on this machine has convicted anybody")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    import asyncio

    from haif.base.errors import BadProof, BadSignature
    from haif.node.replay import Bench
    from haif.protocol.audits import check_conviction

    file = read_object(arguments.file, _FILE)
    checked, verdict = check_conviction(file)
    ruled = _ruling(file, verdict)
    if arguments.panel and not ruled:
        raise BadProof("no panel's ruling is in this file: it is one validator's word", verdict.signer)
    if arguments.validator is not None and arguments.validator != str(verdict.signer):
        raise BadSignature(f"the validator that signed is {verdict.signer}, not {arguments.validator}")
    words = ""
    if arguments.replay:

        async def again() -> str:
            async with Bench(engine_settings(arguments)) as bench:
                found = (await bench.replay(checked)).difference
            if found is None or (found.cause.value, found.place) != (verdict.payload.cause, verdict.payload.place):
                ours = "nothing differs here" if found is None else found.words
                raise BadProof(f"the validator's verdict does not hold: {ours}", verdict.signer)
            return found.words

        words = asyncio.run(again())
    rows = describe(verdict) + ruled
    if arguments.json:
        signers = [value for name, value in rows if name == "signed by"]
        print(json.dumps(dict(rows) | {"signed by": signers, "replayed": arguments.replay}))
        return 0
    print("\n".join(f"{name:<14} {value}" for name, value in rows))
    if arguments.replay:
        print(f"\nproved    computed again here: {words}")
        print("so        the worker signed for what this model does not give for this request; no validator is needed")
    else:
        who = "so many validators, drawn by the orchestrator's VRF," if ruled else "this validator"
        print(f"\nproved    {who} signed that the worker's receipt is not what the model gives for the request,")
        print("          and request, tokens, receipt and verdict belong together")
        print("not shown that they are right: that takes --replay, with the model on this machine; nor who they are")
    return 0


def _ruling(file: Mapping[str, object], verdict: Verified[Verdict]) -> list[tuple[str, str | int]]:
    """What a panel said of the same receipt, as rows; none where the file has no ruling. Raises `BadProof`."""
    from haif.base.errors import BadProof
    from haif.proof.panel import contradicts
    from haif.proof.ruling import check_ruling
    from haif.protocol.audits import open_verdict
    from haif.protocol.receipts import evidence_of

    if "ruling" not in file:
        return []
    ruling, signers = check_ruling(evidence_of(str(file["ruling"])), verdict.payload.orchestrator)
    said = open_verdict(ruling.payload.verdicts[0]).payload
    if said.receipt != verdict.payload.receipt or contradicts(verdict.payload, said):
        raise BadProof("the panel's ruling is about another receipt, or finds something else", verdict.signer)
    return [
        ("panel", f"{len(signers)} of {ruling.payload.seats} agree"),
        ("drawn from", len(ruling.payload.pool)),
        *(("signed by", str(signer)) for signer in signers),
    ]


def describe(verdict: Verified[Verdict]) -> list[tuple[str, str | int]]:
    """What a verdict says, as (name, value) rows for people and machines."""
    said = verdict.payload
    return [
        ("finding", said.finding),
        ("cause", said.cause),
        ("token", said.place),
        ("worker", str(said.worker)),
        ("validator", str(verdict.signer)),
        ("orchestrator", str(said.orchestrator)),
        ("job", str(said.job)),
        ("model_digest", str(said.model)),
        ("engine", said.engine),
        ("judged", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(said.judged / 1000))),
    ]
