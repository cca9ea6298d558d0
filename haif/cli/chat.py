"""`haif chat`: talk to a model through a gateway, in the terminal."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from typing import Any

from haif import config


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    chat = commands.add_parser("chat", help="talk to a model; one question as an argument, or a conversation")
    chat.add_argument("question", nargs="*", help="ask this and leave; without it, a conversation begins")
    chat.add_argument(
        "--gateway", metavar="URL", help="base URL without /v1 (default: $HAIF_GATEWAY, else `haif up`'s)"
    )
    chat.add_argument("--key", help="tenant key (default: $HAIF_KEY, else the one `haif up` made)")
    chat.add_argument("--model", help="default: the gateway's first")
    chat.add_argument("--system", help="instructions that come before the conversation")
    chat.add_argument("--temperature", type=float, default=0.7)
    chat.add_argument("--seed", type=int)
    chat.add_argument("--state", metavar="PATH", help="state folder")
    chat.set_defaults(handler=_chat)


def _chat(arguments: argparse.Namespace) -> int:
    import openai

    from haif.base.errors import Unavailable

    gateway, key = _where(arguments)
    client = openai.OpenAI(base_url=f"{gateway}/v1", api_key=key, max_retries=1)
    turns = [{"role": "system", "content": arguments.system}] if arguments.system else []
    try:
        model = arguments.model or client.models.list().data[0].id
        for question in _questions(arguments, model):
            turns.append({"role": "user", "content": question})
            answer = "".join(_answer(client, model, turns, arguments))
            turns.append({"role": "assistant", "content": answer})
    except openai.APIConnectionError:
        raise Unavailable(f"no gateway answers at {gateway}. Start a mesh with: haif up") from None
    except openai.APIError as error:
        raise Unavailable(f"the gateway refused: {error.message}") from None
    return 0


def _questions(arguments: argparse.Namespace, model: str) -> Iterator[str]:
    if arguments.question:
        yield " ".join(arguments.question)
        return
    interactive = sys.stdin.isatty()
    if interactive:
        print(f"talking to {model}; an empty line or Ctrl-D ends it", file=sys.stderr)
    while True:
        try:
            question = input("> " if interactive else "").strip()
        except EOFError:
            return
        if not question:
            return
        yield question


def _answer(client: Any, model: str, turns: list[dict[str, str]], arguments: argparse.Namespace) -> Iterator[str]:
    options = {} if arguments.seed is None else {"seed": arguments.seed}
    stream = client.chat.completions.create(
        model=model, messages=turns, temperature=arguments.temperature, stream=True, **options
    )
    for chunk in stream:
        for choice in chunk.choices:
            if choice.delta.content:
                print(choice.delta.content, end="", flush=True)
                yield choice.delta.content
    print()


def _where(arguments: argparse.Namespace) -> tuple[str, str]:
    """Gateway and key: from flags, the environment, or what a running `haif up` left in the state folder."""
    from haif.base.errors import Misuse
    from haif.cli.mesh import read_card

    gateway = arguments.gateway or os.environ.get("HAIF_GATEWAY")
    key = arguments.key or os.environ.get("HAIF_KEY")
    if gateway and key:
        return gateway.rstrip("/").removesuffix("/v1"), key
    card = read_card(config.load(config.NodeSettings, vars(arguments)).folder)
    if card is None:
        raise Misuse("no mesh is running here: start one with `haif up`, or give --gateway URL and --key KEY")
    return gateway or card["gateway"], key or card["key"]
