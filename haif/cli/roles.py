"""`haif node|orchestrator|worker|gateway|validator|relay`: one role, in this process, until it is told to stop."""

from __future__ import annotations

import argparse
import json
import sys

from haif import config
from haif.cli import worker

ROLES: dict[str, tuple[type[config.Common], str]] = {
    "orchestrator": (config.OrchestratorSettings, "place jobs on workers and keep the journal"),
    "worker": (config.WorkerSettings, "offer this machine's model to the mesh"),
    "gateway": (config.GatewaySettings, "serve the OpenAI-compatible API to tenants"),
    "validator": (config.ValidatorSettings, "compute answers again that nobody asked about, and judge their workers"),
    "relay": (config.RelaySettings, "carry sessions of peers that cannot dial each other, blindly"),
    "node": (config.NodeSettings, "run a DHT node, for others to find the mesh by"),
}


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verbs."""
    for role, (kind, text) in ROLES.items():
        verb = commands.add_parser(role, help=text, description=f"{text[0].upper()}{text[1:]}.")
        config.add_flags(verb, kind)
        verb.add_argument("--json", action="store_true", help="print one JSON line when ready, and nothing else")
        verb.add_argument("--until-eof", action="store_true", help="stop when standard input ends")
        if role == "worker":
            verb.add_argument("--probe", action="store_true", help="print which jail this machine can build, and stop")
        verb.set_defaults(handler=_run, role=role)
        if role == "worker":
            worker.add(verb)


def _run(arguments: argparse.Namespace) -> int:
    kind, _ = ROLES[arguments.role]
    settings = config.load(kind, vars(arguments))
    if isinstance(settings, config.WorkerSettings) and arguments.probe:
        from haif.cli.probe import probe

        return probe(settings, as_json=arguments.json)

    from haif.node.run import run

    def announce(ready: dict[str, str]) -> None:
        if arguments.json:
            print(json.dumps(ready), flush=True)
        else:
            print(f"{arguments.role} is up; Ctrl-C stops it", file=sys.stderr)
            print("\n".join(f"  {name:<13} {value}" for name, value in ready.items()), flush=True)

    return run(settings, announce=announce, until_eof=arguments.until_eof)
