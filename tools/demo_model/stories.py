"""Stories: a plot, a cast and a scene, told anew each time.

`tell(rng, topic)` returns a story in which the topic really occurs; stories of one plot share their course and
differ in people, places, things, weather and wording.
"""

# ruff: noqa: E501 - a row of a table is one line

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tools.demo_model import world
from tools.demo_model.grammar import NUMBERS, choose, say
from tools.demo_model.plots import BANKS, LESSONS, PLOTS, Plot
from tools.demo_model.words import CREATURES, OBJECTS, THINGS, plural
from tools.demo_model.world import Animal, Person, Place, Season

# fmt: off
ITEMS = (
    "key", "ring", "scarf", "map", "hat", "silver key", "red scarf", "golden ring", "wooden spoon", "old map", "blue cup", "brass bell", "warm blanket", "leather book", "little drum",
    "woollen glove", "letter", "straw hat", "lantern", "basket", "umbrella", "pocket watch", "wooden flute", "picture", "red ball", "green bottle", "silver whistle",
)
# fmt: on
# fmt: off
FEARS = (
    "the dark", "deep water", "high places", "thunder", "spiders", "singing in front of others", "the big clock tower", "strangers", "the forest at night", "big dogs",
)
# fmt: on
ENTRIES = {"Kite Festival": "kite", "Boat Race": "boat", "Apple Fair": "giant apple tart", "Lantern Night": "lantern"}


@dataclass(frozen=True, slots=True)
class Topic:
    """What a story shall be about. `said` is how a person asks for it; the rest fixes the scene."""

    said: str = ""
    hero: Person | None = None
    friend: Person | None = None
    pet: Animal | None = None
    place: Place | None = None
    food: str = ""
    season: Season | None = None
    thing: str = ""
    item: str = ""
    theme: str = ""

    def needs(self) -> list[str]:
        """The slots that a plot must use to serve this topic."""
        slots = {"pet": self.pet, "place": self.place, "food": self.food, "thing": self.thing, "item": self.item}
        return ["{" + name for name, value in slots.items() if value]

    def words(self) -> list[str]:
        """What must be found in the text."""
        named = [who.name for who in (self.hero, self.friend, self.pet, self.place, self.season) if who]
        return [word for word in (*named, self.food, self.thing, self.item) if word]


_PLOT = {plot.name: plot for plot in PLOTS}


def any_topic(rng: Random) -> Topic:
    """A topic of any kind, with the words that ask for it."""
    people = list(world.PEOPLE)
    hero, friend = rng.sample(people, 2)
    pet, place = rng.choice(world.ANIMALS), rng.choice(world.PLACES)
    season, food = rng.choice(world.SEASONS), rng.choice(world.FOODS).name
    thing, item = rng.choice(THINGS), rng.choice(ITEMS)
    plot = rng.choice(PLOTS)
    role = hero.role if hero.role != "pupil" else "child"
    named = rng.choice(
        [hero.name, hero.name, f"{hero.name} the {role}", f"the {role}" if role != "child" else hero.name]
    )
    beast = rng.choice([pet.name, f"{pet.name} the {pet.kind}", f"the {pet.kind}", f"a {pet.kind}"])
    kinds: list[tuple[int, Topic]] = [
        (14, Topic(named, hero=hero)),
        (5, Topic(f"{hero.name} and {friend.name}", hero=hero, friend=friend)),
        (10, Topic(beast, pet=pet)),
        (4, Topic(f"{named} and {beast}", hero=hero, pet=pet)),
        (6, Topic(rng.choice(["", f"something that happens {place.at} "]) + f"the {place.name}", place=place)),
        (4, Topic(f"{named} {place.at} the {place.name}", hero=hero, place=place)),
        (3, Topic(f"{hero.name} and the {place.name}", hero=hero, place=place)),
        (3, Topic(f"the {place.name} in {season.name}", place=place, season=season)),
        (2, Topic(f"{named} in {season.name}", hero=hero, season=season)),
        (4, Topic(rng.choice([f"a lost {item}", f"the lost {item}"]), item=item, theme="lost thing")),
        (4, Topic(food, food=food)),
        (4, Topic(season.name, season=season)),
        (9, Topic(rng.choice([f"a {thing}", f"a {thing}", plural(thing), f"the {thing}"]), thing=thing)),
        (3, Topic(f"{hero.name} and a {thing}", hero=hero, thing=thing)),
        (3, Topic(f"a {item}", item=item)),
        (3, Topic(f"{hero.name} and a {item}", hero=hero, item=item)),
        (8, Topic(rng.choice(plot.themes), theme=plot.name)),
        (12, Topic()),
    ]
    return rng.choices([topic for _, topic in kinds], [weight for weight, _ in kinds])[0]


def tell(rng: Random, topic: Topic) -> str:
    """A story that serves the topic: its words occur, the first of them early."""
    while True:
        plot = _plot(rng, topic)
        story = _told(rng, plot, topic)
        early = story[: max(150, len(story) // 3)].lower()
        words = [word.lower() for word in topic.words()]
        told = all(word in story.lower() for word in words) and (not words or any(word in early for word in words))
        if told and (not topic.pet or story.count(topic.pet.name) >= 2):
            return story


def _plot(rng: Random, topic: Topic) -> Plot:
    """A plot that has room for the topic; things and animals want one that turns on them."""
    if topic.theme:
        return _PLOT[topic.theme]
    if topic.thing:
        return _PLOT[rng.choice(_serving(topic.thing))]
    if topic.pet and not topic.hero and rng.random() < 0.6:
        return rng.choice([plot for plot in PLOTS if plot.name in ("lost animal", "mystery", "lost thing", "journey")])
    if topic.item:
        return rng.choice([plot for plot in PLOTS if plot.text.count("{item}") > 3])
    return rng.choice([plot for plot in PLOTS if all(slot in plot.text for slot in topic.needs())])


def _serving(thing: str) -> tuple[str, ...]:
    """The plots in which such a thing can stand: a ring can be found, a dragon only built, told of or painted."""
    drawn = ("tale of a thing", "picture of a thing")
    if thing in OBJECTS:
        return (*drawn, "making a thing", "found thing", "found thing")
    return (*drawn, "making a thing") if thing in CREATURES else drawn


def _told(rng: Random, plot: Plot, topic: Topic) -> str:
    slots = _scene(rng, plot, topic)
    child = f"{slots['hero']} the child", f"{slots['friend']} the child"
    beats = [say(rng, rng.choice(beat), **_banks(rng, slots)) for beat in plot.beats]
    beats = [beat.replace(child[0], slots["hero"]).replace(child[1], slots["friend"]) for beat in beats if beat]
    if rng.random() < 0.15:
        middle = rng.randint(3, len(beats) - 2)
        return " ".join(beats[:middle]) + "\n" + " ".join(beats[middle:])
    return " ".join(beats)


def _banks(rng: Random, slots: dict[str, str]) -> dict[str, str]:
    """The shared phrases, chosen afresh for each beat; a phrase that asks a new choice is never used in it."""
    banks = {name: choose(rng, choose(rng, pattern)) for name, pattern in BANKS.items()}
    open_small = banks["open"][0].lower() + banks["open"][1:]
    if open_small.endswith(" when"):
        open_small = "one morning"
    banks["open_small"] = open_small
    return {**slots, **banks}


def _scene(rng: Random, plot: Plot, topic: Topic) -> dict[str, str]:
    """Cast the plot: people, animal, places and things, the topic's own where it names them."""
    kids_more = [p for p in world.PEOPLE for _ in range(2 if p.child else 1)]
    hero = topic.hero or rng.choice([p for p in kids_more if p != topic.friend])
    if hero.name == "Olga" and plot.name == "tale of a thing":
        hero = topic.hero or world.PEOPLE[5]
    near = [p for p in world.PEOPLE if p != hero]
    likely = [p for p in near if p.name == hero.friend]
    friend = topic.friend or rng.choice(
        likely
        if rng.random() < 0.3
        else [p for p in near if not p.child or plot.name not in ("learning", "sick neighbour")]
    )
    if friend.child and plot.name == "learning":
        friend = rng.choice([p for p in near if not p.child])
    third = rng.choice([p for p in near if p != friend])
    own = [a for a in world.ANIMALS if a.owner in (hero.name, friend.name)]
    pet = topic.pet or (rng.choice(own) if own and rng.random() < 0.5 else rng.choice(world.ANIMALS))
    one, two, three = _places(rng, topic)
    seasons = world.SEASONS[:3] if plot.name == "rescue on the lake" else world.SEASONS
    season = topic.season or rng.choice(seasons)
    food = topic.food or rng.choice(world.FOODS).name
    she = rng.random() < 0.5
    role, frole = ("child" if p.child else p.role for p in (hero, friend))
    fitting = {"found thing": OBJECTS, "visitor": OBJECTS, "making a thing": (*OBJECTS, *CREATURES)}.get(
        plot.name, THINGS
    )
    thing, other = (
        topic.thing or rng.choice(fitting),
        rng.choice(("fox", "swan", "star", "mouse", "bear", "fish", "hare", "bird", "snail", "frog")),
    )
    return {
        "hero": hero.name,
        "he": hero.he,
        "him": hero.him,
        "his": hero.his,
        "role": role,
        "nature": hero.nature,
        "home": hero.home,
        "tool": hero.tool,
        "wears": hero.wears,
        "duty": hero.duty,
        "hobby": hero.hobby,
        "hfood": hero.food,
        "himself": f"{hero.him}self",
        "atwork": _at(hero.work),
        "fatwork": _at(friend.work),
        "friend": friend.name,
        "fhe": friend.he,
        "fhim": friend.him,
        "fhis": friend.his,
        "frole": frole,
        "ftool": friend.tool,
        "ffood": friend.food,
        "third": third.name,
        "pet": pet.name,
        "kind": pet.kind,
        "phe": pet.he,
        "phim": pet.him,
        "phis": pet.his,
        "eats": pet.eats.replace("everything, even hats", "cabbage"),
        "psound": _PAST[pet.sound],
        "tracks": "feathers" if pet.kind in ("duck", "owl", "rooster") else "footprints",
        "place": f"the {one.name}",
        "at": f"{one.at} the {one.name}",
        "to": f"to the {one.name}",
        "place2": f"the {two.name}",
        "at2": f"{two.at} the {two.name}",
        "place3": f"the {three.name}",
        "at3": f"{three.at} the {three.name}",
        "season": season.name,
        "sight": _past(season.sight),
        "sightnow": season.sight[0].upper() + season.sight[1:] + ".",
        "feast": season.feast,
        "entry": ENTRIES[season.feast],
        "food": food,
        "day": rng.choice(world.DAYS).name,
        "days": rng.choice(NUMBERS[2:8]),
        "item": topic.item or rng.choice(ITEMS),
        "thing": thing,
        "a_thing": f"a {thing}",
        "othername": other if other != thing else "swan",
        "she": "she" if she else "he",
        "her": "her" if she else "him",
        "herarm": "her" if she else "his",
        "fear": FEARS[(first := rng.randrange(len(FEARS)))],
        "fear2": FEARS[first - 1],
        "lesson": (lesson := rng.choice(LESSONS[plot.name])),
        "moralnow": lesson[0].upper() + lesson[1:] + ".",
    }


# fmt: off
_PAST = {
    "barks": "barked", "purrs": "purred", "moos": "mooed", "brays": "brayed", "bleats": "bleated", "squeaks": "squeaked", "crows": "crowed",
    "sighs": "sighed", "neighs": "neighed", "hoots": "hooted", "quacks": "quacked",
}
# fmt: on


def _places(rng: Random, topic: Topic) -> tuple[Place, Place, Place]:
    others = [place for place in world.PLACES if place != topic.place]
    one, two, three = rng.sample(others, 3)
    return topic.place or one, two, three


def _at(name: str) -> str:
    place = next(place for place in world.PLACES if place.name == name)
    return f"{place.at} the {place.name}"


def _past(sight: str) -> str:
    """The season's sight as it was."""
    for now, then in (
        ("turn ", "turned "),
        ("turns ", "turned "),
        (" is ", " was "),
        ("freezes", "froze"),
        (" are ", " were "),
    ):
        sight = sight.replace(now, then)
    return sight
