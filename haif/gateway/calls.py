"""What a worker says beside an answer's text, believed as far as it can be checked.

Only functions that were offered are called, as many as were allowed and, where a call was due, at least one; arguments
that a grammar must have written are one JSON object. That they fit the function's schema is not looked at here: who has
the model finds out by sampling again.
"""

from __future__ import annotations

from collections.abc import Sequence

from haif.base import limits
from haif.base.conversation import ARGUMENTS, CALL, REASONING, Aside, Said, Toolbox, json_object
from haif.base.errors import Malformed
from haif.base.ids import PeerId
from haif.protocol.inference import Request


def check_asides(asides: Sequence[Aside], request: Request, said: Said, worker: PeerId | None) -> None:
    """Return if these may come; they are part of `said` already. Raises `Malformed`."""
    if not asides:
        return
    box = request.tools
    if request.chat is None or any(aside.kind not in {REASONING, CALL, ARGUMENTS} for aside in asides):
        raise Malformed("the worker said something beside its text that nobody asked for", worker)
    if all(aside.kind == REASONING for aside in asides):
        return
    if box is None:
        raise Malformed("the worker calls tools that nobody offered", worker)
    if any(aside.kind == CALL and not _offered(box, aside.text) for aside in asides):
        raise Malformed("the worker calls a function that was not offered", worker)
    if said.called > (1 if box.single else limits.TOOL_CALLS_MAX):
        raise Malformed("the worker makes more calls than were allowed", worker)


def _offered(box: Toolbox, name: str) -> bool:
    return name == box.only if box.only else any(tool.name == name for tool in box.tools)


def check_said(said: Said, request: Request, finish_reason: str, worker: PeerId | None) -> None:
    """Return if a whole answer may be one to this request. Raises `Malformed`."""
    box = request.tools
    if box is None or finish_reason != "stop":
        return
    calls = said.calls
    if box.must and not calls:
        raise Malformed("the worker made no call where one was due", worker)
    for name, arguments in calls:
        if box.must or any(tool.strict for tool in box.tools):
            try:
                json_object(arguments)
            except ValueError as error:
                raise Malformed(f"the worker's arguments for {name} are no JSON object: {error}", worker) from None
