"""What a tenant wants, whichever dialect it was said in: the request a worker will see, and how to answer it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from msgspec import structs

from haif.base.confinement import stricter
from haif.base.errors import Refusal, Unsupported
from haif.base.sampling import Sampling
from haif.base.tasks import Task
from haif.gateway.errors import Rejected
from haif.gateway.fields import Haif, Sampled
from haif.gateway.line import SERVICES, Service
from haif.gateway.tenants import Tenant
from haif.protocol.inference import Request

Dialect = Literal["chat", "text", "responses", "messages"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request for text."""

    dialect: Dialect  # in whose words the answer is told
    model: str
    request: Request
    seed: int | None
    stream: bool
    include_usage: bool = False
    ignored: tuple[str, ...] = ()
    choices: int = 1
    sandbox_min: str = "none"  # the level that the worker's jail must have
    execution: str | None = None  # one of `base.execution.DEMANDS`; None: as the operator allows
    echo: str = ""  # what a text completion's answer begins with
    transcript: bool = False  # give the tenant what it takes to compute the answer again
    audit: bool = True  # whether a validator of the gateway's may be given that, too
    service: Service = Service.INTERACTIVE
    weight: int = 1  # in the line, among those of its class
    told: Mapping[str, Any] = field(default_factory=dict)  # what the answer says of the request again

    @property
    def kind(self) -> Literal["chat", "text"]:
        """Whether a conversation is answered or a text is gone on with."""
        return "text" if self.dialect == "text" else "chat"

    @property
    def task(self) -> Task:
        """What the model must be able to do."""
        if self.kind == "chat":
            return Task.CHAT
        return Task.TEXT if self.request.suffix is None else Task.INFILL

    def under(self, *, scope: bytes, execution: str, tenant: Tenant) -> Ask:
        """The same, where only requests of `scope` may share what a worker computed, under the house's rules.

        These are the `execution` that the operator demands for who demands nothing, and of the tenant the least level
        of jail that will do, its weight and its class: a request may ask for a lower one.
        """
        request = structs.replace(self.request, scope=scope)
        return replace(
            self, request=request, execution=self.execution or execution,
            sandbox_min=stricter(self.sandbox_min, tenant.sandbox_min), weight=tenant.weight,
            service=max(self.service, SERVICES[tenant.service]),
        )  # fmt: skip


def demands(haif: Haif | None) -> dict[str, Any]:
    """The fields of an `Ask` that the extension `haif` of a request decides."""
    wanted = haif or Haif()
    return {
        "sandbox_min": wanted.sandbox or "none", "execution": wanted.execution, "transcript": bool(wanted.transcript),
        "audit": wanted.audit is not False,
    }  # fmt: skip


def sampling_of(wanted: Sampled, bias: list[tuple[int, float]] | None = None) -> Sampling:
    """The options a request gives, the others as they are by default."""
    options = {name: value for name in _SAMPLING if (value := getattr(wanted, name, None)) is not None}
    return Sampling(**options, bias=bias or [])


_SAMPLING: Final = (
    "temperature", "top_p", "top_k", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty",
)  # fmt: skip


def check_together(request: Request) -> None:
    """Return unless two wishes exclude each other. Raises `Unsupported`, in the words of chat completions."""
    if request.tools is not None and request.json_schema is not None:
        raise Unsupported("a format of the answer beside tools cannot be honoured: give one of them",
                          param="response_format")  # fmt: skip
    if request.tools is not None and request.logprobs is not None:
        raise Unsupported("logprobs of answers that may call tools cannot be told", param="logprobs")


def in_words_of(dialect: Dialect, refusal: Refusal) -> None:
    """Call what a worker, or a check that serves all dialects, refused by the name it has in this one.

    What is `Rejected` was refused by the dialect itself.
    """
    for ours, theirs in _WORDS.get(dialect, ()):
        if refusal.param is not None and not isinstance(refusal, Rejected):
            refusal.param = ours.sub(theirs, refusal.param)


_WORDS: Final[dict[Dialect, tuple[tuple[re.Pattern[str], str], ...]]] = {
    "responses": (
        (re.compile("^messages.*"), "input"),  # places among a worker's messages are none among a tenant's items
        (re.compile("^max_tokens$"), "max_output_tokens"),
        (re.compile(r"^response_format(\.json_schema)?"), "text.format"),
        (re.compile(r"^(chat_template_kwargs\.)?reasoning_effort$"), "reasoning.effort"),
        (re.compile("^logprobs$"), "top_logprobs"),
        (re.compile(r"^(tools\[\d+\])\.function"), r"\1"),
    ),
    "messages": (
        (re.compile("^messages.*"), "messages"), (re.compile("^stop$"), "stop_sequences"),
        (re.compile(r"^response_format(\.json_schema)?"), "output_config.format"),
        (re.compile(r"^(chat_template_kwargs\.)?reasoning_effort$"), "output_config.effort"),
        (re.compile(r"^(tools\[\d+\])\.function\.parameters"), r"\1.input_schema"),
        (re.compile(r"^(tools\[\d+\])\.function"), r"\1"),
    ),
}  # fmt: skip
"""By dialect: what chat completions call something, and what this one does."""
