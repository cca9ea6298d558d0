"""`haif`: the command line. Verbs register themselves; nothing heavy is imported before one is chosen."""

from __future__ import annotations

import argparse
import difflib
import errno
import json
import os
import sys
from collections.abc import Iterator
from itertools import takewhile
from typing import Any, NoReturn

import haif
from haif.base.errors import (
    Conflict,
    Corruption,
    Forbidden,
    HaifError,
    Misuse,
    MustWait,
    Overloaded,
    OverQuota,
    PeerFault,
    Unauthenticated,
    Unavailable,
    UnknownModel,
)
from haif.cli import (
    admin,
    attack,
    audit,
    chat,
    demo,
    dht,
    dlq,
    doctor,
    key,
    keys,
    model,
    net,
    network,
    pause,
    receipt,
    roles,
    sim,
    tenant,
    up,
    verdict,
)

EXIT_CODES: tuple[tuple[type[HaifError], int], ...] = (
    (Misuse, 2),
    (UnknownModel, 3),
    (Unauthenticated, 4),
    (Forbidden, 4),
    (Conflict, 4),
    (OverQuota, 5),
    (Overloaded, 5),
    (MustWait, 5),
    (Unavailable, 5),
    (PeerFault, 6),
    (Corruption, 6),
)
EXIT_CODE_HELP = "exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 denied, 5 unavailable, 6 verification failed"


class Parser(argparse.ArgumentParser):
    """argparse that suggests the verb or the flag that was probably meant; the beginning of a flag is no flag."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Refuse here what this verb does not know; argparse would leave it to the root, which knows no flags."""
        args = sys.argv[1:] if args is None else list(args)
        self._refuse(self._unknown_flags(args))  # before what follows one is taken for a verb
        namespace, unknown = super().parse_known_args(args, namespace)
        self._refuse(unknown)
        return namespace, unknown

    def _unknown_flags(self, args: list[str]) -> list[str]:
        verbs = {verb for action in self._actions if isinstance(action.choices, dict) for verb in action.choices}
        own = takewhile(lambda each: each != "--" and each not in verbs, args)
        return [each for each in own if each[:2] == "--" and each.partition("=")[0] not in self._option_string_actions]

    def _refuse(self, unknown: list[str]) -> None:
        if unknown:
            close = difflib.get_close_matches(unknown[0].partition("=")[0], self._option_string_actions, n=1)
            self.error(f"{unknown[0]!r} means nothing here." + (f" Did you mean {close[0]}?" if close else ""))

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and what to do, and leave with 2."""
        if "invalid choice: '" in message:
            typed = message.partition("invalid choice: '")[2].partition("'")[0]
            known = message.partition("(choose from ")[2].replace("'", "").rstrip(")").split(", ")
            close = difflib.get_close_matches(typed, known, n=1)
            message = f"there is no {typed!r} here." + (f" Did you mean {close[0]!r}?" if close else "")
        self.exit(2, f"{self.prog}: {message}\nTry: {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """The whole tree of verbs."""
    tree = Parser(prog="haif", description=haif.__doc__, epilog=EXIT_CODE_HELP)
    tree.add_argument("--version", action="version", version=f"haif {haif.__version__}")
    commands = tree.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for group in (
        up,
        demo,
        chat,
        roles,
        model,
        tenant,
        key,
        admin,
        dlq,
        receipt,
        verdict,
        audit,
        pause,
        keys,
        network,
        dht,
        net,
        sim,
        attack,
        doctor,
    ):
        group.add(commands)
    version = commands.add_parser("version", help="print the version of HAIF and of what it runs on")
    version.add_argument("--json", action="store_true", help="as one JSON object")
    version.set_defaults(handler=_version)
    completion = commands.add_parser("completion", help="print the completion script for a shell")
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    completion.set_defaults(handler=_completion)
    return tree


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code."""
    arguments = parser().parse_args(argv)
    try:
        code: int = arguments.handler(arguments)
    except HaifError as error:
        return _complain(error)
    except ExceptionGroup as group:  # of the tasks of a role
        if group.split(HaifError)[1] is not None:
            raise
        return max(map(_complain, _leaves(group)))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone; end quietly
        return 0
    except OSError as error:
        print(f"haif: {_what_the_system_says(error)}", file=sys.stderr)
        return 1
    return code


def _complain(error: HaifError) -> int:
    """Say what went wrong; the exit code."""
    print(f"haif: {error.message}", file=sys.stderr)
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)


def _leaves(group: Any) -> Iterator[HaifError]:
    for each in group.exceptions:
        yield from _leaves(each) if isinstance(each, ExceptionGroup) else (each,)


def _what_the_system_says(error: OSError) -> str:
    """A full disk, a folder that cannot be written, a host that does not exist: no fault of the program's."""
    reason = error.strerror or str(error)
    if error.errno == errno.EADDRNOTAVAIL:
        return "the address to listen on is not one of this machine's: look at --host"
    if error.errno == errno.EADDRINUSE:
        return "a port to listen on is taken: stop what uses it, or choose another (0 picks a free one)"
    if error.filename is None:
        return f"the system refused: {reason}"
    return f"{error.filename}: {reason}. Look at the path and who may use it, or name another state folder with --state"


def _version(arguments: argparse.Namespace) -> int:
    from importlib import metadata

    packages = ("llama-cpp-python", "noiseprotocol", "cryptography", "msgspec", "uvicorn")
    found = {"haif": haif.__version__, "python": sys.version.split()[0]}
    found |= {package: metadata.version(package) for package in packages}
    if arguments.json:
        print(json.dumps(found))
    else:
        print("\n".join(f"{name} {version}" for name, version in found.items()))
    return 0


def _completion(arguments: argparse.Namespace) -> int:
    import shtab

    print(shtab.complete(parser(), arguments.shell))
    return 0


if __name__ == "__main__":
    sys.exit(main())
