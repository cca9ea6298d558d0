"""Requests for vectors, heard strictly: OpenAI's embeddings, and the rerank that Jina, Cohere and llama-server share.

Sources: the OpenAI API reference (openai-openapi 2.3.0), `createEmbedding`; Jina's `/v1/rerank`; llama.cpp's server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, structs

from haif.base import codec, limits
from haif.base.confinement import stricter
from haif.base.ids import Nonce
from haif.base.tasks import Task
from haif.gateway.fields import Haif
from haif.gateway.strict import object_of, typed, wrong
from haif.gateway.tenants import Tenant
from haif.protocol.embeddings import EmbedRequest

_NAME = Annotated[str, Meta(min_length=1, max_length=limits.MODEL_NAME_CHARS_MAX)]
_MANY = Meta(min_length=1, max_length=limits.EMBEDDING_INPUTS_MAX)
_TOKEN = Annotated[int, Meta(ge=0, lt=limits.VOCABULARY_MAX)]
_TOKENS = Annotated[list[_TOKEN], Meta(min_length=1, max_length=limits.EMBEDDING_TOKENS_MAX)]
_TEXT = Annotated[str, Meta(min_length=1)]


class Embeddings(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /v1/embeddings, its input apart."""

    model: _NAME
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=limits.EMBEDDING_DIMENSIONS_MAX)] | None = None
    user: str | None = None
    haif: Haif | None = None


class _Text(msgspec.Struct, forbid_unknown_fields=True):
    input: _TEXT


class _Texts(msgspec.Struct, forbid_unknown_fields=True):
    input: Annotated[list[_TEXT], _MANY]


class _Tokens(msgspec.Struct, forbid_unknown_fields=True):
    input: _TOKENS


class _ManyTokens(msgspec.Struct, forbid_unknown_fields=True):
    input: Annotated[list[_TOKENS], _MANY]


INPUTS: Final = (_Text, _Texts, _Tokens, _ManyTokens)
"""What `input` may be: each is looked for by itself, for the parser tells no two kinds of list apart."""


class Document(msgspec.Struct, forbid_unknown_fields=True):
    """A document as an object."""

    text: _TEXT


class Rerank(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /v1/rerank."""

    model: _NAME
    query: _TEXT
    documents: Annotated[list[_TEXT | Document], _MANY]
    top_n: Annotated[int, Meta(ge=1)] | None = None
    return_documents: bool | None = None
    haif: Haif | None = None


_IGNORED: Final = ("user",)


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorAsk:
    """What a tenant wants: the request a worker will see, and how to answer it."""

    model: str
    request: EmbedRequest
    ignored: tuple[str, ...] = ()
    sandbox_min: str = "none"  # the level that the worker's jail must have
    base64: bool = False
    top_n: int | None = None
    with_documents: bool = False

    @property
    def task(self) -> Task:
        """What the model must be able to do."""
        return Task.EMBED if self.request.query is None else Task.RERANK

    @property
    def count(self) -> int:
        """How many vectors that makes."""
        return len(self.request.texts or self.request.tokens or ())

    @property
    def dimensions(self) -> int | None:
        """How many numbers of each vector are wanted, where that was said."""
        return self.request.dimensions

    @property
    def tokens_known(self) -> int | None:
        """How many tokens the inputs have, where they were given as such."""
        return None if self.request.tokens is None else sum(map(len, self.request.tokens)) // _TOKEN_BYTES

    def encoded(self) -> bytes:
        """The bytes whose digest the reservation names."""
        return codec.encode(self.request)

    def under(self, *, scope: bytes, execution: str, tenant: Tenant) -> VectorAsk:
        """The same, where requests of `scope` share one turn at a worker, in a jail that will do for the tenant.

        Any demand on the `execution` is met: vectors are computed by engines of ours alone, which can be verified.
        """
        del execution
        request = structs.replace(self.request, scope=scope)
        return replace(self, request=request, sandbox_min=stricter(self.sandbox_min, tenant.sandbox_min))


_TOKEN_BYTES: Final = 4


def parse_embeddings(body: bytes, nonce: Nonce) -> VectorAsk:
    """The body of POST /v1/embeddings. Raises `Rejected` or `Unsupported`, naming the parameter."""
    fields = object_of(body)
    texts, tokens = _inputs(fields)
    wanted = typed(Embeddings, {name: value for name, value in fields.items() if name != "input"})
    request = EmbedRequest(nonce=nonce, query=None, texts=texts, tokens=tokens, dimensions=wanted.dimensions)
    return VectorAsk(
        model=wanted.model, request=request, base64=wanted.encoding_format == "base64",
        sandbox_min=(wanted.haif and wanted.haif.sandbox) or "none",
        ignored=tuple(name for name in _IGNORED if fields.get(name) is not None),
    )  # fmt: skip


def parse_rerank(body: bytes, nonce: Nonce) -> VectorAsk:
    """The body of POST /v1/rerank. Raises `Rejected` or `Unsupported`, naming the parameter."""
    wanted = typed(Rerank, object_of(body))
    texts = [each if isinstance(each, str) else each.text for each in wanted.documents]
    request = EmbedRequest(nonce=nonce, query=wanted.query, texts=texts, tokens=None, dimensions=None)
    return VectorAsk(
        model=wanted.model, request=request, top_n=wanted.top_n, with_documents=bool(wanted.return_documents),
        sandbox_min=(wanted.haif and wanted.haif.sandbox) or "none",
    )  # fmt: skip


def _inputs(fields: Mapping[str, Any]) -> tuple[list[str] | None, list[bytes] | None]:
    """The texts or the tokens of each input: of a string, strings, one list of tokens or lists of tokens."""
    given = fields.get("input")
    named = {"input": given} if "input" in fields else {}
    if not isinstance(given, list):
        return [typed(_Text, named).input], None
    if not given:
        wrong("input", "input holds nothing")
    if isinstance(given[0], str):
        return typed(_Texts, named).input, None
    lists = typed(_ManyTokens, named).input if isinstance(given[0], list) else [typed(_Tokens, named).input]
    return None, [b"".join(token.to_bytes(_TOKEN_BYTES, "little") for token in tokens) for tokens in lists]
