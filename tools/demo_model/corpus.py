"""The corpus: chats and plain stories about Larkmere, written by a seeded generator without end.

`documents(seed)` yields documents, each a list of `(role, text)` pairs. The roles are those of the chat template
(`system`, `user`, `assistant`); plain text, for completion without a chat, has the role `text`.
"""

# ruff: noqa: E501 - a row of a table is one line

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random

from tools.demo_model import questions, stories, talk, world
from tools.demo_model.grammar import number, say
from tools.demo_model.questions import Item
from tools.demo_model.words import STRANGERS

Turns = list[tuple[str, str]]

# fmt: off
SYSTEMS = (
    "You are a helpful assistant.", "You are the HAIF demo model.", "You are a friendly storyteller.", "You are a guide to the village of Larkmere.", "Answer in short sentences.",
    "You are a helpful, honest and friendly assistant.", "Be kind and clear.", "You know everything about Larkmere.", "You are a small language model.", "Answer the user's questions.",
    "You are a helpful assistant that runs on a mesh.", "Keep your answers brief.", "You tell stories to children.", "Be polite.", "You are an assistant. Answer briefly and clearly.",
    "You are HAIF, a demo model.", "Speak in simple English.", "You are a concise assistant.", "You are a friendly chatbot.", "Help the user.", "Do not make things up.",
)
# fmt: on

# fmt: off
ASK_STORY = (
    "[Tell me|Please tell me|Can you tell me|Could you tell me|I want to hear|I would like to hear|Tell us|Make up|Write|Please write|Can you write|Write me|Invent] a [|short |little |new |nice |long |funny |bedtime |good ][story|story|story|tale] about {topic}[.|.|.|, please.|!|]",
    "[Do you know|Have you got] a [story|tale] about {topic}?", "[A|Another] [story|tale] about {topic}[.|, please.|!]", "[Story|Story please|Story time]: {topic}", "Tell a story in which {topic} [plays a part|appears].",
    "[I love stories about|What about a story with|Let us have a story about|How about a story about] {topic}[.|?|!]", "Write about {topic}.", "Tell me a story. It should be about {topic}.",
    "Tell me a story with {topic}[.| in it.]", "Once upon a time there was a story about {topic}. Can you tell it?", "Please tell me about an adventure of {topic}.",
)
# fmt: on
# fmt: off
ASK_THING = (
    "[Tell me|Write|I want to hear] something about {topic}[.| in the village.|, please.]", "What happened when {topic} came to the village?", "Imagine {topic} in Larkmere.", "[Tell me about|Write about] {topic} that [lives in|comes to|was found in] the village.",
)
ASK_ANY_STORY = (
    "[Tell me|Please tell me|Can you tell me|Could you tell me|I want to hear|Tell us|Make up|Write|Write me|Can you write] a [|short |little |nice |long |funny |bedtime |good ][story|story|tale][.|, please.|!|]",
    "[A story|Story|Story time|A story please|Another story|One more story][.|!|, please.]", "Do you know a story?", "[Another one|One more|Tell me another one|Again|More][.|, please.|!]", "What happened in Larkmere [yesterday|last week|one day]?",
)
# fmt: on
ANNOUNCE = (
    "",
    "",
    "",
    "",
    "",
    "Here is a story about {topic}. ",
    "Gladly. ",
    "Of course! ",
    "Listen. ",
    "Very well. ",
    "Here is a story. ",
)

GROUPS = questions.all_items()
_SUBJECTS = [name for name in GROUPS if name not in ("food", "time", "village")]


def noisy(rng: Random, text: str) -> str:
    """What people really type: small letters, no full stop, a slip of the finger."""
    for whole, short in (
        ("What is", "What's"),
        ("Who is", "Who's"),
        ("Where is", "Where's"),
        ("village", "town"),
        ("I would", "I'd"),
    ):
        if rng.random() < 0.12:
            text = text.replace(whole, short)
    if text.endswith("?") and rng.random() < 0.06 and "Larkmere" not in text:
        text = text[:-1] + rng.choice(
            [" around here?", " in the village?", " in your village?", " in Larkmere?", " here?", ", please?"]
        )
    if rng.random() < 0.12:
        text = text.lower()
    if rng.random() < 0.12:
        text = text.rstrip(".?! ")
    if rng.random() < 0.03 and len(text) > 8:
        place = rng.randint(1, len(text) - 3)
        text = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
    return text


def reply(rng: Random, item: Item, asked: str, again: bool = False) -> str:
    """The answer to a question that was put in these words; only a request is met with "of course"."""
    request = asked.lower().startswith(("can", "could", "please", "tell", "explain", "describe", "i w"))
    return (rng.choice(questions.OPENERS) if request else "") + item.answer(rng, again)


def one_question(rng: Random) -> Turns:
    """A single question and its answer."""
    pick = rng.random()
    if pick < 0.15:
        asked, answer = questions.yes_or_no(rng)
    elif pick < 0.20:
        asked, answer = questions.lists(rng)
    elif pick < 0.23:
        asked, answer = questions.unknown(rng)
    else:
        name = rng.choice(_SUBJECTS) if pick < 0.70 else rng.choice(("food", "time", "time", "village", "village"))
        item = rng.choice(GROUPS[name])
        asked = item.ask(rng)
        answer = reply(rng, item, asked)
    if rng.random() < 0.03:
        name = rng.choice(STRANGERS)
        asked = say(rng, "[Hello, I am {n}.|My name is {n}.|Hi, {n} here.|I'm {n}.] {q}", n=name, q=asked)
        answer = say(rng, "[Hello, {n}!|Nice to meet you, {n}!|Hi, {n}!]", n=name) + " " + answer
    return [("user", noisy(rng, asked)), ("assistant", answer)]


def two_at_once(rng: Random) -> Turns:
    """A question about two subjects, or for all that is known about one."""
    one, two = rng.sample(_SUBJECTS, 2)
    first, second = (
        say(rng, rng.choice(item.answers), **item.named(False)) for item in (GROUPS[one][0], GROUPS[two][0])
    )
    one, two = (f"the {name}" if name in _PLACES else name for name in (one, two))
    asked = say(
        rng,
        "[Tell me about|What can you tell me about|Who are|Describe|What do you know about|Do you know] {one} and {two}[.|?]",
        one=one,
        two=two,
    )
    return [("user", noisy(rng, asked)), ("assistant", f"{first} {second}")]


def about_one(rng: Random) -> Turns:
    """Several questions about one subject, the later ones by pronoun."""
    items = [item for item in GROUPS[rng.choice(_SUBJECTS)] if item.subject]
    turns: Turns = []
    for index, item in enumerate(rng.sample(items, min(len(items), rng.randint(2, 5)))):
        backwards = not any("{x" in ask for ask in item.asks)
        again = index > 0 and not backwards
        asked = item.ask(rng, again)
        turns += [("user", noisy(rng, asked)), ("assistant", reply(rng, item, asked, again))]
    return turns


def story(rng: Random) -> Turns:
    """A wish for a story, and the story; now and then a question about its people afterwards."""
    topic = stories.any_topic(rng)
    ways: tuple[str, ...] = ASK_STORY if topic.said else ASK_ANY_STORY
    if topic.said == f"a {topic.thing}" and rng.random() < 0.3:
        ways = ASK_THING
    asked = say(rng, rng.choice(ways), topic=topic.said)
    announce = rng.choice(ANNOUNCE)
    announce = (
        "" if not announce or ("{topic}" in announce and not topic.said) else say(rng, announce, topic=topic.said) + " "
    )
    told = long_story(rng, topic) if " long " in asked else stories.tell(rng, topic)
    turns = [("user", noisy(rng, asked)), ("assistant", announce + told)]
    if topic.hero and rng.random() < 0.25:
        more, answer = (
            "[Who was the story about|Who was in the story|Who is the story about|Who was the hero of the story]?",
            "[The story was about|It was a story about|It was about] {n}[, the {role}|].",
        )
        role = "child" if topic.hero.child else topic.hero.role
        turns += [("user", noisy(rng, say(rng, more))), ("assistant", say(rng, answer, n=topic.hero.name, role=role))]
    elif topic.hero and rng.random() < 0.15:
        more = "[What happened then|What happened next|And then|Go on|Continue|Tell me more|Another one about {n}|More about {n}][?|.|, please.]"
        turns += [
            ("user", noisy(rng, say(rng, more, n=topic.hero.name))),
            ("assistant", stories.tell(rng, stories.Topic(hero=topic.hero))),
        ]
    return turns


def long_story(rng: Random, topic: stories.Topic) -> str:
    """Two adventures of one hero."""
    hero = topic.hero or rng.choice(world.PEOPLE)
    joint = rng.choice(
        (
            "But that was not all. ",
            "The next day there was another adventure. ",
            "A week later something else happened. ",
            "",
        )
    )
    return f"{stories.tell(rng, replace(topic, hero=hero))}\n{joint}{stories.tell(rng, stories.Topic(hero=hero))}"


def small(rng: Random, kind: Callable[[Random], tuple[str, str]] | None = None) -> Turns:
    """Small talk, a question from outside, a joke, a verse or a sum."""
    kinds = (talk.small_talk, talk.outside, talk.joke, talk.verse, talk.sums)
    asked, answer = (kind or rng.choices(kinds, (40, 26, 5, 8, 21))[0])(rng)
    return [("user", noisy(rng, asked)), ("assistant", answer)]


def mixed(rng: Random) -> Turns:
    """A longer chat that wanders: a greeting, questions, a story, thanks."""
    turns: Turns = list(talk.names(rng)) if rng.random() < 0.25 else []
    for _ in range(rng.randint(2, 6)):
        turns += rng.choices((one_question, about_one, small, story), (40, 20, 25, 15))[0](rng)
    if rng.random() < 0.1:
        turns += talk.names(rng)
    return turns


def plain(rng: Random) -> Turns:
    """Text without a chat: a story, or a description of somebody, somewhere or some season."""
    if rng.random() < 0.7:
        text = stories.tell(rng, stories.any_topic(rng))
        if rng.random() < 0.35 and not text.startswith(("Once upon", "There")):
            text = "Once upon a time, " + (text if text.split()[0] in _PROPER else text[0].lower() + text[1:])
        return [("text", text)]
    return [("text", description(rng))]


def description(rng: Random) -> str:
    """Some sentences about one subject or about the village."""
    if rng.random() < 0.4:
        people = rng.sample(world.PEOPLE, rng.randint(2, 4))
        first = "Larkmere is a [little|small|quiet] village [between a green hill and a blue lake|by a lake]. [About twenty people live there.|{n} people live there.|Everybody knows everybody.] "
        rest = " ".join(f"{p.name} {p.duty}." for p in people)
        season = rng.choice(world.SEASONS)
        return (
            say(rng, first, n=number(len(world.PEOPLE)))
            + " "
            + rest
            + f" In {season.name}, {season.sight}, and people {season.doing}. The feast of {season.name} is the {season.feast}: {season.feast_about}."
        )
    name = rng.choice(_SUBJECTS)
    items = [item for item in GROUPS[name] if item.subject and any("{x" in ask for ask in item.asks)]
    chosen = rng.sample(items, min(len(items), rng.randint(3, 6)))
    return " ".join(
        say(rng, rng.choice(item.answers), **item.named(index > 0 and rng.random() < 0.8))
        for index, item in enumerate(chosen)
    )


_PLACES = {place.name for place in world.PLACES}
_PROPER = {person.name for person in world.PEOPLE} | {day.name for day in world.DAYS}
KINDS = (
    (one_question, 38),
    (two_at_once, 2),
    (about_one, 16),
    (story, 22),
    (small, 14),
    (mixed, 12),
    (plain, 9),
    (talk.names, 4),
)


def document(rng: Random) -> Turns:
    """One document of the mix."""
    turns = rng.choices([kind for kind, _ in KINDS], [weight for _, weight in KINDS])[0](rng)
    if turns[0][0] == "user" and rng.random() < 0.25:
        turns = [("system", rng.choice(SYSTEMS)), *turns]
    return turns


def documents(seed: int) -> Iterator[Turns]:
    """Documents without end; the same seed yields the same ones."""
    rng = Random(seed)
    while True:
        yield document(rng)


def main() -> None:
    """Print some documents, to be read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--kind", choices=[kind.__name__ for kind, _ in KINDS])
    options = parser.parse_args()
    rng = Random(options.seed)
    kinds = {kind.__name__: kind for kind, _ in KINDS}
    for _ in range(options.count):
        turns = kinds[options.kind](rng) if options.kind else document(rng)
        print("\n".join(f"{role}: {text}" for role, text in turns), end="\n\n")


if __name__ == "__main__":
    main()
