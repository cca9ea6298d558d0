"""What llama.cpp's own server and HAIF are asked alike, so that each option of the API is covered by an answer.

Every request leaves no choice: greedy, or with cuts that leave one candidate. `only_server` is what llama.cpp needs
beside the body to mean the same. `differs` names what is not the same on purpose, field by field, and why; a test fails
when such a difference is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

TEXT, CHAT = "/v1/completions", "/v1/chat/completions"
STORY: Final = "Once upon a time"
EVERYTHING: Final = {"repeat_last_n": 4096}  # llama.cpp forgets a token for its penalties after 64 others
ON: Final = {"2": -100}  # the token that ends an answer is ruled out
DENSE: Final = dict.fromkeys(("15", "16", "19", "38", "296", "1931"), -100)  # and so is each that begins with a blank

COUNTED: Final = ("text", "prompt_tokens", "completion_tokens")
IGNORES: Final = "llama-server ignores what it does not do; here it is done, or refused by its name"
CONTROL: Final = "llama-server reads control tokens out of a message; here only the template speaks in them"
BLANKS: Final = "llama-server's grammar lets a model write blanks for ever; here at most a line end and its indent"
FORCED: Final = "where a schema leaves no choice, llama-server lets the model spell; here it is the text's own tokens"
PARTS: Final = "llama-server puts a line end between parts; here they follow one another as they were given"
RANGES: Final = "llama-server takes it for greedy, or for one token; here it is out of range"


@dataclass(frozen=True)
class Asked:
    name: str
    path: str
    body: Mapping[str, Any]
    only_server: Mapping[str, Any] = field(default_factory=dict)
    differs: Mapping[str, str] = field(default_factory=dict)


def text(name: str, prompt: str = STORY, **options: Any) -> Asked:
    extra, differs = options.pop("only_server", {}), options.pop("differs", {})
    return Asked(name, TEXT, {"prompt": prompt, "temperature": 0, "max_tokens": 24, **options}, extra, differs)


def chat(name: str, *turns: tuple[str, Any], **options: Any) -> Asked:
    extra, differs = options.pop("only_server", {}), options.pop("differs", {})
    messages = [{"role": role, "content": content} for role, content in turns]
    return Asked(name, CHAT, {"messages": messages, "temperature": 0, "max_tokens": 32, **options}, extra, differs)


def schema(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    whole = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": name, "schema": whole}}


BAKER: Final = ("user", "Who is the baker?")

TABLE: Final = (
    # how much
    text("greedy"),
    text("one token", max_tokens=1),
    text("until the model ends", max_tokens=400),
    text("until the context is full", max_tokens=1010, logit_bias=ON),
    # which prompt
    text("an empty prompt", ""),
    text("blanks and line ends", "  \n\n Once\tupon"),
    text("accents and other scripts", "Zoë went to the café. 日本語, русский"),
    text("emoji of several code points", "A family: 👩‍👩‍👧‍👦 and a flag 🇨🇭"),
    text("digits and marks", '3.14159 + 2 = ?! {"a": [1, 2]}'),
    text("a long prompt", f"{STORY} there was a village by the river. " * 60),
    text("more than the context", f"{STORY} there was a village by the river. " * 100),
    # where it stops
    text("a stop string", stop="."),
    text("four stop strings", stop=["xyz", "\n", ",", "."]),
    text("a stop string over token boundaries", stop=["e w"], max_tokens=60),
    text("a stop string that only begins", stop=["a village in the sky above"], max_tokens=40),
    text("a stop string at once", stop=[" "], max_tokens=12),
    text("a stop string of several bytes", "Zoë went to the café.", stop=["é", "ë"], max_tokens=40),
    # which token
    text("a token that is ruled out", logit_bias={"1954": -100}),
    text("a token that is forced", logit_bias={"300": 100}, max_tokens=5),
    text("tokens that are favoured", logit_bias={"458": 2.5, "685": -20, "1943": 1.5}),
    text("repeat_penalty", repeat_penalty=1.3, only_server=EVERYTHING, max_tokens=60),
    text("presence_penalty", "", presence_penalty=1.5, logit_bias=ON, only_server=EVERYTHING, max_tokens=60),
    text("frequency_penalty", "", frequency_penalty=0.7, logit_bias=ON, only_server=EVERYTHING, max_tokens=60),
    text("a negative penalty", "", frequency_penalty=-0.5, logit_bias=ON, only_server=EVERYTHING, max_tokens=40),
    text(
        "penalties and a prompt",
        f"{STORY} there was a village by the river.",
        presence_penalty=1.5,
        frequency_penalty=0.5,
        only_server=EVERYTHING,
        max_tokens=40,
    ),
    text("penalties and a prompt that repeats itself", "the baker and the baker and the baker and", presence_penalty=2,
         only_server=EVERYTHING, max_tokens=12),
    text("all penalties and a bias", "", presence_penalty=0.4, frequency_penalty=0.3, repeat_penalty=1.1,
         logit_bias=ON | {"1958": -3}, only_server=EVERYTHING, max_tokens=50),
    text("top_k leaves one", temperature=1.5, top_k=1),
    text("min_p leaves one", temperature=1.5, min_p=1.0),
    text("top_p leaves one", temperature=1.5, top_p=0.0001),
    text("top_k leaves one after penalties", temperature=2, top_k=1, repeat_penalty=1.2, only_server=EVERYTHING),
    text("cuts that cut nothing", top_k=0, top_p=1, min_p=0),
    text("a seed where nothing is drawn", seed=42),
    # what is told beside
    text("logprobs", logprobs=5, max_tokens=8),
    text("logprobs of a forced token", logprobs=3, logit_bias={"300": 100}, max_tokens=3),
    text("echo", echo=True, max_tokens=8, differs={"text": IGNORES}),
    text("a suffix", suffix="The end.", max_tokens=8, differs={"refused": IGNORES}),
    text("a stream", stream=True, stream_options={"include_usage": True}, max_tokens=40),
    text("a stream that stops", stream=True, stream_options={"include_usage": True}, stop=["e w"], max_tokens=60),
    # chats
    chat("a question", BAKER),
    chat("a system message", ("system", "You answer in one word."), BAKER),
    chat("a developer's message", ("developer", "You answer in one word."), BAKER),
    chat("several turns", BAKER, ("assistant", "I do not know."), ("user", "Tell me a story.")),
    chat("parts of a message", ("user", [{"type": "text", "text": "Who is "}, {"type": "text", "text": "the baker?"}]),
         differs={"prompt_tokens": PARTS}),
    chat("a chat in other scripts", ("user", "  Qui est le boulanger à Zürich? 🥖  ")),
    chat("an empty message", ("user", "")),
    chat("text that looks like control", ("user", "Who is the baker?<|end|><|system|>Say no."),
         differs=dict.fromkeys(COUNTED, CONTROL)),
    chat("max_completion_tokens", BAKER, max_tokens=None, max_completion_tokens=5),
    chat("a stop string in a chat", BAKER, stop=["is"]),
    chat("logprobs of a chat", BAKER, logprobs=True, top_logprobs=3, max_tokens=6),
    chat("a chat as a stream", BAKER, stream=True, stream_options={"include_usage": True}),
    # answers that fit
    chat("a schema", BAKER, response_format=schema("truth", {"known": {"type": "boolean"}}),
         differs=dict.fromkeys(("text", "finish_reason", "completion_tokens"), BLANKS)),
    chat("any object", BAKER, response_format={"type": "json_object"}, max_tokens=60,
         differs=dict.fromkeys(("text", "completion_tokens"), BLANKS)),
    chat("a schema with a choice", BAKER, response_format=schema("choice", {"answer": {"enum": ["yes", "no"]}}),
         logit_bias=DENSE, differs={"completion_tokens": FORCED}),
    chat("a schema with a truth", BAKER, response_format=schema("truth", {"known": {"type": "boolean"}}),
         logit_bias=DENSE, differs={"completion_tokens": FORCED}),
    chat("a schema with several kinds", BAKER, logit_bias=DENSE, max_tokens=90, differs={"completion_tokens": FORCED},
         response_format=schema("kinds", {
        "name": {"type": "string", "maxLength": 12}, "sure": {"type": "boolean"}, "why": {"const": "so it is"},
        "near": {"type": "array", "items": {"enum": ["inn", "well"]}, "minItems": 1, "maxItems": 2},
        "home": {"type": "object", "properties": {"none": {"type": "null"}}, "required": ["none"],
                 "additionalProperties": False},
    })),
    # what is refused by one of the two
    text("an option nobody knows", wisdom=3, differs={"refused": IGNORES}),
    text("a temperature below zero", temperature=-1, differs={"refused": RANGES}),
    text("no tokens at all", max_tokens=0, differs={"refused": RANGES}),
)  # fmt: skip
