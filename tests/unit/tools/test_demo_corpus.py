"""The demo model's corpus keeps to its facts and to its seed, and the committed model says what it is."""

import re
from collections import Counter
from importlib import import_module
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from tools.demo_model import corpus, plots, questions, stories, talk, world
from tools.demo_model.grammar import listed, number, say

MODEL = Path(__file__).parents[3] / "haif" / "data" / "demo" / "haif-demo-3.7m-f16.gguf"
SAMPLE = list(islice(corpus.documents(4), 3000))


def test_the_same_seed_writes_the_same_corpus() -> None:
    assert list(islice(corpus.documents(9), 50)) == list(islice(corpus.documents(9), 50))
    assert list(islice(corpus.documents(9), 50)) != list(islice(corpus.documents(10), 50))


def test_every_document_is_plain_text_or_a_chat_that_ends_with_an_answer() -> None:
    for turns in SAMPLE:
        roles = [role for role, _ in turns]
        if roles != ["text"]:
            chat = roles[1:] if roles[0] == "system" else roles
            assert chat == ["user", "assistant"] * (len(chat) // 2), turns


def test_what_the_model_shall_say_is_clean_prose() -> None:
    """No leftover of the little language, no doubled blank or stop, no "a apple", quotation marks in pairs."""
    broken = re.compile(r"[\[\]{}|_`]|  | [.,!?]|\.\.|,,|\b[Aa] [aeio]|^\s|\s$")
    for turns in SAMPLE:
        for role, text in turns:
            assert not re.search(r"\|.*\]", text), text
            if role in ("assistant", "text"):
                assert not broken.search(text), text
                assert text
                assert text.count('"') % 2 == 0, text


def test_every_choice_and_every_slot_can_be_resolved() -> None:
    """Each way of saying each fact, each plot and each piece of small talk is tried, not only those a sample meets."""
    rng = Random(1)
    for items in corpus.GROUPS.values():
        for item in items:
            for form in item.asks + item.clauses + item.answers:
                for pronoun in (False, True):
                    assert say(rng, form, **item.named(pronoun))
    for plot in plots.PLOTS:
        for _ in range(30):
            assert stories.tell(rng, stories.Topic(theme=plot.name))
    for _ in range(3000):
        assert talk.small_talk(rng)
        assert talk.outside(rng)


@pytest.mark.parametrize("attribute", ["name", "role", "food", "hobby", "tool", "wears"])
def test_a_question_that_runs_backwards_has_one_answer(attribute: str) -> None:
    values = Counter(getattr(person, attribute) for person in world.PEOPLE if attribute != "role" or not person.child)
    assert [value for value, count in values.items() if count > 1] == []


def test_the_tables_name_only_what_exists() -> None:
    people = {person.name for person in world.PEOPLE}
    places = {place.name for place in world.PLACES}
    assert {person.friend for person in world.PEOPLE} <= people
    assert {person.work for person in world.PEOPLE} <= places
    assert {animal.owner for animal in world.ANIMALS} <= people | {""}
    assert {place.keeper for place in world.PLACES} <= people | {""}
    assert {place.near for place in world.PLACES} <= places
    assert {food.maker for food in world.FOODS} <= people


def test_the_village_counts_itself_rightly() -> None:
    facts = " ".join(answer for _, _, answer in world.ABOUT)
    assert number(len(world.PEOPLE)).capitalize() + " people live in Larkmere" in facts
    assert number(len(world.ANIMALS)).capitalize() + " animals in the village have a name" in facts
    oldest, youngest = max(world.PEOPLE, key=lambda p: p.age), min(world.PEOPLE, key=lambda p: p.age)
    assert f"The oldest person is {oldest.name}" in facts
    assert f"The youngest person is {youngest.name}" in facts


def test_a_story_is_about_what_was_asked_for() -> None:
    rng = Random(2)
    for _ in range(500):
        topic = stories.any_topic(rng)
        story = stories.tell(rng, topic).lower()
        assert [word for word in topic.words() if word.lower() not in story] == []
        assert 40 <= len(story.split()) <= 260


def test_stories_are_rarely_told_twice() -> None:
    told = Counter(stories.tell(rng, stories.Topic()) for rng in [Random(3)] for _ in range(500))
    assert max(told.values()) == 1


def test_no_and_yes_are_both_said_and_no_is_followed_by_the_truth() -> None:
    answers = [questions.yes_or_no(Random(seed))[1] for seed in range(400)]
    yes, no = (sum(answer.startswith(word) for answer in answers) for word in ("Yes", ("No", "I do not think so")))
    assert yes > 100
    assert no > 100


def test_sums_are_right() -> None:
    for seed in range(300):
        asked, answer = talk.sums(Random(seed))
        text = asked.lower().replace("plus", "+").replace("minus", "-")
        for value in range(20, -1, -1):
            text = text.replace(number(value), str(value))
        one, sign, two = re.search(r"(\d+) ?([+-]) ?(\d+)", text).groups()
        total = int(one) + int(two) if sign == "+" else int(one) - int(two)
        assert answer.rstrip(".").endswith(number(total)), asked


def test_the_little_language() -> None:
    assert (
        say(Random(0), "{a} [saw|saw] a {b}. [it|it] was {c}!", a="ada", b="owl", c="a hat")
        == "Ada saw an owl. It was a hat!"
    )
    assert say(Random(0), '"hello!" said {A}.', a="ada").endswith("said Ada.")
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert [number(value) for value in (0, 9, 20, 41, 81)] == ["zero", "nine", "twenty", "forty-one", "eighty-one"]
    with pytest.raises(KeyError):
        say(Random(0), "{nobody}")
    with pytest.raises(ValueError, match="holds itself"):
        say(Random(0), "{a}", a="{a}")


@pytest.fixture(scope="module")
def header() -> dict[str, object]:
    gguf = pytest.importorskip("gguf")
    if not MODEL.exists():
        pytest.skip("the demo model is not in this checkout")
    reader = gguf.GGUFReader(MODEL)
    return {name: field.contents() for name, field in reader.fields.items()}


def test_the_committed_model_is_small(header: dict[str, object]) -> None:
    assert MODEL.stat().st_size <= 8_000_000


def test_the_committed_model_is_a_llama_of_1024_positions(header: dict[str, object]) -> None:
    expected = {"general.architecture": "llama", "llama.context_length": 1024, "llama.block_count": 4}
    assert {key: header[key] for key in expected} == expected


def test_the_committed_model_stops_at_the_end_of_a_turn(header: dict[str, object]) -> None:
    tokens = header["tokenizer.ggml.tokens"]
    assert tokens[header["tokenizer.ggml.eos_token_id"]] == "<|end|>"
    assert tokens[header["tokenizer.ggml.bos_token_id"]] == "<s>"
    assert tokens[3:6] == ["<|user|>", "<|assistant|>", "<|system|>"]
    assert "<0x00>" in tokens


def test_the_committed_chat_template_puts_each_turn_between_its_marks(header: dict[str, object]) -> None:
    jinja2 = pytest.importorskip("jinja2")
    template = jinja2.Template(header["tokenizer.chat_template"])
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": " Hi! "}]
    shown = template.render(messages=messages, bos_token="<s>", add_generation_prompt=True)
    assert shown == "<s><|system|>Be kind.<|end|><|user|>Hi!<|end|><|assistant|>"


def test_llama_cpp_quantises_the_committed_model(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    quantise, sibling = (getattr(import_module("tools.demo_model.quantise"), name) for name in ("quantise", "sibling"))
    if not MODEL.exists():
        pytest.skip("the demo model is not in this checkout")
    sizes = [quantise(MODEL, sibling(MODEL, tmp_path, name), name).stat().st_size for name in ("Q8_0", "Q4_K_M")]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] < MODEL.stat().st_size
    with pytest.raises(ValueError, match="no quantisation is called"):
        quantise(MODEL, tmp_path / "x.gguf", "Q99")
    assert not list(tmp_path.glob("*.part"))
