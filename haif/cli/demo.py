"""`haif demo`: a mesh comes up, answers one question through the gateway, proves who answered, and goes away."""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import TYPE_CHECKING, Any

from haif.cli.up import add_mesh_flags, run_mesh

if TYPE_CHECKING:
    from haif.cli.mesh import Mesh

_VERDICT_SECONDS = 20.0
QUESTION = "Tell me a story about the windmill."


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    demo = commands.add_parser("demo", help="start a mesh, ask the demo model one question, check the receipt, stop")
    demo.add_argument("question", nargs="*", default=[QUESTION], help=f"what to ask (default: {QUESTION})")
    demo.add_argument("--seed", type=int, default=1, help="the same seed gives the same answer (default: 1)")
    add_mesh_flags(demo)
    demo.set_defaults(handler=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    question = " ".join(arguments.question)

    async def ask(mesh: Mesh, seconds: float) -> None:
        print(f"{len(mesh.roles)} processes are up and found one another over the DHT ({seconds:.1f} s):")
        for role in mesh.roles:
            print(f"  {role.name:<13} {role.ready.get('http') or role.ready.get('wire')}")
        print(f"\n> {question}\n", flush=True)
        receipt, text = await asyncio.to_thread(_stream, mesh.card(), question, arguments.seed)
        _show(receipt, text)
        judges = [role.ready["metrics"] for role in mesh.roles if role.verb == "validator"]
        if judges:
            print(f"\n{await asyncio.to_thread(_verdict, judges[0])}")

    return run_mesh(arguments, 0, ask)


def _stream(card: dict[str, Any], question: str, seed: int) -> tuple[dict[str, str], str]:
    """Ask with the official client, print what comes, return the receipt and the text."""
    import openai

    from haif.base.errors import Malformed

    client = openai.OpenAI(base_url=f"{card['gateway']}/v1", api_key=card["key"], max_retries=0)
    asked = time.monotonic()
    stream = client.chat.completions.create(
        model=card["model"], messages=[{"role": "user", "content": question}], seed=seed, temperature=0.7,
        max_tokens=220, stream=True,
    )  # fmt: skip
    text, receipt, first = "", None, None
    for chunk in stream:
        receipt = (chunk.model_extra or {}).get("haif", receipt)
        for choice in chunk.choices:
            if choice.delta.content:
                first = first or time.monotonic() - asked
                text += choice.delta.content
                print(choice.delta.content, end="", flush=True)
    print(f"\n\n(first token after {1000 * (first or 0):.0f} ms)")
    if receipt is None:
        raise Malformed("the answer came without a receipt")
    return receipt, text


def _verdict(metrics: str) -> str:
    """What the validator says of the worker; it draws all answers of one that it does not know."""
    import urllib.request

    until = time.monotonic() + _VERDICT_SECONDS
    while time.monotonic() < until:
        with urllib.request.urlopen(metrics, timeout=_VERDICT_SECONDS) as answer:  # noqa: S310 - our own validator
            page = answer.read().decode()
        for line in page.splitlines():
            if line.startswith("haif_audits_judged_total{") and not line.endswith(" 0.0"):
                finding = line.partition('finding="')[2].partition('"')[0]
                return f"A validator drew this answer unasked, computed it again and says: the worker is {finding}."
        time.sleep(0.2)
    return "A validator has not judged this answer yet."


def _show(receipt: dict[str, str], text: str) -> None:
    from haif.cli.receipt import describe, proves
    from haif.protocol.receipts import check_bundle

    checked = check_bundle(receipt, text)
    print("\nThe receipt, checked here and now:")
    for name, value in describe(checked):
        print(f"  {name:<14} {value}")
    said = checked.receipt.payload
    print(proves(text_checked=True, resumed=said.resumed, verifiable=said.verifiable))
