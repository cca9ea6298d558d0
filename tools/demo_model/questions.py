"""Questions about Larkmere and their answers, each in many forms, all drawn from the tables of `world`.

An `Item` is one fact. Its forms may use `{x}`, `{xs}` and `{xo}`: the subject by name in a first question and by
pronoun in a later one ("Where does Ada work?" ... "And what does she like to eat?").
"""

# ruff: noqa: E501 - a row of a table is one line

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from tools.demo_model import world
from tools.demo_model.grammar import choose, listed, number, say
from tools.demo_model.world import Animal, Person, Place

# fmt: off
WRAPS = (
    "[Can|Could] you tell me {e}?", "Do you know {e}?", "Tell me {e}.", "Please tell me {e}.", "I would like to know {e}.",
    "I want to know {e}.", "Explain {e}.", "[I wonder|I was wondering] {e}.", "Can you explain {e}?", "Do you happen to know {e}?", "I would love to know {e}.", "Let me know {e}.", "Could you please tell me {e}?",
)
# fmt: on
LEADS = (
    "",
    "",
    "",
    "",
    "",
    "",
    "Hi! ",
    "Hello, ",
    "Excuse me, ",
    "Hey, ",
    "Okay, ",
    "I have a question. ",
    "Tell me, ",
    "Quick question: ",
    "Well, ",
    "So ",
)
AGAIN = ("", "", "", "And ", "And ", "Then ", "Also, ", "Okay. ", "Thanks! ", "Good. ", "I see. ", "Nice! ")
OPENERS = ("", "", "", "", "", "", "", "", "", "", "", "", "Of course. ", "Certainly. ", "Gladly. ")


_SPOUSE = {"she": "husband", "he": "wife"}


@dataclass(frozen=True, slots=True)
class Item:
    """One fact: direct questions, the same as clauses (for "do you know ..."), answers, and who it is about."""

    asks: tuple[str, ...]
    clauses: tuple[str, ...]
    answers: tuple[str, ...]
    subject: str = ""
    slots: dict[str, str] = field(default_factory=dict)

    def ask(self, rng: Random, again: bool = False) -> str:
        """A question; with `again`, the subject has been named before and may be a pronoun."""
        slots = self.named(again and rng.random() < 0.8)
        if "title" in slots and not again and rng.random() < 0.15:
            slots |= {"x": slots["title"], "xo": slots["title"], "xs": slots["title"] + "'s"}
        if self.clauses and rng.random() < 0.35:
            return say(rng, rng.choice(WRAPS), e=say_clause(rng, rng.choice(self.clauses), slots))
        lead = rng.choice(AGAIN if again else LEADS)
        question = say(rng, rng.choice(self.asks), **slots)
        return lead + (
            question[0].lower() + question[1:]
            if lead[-2:] in (", ", ": ") or lead in ("And ", "Then ", "So ")
            else question
        )

    def answer(self, rng: Random, again: bool = False) -> str:
        """One to three sentences."""
        return say(rng, rng.choice(self.answers), **self.named(again and rng.random() < 0.7))

    def named(self, pronoun: bool) -> dict[str, str]:
        """The slots, with the subject by name or by pronoun."""
        if not self.subject:
            return self.slots
        name, he, him, his = self.subject, self.slots["he"], self.slots["him"], self.slots["his"]
        mine = {"x": he, "xo": him, "xs": his} if pronoun else {"x": name, "xo": name, "xs": f"{name}'s"}
        return {**self.slots, **mine}


def say_clause(rng: Random, clause: str, slots: dict[str, str]) -> str:
    """A clause keeps its small first letter, which `say` would raise."""
    text = say(rng, "- " + clause, **slots)
    return text[2:]


def person_items(who: Person) -> list[Item]:
    """Everything there is to ask about one person."""
    slots = {
        "he": who.he,
        "him": who.him,
        "his": who.his,
        "age": number(who.age),
        "role": who.role,
        "work": who.work,
        "duty": who.duty,
        "home": who.home,
        "nature": who.nature,
        "food": who.food,
        "hobby": who.hobby,
        "tool": who.tool,
        "wears": who.wears,
        "friend": who.friend,
        "at": _place(who.work),
        "family": _family(who.name),
        "pet": _pet(who.name),
        **({} if who.child else {"title": f"the {who.role}"}),
        "kin1": "mother" if who.child else _SPOUSE[who.he],
        "kin2": "father" if who.child else _SPOUSE[who.he],
        "the_role": f"a {who.role}" if who.child else f"the {who.role}",
        "kin": "child" if who.child else "grown-up",
    }

    def item(asks: str, clauses: str, answers: str) -> Item:
        return Item(_forms(asks), _forms(clauses), _forms(answers), who.name, slots)

    items = [
        item(
            "Who is {x}? / Who is {x}? / {x}? / {x} / What can you tell me about {xo}? / Tell me about {xo}. / Tell me all about {xo}. / Give me some information about {xo}. / Describe {xo}. / Tell me something about {xo}. / "
            "What do you know about {xo}? / I want to know more about {xo}. / Introduce {xo}.",
            "who {x} is / something about {xo} / more about {xo}",
            "{x} is {the_role} of {village}. {He} {duty} and lives {home}. / {x} is {the_role}, a {nature} person who {duty}. {He} likes {hobby} [and loves {food}|]. / "
            "{x} is {age} years old and works {at} as {the_role}. {He} lives {home}. / {x} is {the_role} of the village. {He} is {nature}, and {he} likes {hobby}. {His} best friend is {friend}."
            if not who.child
            else "{x} is one of the children of {village}. {He} is {age} years old, and {he} likes {hobby}. / {x} is a {nature} child of {age}. {family} / "
            "{x} is {age} years old and goes to school. {He} lives {home} and loves {food}. / {x} is a {nature} child who likes {hobby}. {His} best friend is {friend}.",
        ),
        item(
            "What does {x} do? / What does {x} do for a living? / What is {xs} [job|trade|work]? / What kind of work does {x} do? / What does {x} do [every day|all day]? / What is {x}?",
            "what {x} does / what {xs} job is / what {x} does [all day|for a living]",
            "{x} is {the_role} of {village}. {He} {duty}. / {x} is {the_role}: {he} {duty}. / {x} {duty}. / {x} works {at}, where {he} {duty}."
            if not who.child
            else "{x} is only {age} years old, so {he} goes to school. / {x} is a child. {He} {duty}, and in {his} free time {he} likes {hobby}. / {x} is a pupil and {duty}.",
        ),
        item(
            "Where does {x} work? / Where can I find {xo} [during the day|in the morning|at work|]? / Where is {x} [during the day|in the morning|now]? / Where should I look for {xo}?",
            "where {x} works / where to find {xo} / where I can find {xo}",
            "{x} works {at}. / You can find {xo} {at}. / {x} is usually {at}, where {he} {duty}."
            if not who.child
            else "You can find {xo} at the school in the morning. / {x} is usually at the school, and later {he} plays with {friend}.",
        ),
        item(
            "Where does {x} live? / Where is {xs} [home|house]? / Where does {x} sleep? / Where can I visit {xo}?",
            "where {x} lives / where {xs} [home|house] is",
            "{x} lives {home}. / {xs} home is {home}. / You will find {xs} home {home}.",
        ),
        item(
            "What does {x} like to eat? / What is {xs} favourite food? / What food does {x} like [best|most]? / What does {x} love to eat? / What should I cook for {xo}?",
            "what {x} likes to eat / what {xs} favourite food is / which food {x} likes best",
            "{x} likes {food} best. / {xs} favourite food is {food}. / {x} loves {food}. / Nothing makes {xo} happier than {food}.",
        ),
        item(
            "What does {x} like to do? / What does {x} enjoy doing? / What is {xs} hobby? / What does {x} do [in the evening|for fun|in {his} free time|on Sundays]? / What does {x} enjoy? / How does {x} spend {his} free time?",
            "what {x} does for fun / what {xs} hobby is / how {x} spends {his} free time",
            "{x} likes {hobby}. / In {his} free time, {x} enjoys {hobby}. / {xs} hobby is {hobby}. / After a long day {x} likes {hobby}.",
        ),
        item(
            "What is {x} like? / What kind of person is {x}? / Is {x} nice? / How would you describe {xo}?",
            "what {x} is like / what kind of person {x} is",
            "{x} is {nature}. / {x} is a {nature} person. Everybody likes {him}. / {x} is {nature}, and {his} best friend is {friend}. / People say that {x} is {nature}.",
        ),
        item(
            "How old is {x}? / What is {xs} age? / What age is {x}?",
            "how old {x} is",
            "{x} is {age} years old. / {x} is {age}.",
        ),
        item(
            "Who is {xs} [best friend|friend]? / Does {x} have a [best |]friend? / Who does {x} like best? / Who are {xs} friends?",
            "who {xs} best friend is",
            "{xs} best friend is {friend}. / {x} is good friends with {friend}. / {friend} is {xs} best friend.",
        ),
        item(
            "What does {x} wear? / What clothes does {x} wear? / How can I recognise {xo}? / What does {x} look like?",
            "what {x} wears / how I can recognise {xo}",
            "{x} wears {wears}. / It is easy to know {xo}: {he} wears {wears}. / {x} always wears {wears}.",
        ),
        item(
            "What tool does {x} use? / What does {x} carry? / What does {x} need for {his} work? / What is {xs} most important thing?",
            "what {x} uses / which tool {x} uses",
            "{x} uses a {tool}. / {x} never goes anywhere without {his} {tool}. / The most important thing for {xo} is {his} {tool}.",
        ),
        item(
            "Does {x} have [a family|children|brothers or sisters|parents]? / Tell me about {xs} family. / Who is in {xs} family? / Who are {xs} [parents|relatives]? / Is {x} married? / Who is {xs} [{kin1}|{kin2}]? / Who is {x} married to? / Who is married to {xo}?",
            "something about {xs} family / who is in {xs} family",
            "{family}",
        ),
        item(
            "Does {x} have [a pet|an animal|any animals]? / What animal does {x} have? / Which animal belongs to {xo}? / What pet does {x} have? / Which pet does {x} own? / Does {x} own an animal?",
            "whether {x} has a pet / which animal {x} has",
            "{pet}",
        ),
    ]
    backwards = [
        ("Who [lives|sleeps] {home}?", "who lives {home}", "{dwellers}"),
        (
            "Who [likes|loves|enjoys] {hobby}? / Whose hobby is {hobby}?",
            "who likes {hobby}",
            "{x} likes {hobby}. / It is {x} who enjoys {hobby}. / That is {x}. {He} likes {hobby}.",
        ),
        (
            "Who [likes|loves|likes to eat] {food}? / Whose favourite food is {food}?",
            "who likes {food} best",
            "{x} loves {food}. / {xs} favourite food is {food}. / That is {x}. {He} loves {food}.",
        ),
        (
            "Who [has|uses|needs|carries] a {tool}?",
            "who uses a {tool}",
            "{x} has a {tool}. / The {tool} belongs to {xo}. / {x} uses a {tool}.",
        ),
        ("Who wears {wears}?", "who wears {wears}", "{x} wears {wears}. / That is {x}, {the_role}."),
    ]
    if not who.child:
        backwards += [
            (
                "Who is the {role}? / Who is the {role} of {village}? / What is the name of the {role}? / What is the {role} called? / How is the {role} called? / Which person is the {role}? / I am looking for the {role}. / Do you have a {role}? / Is there a {role}? / Who works as a {role}? / I need a {role}.",
                "who the {role} is / the name of the {role}",
                "The {role} [of {village}|of the village|] is {x}. / {x} is the {role}[ of {village}|]. / The {role} is called {x}. {He} {duty}.",
            ),
            (
                "Who {duty}?",
                "who {duty}",
                "{x} {duty}. / {x} does. {He} is the {role}. / That is the work of {xo}, the {role}.",
            ),
            (
                "Who works {at}? / Who [can I meet|is] {at}?",
                "who works {at}",
                "{x} works {at}. / You will meet {xo} {at}. {He} is the {role}. / {x}, the {role}, works {at}.",
            ),
        ]
    dwellers = [p.name for p in world.PEOPLE if p.home == who.home]
    slots["village"] = "Larkmere"
    slots["dwellers"] = f"{listed(dwellers)} {'lives' if len(dwellers) == 1 else 'live'} {who.home}."
    return items + [item(*forms) for forms in backwards]


def animal_items(pet: Animal) -> list[Item]:
    """Everything there is to ask about one animal."""
    owner = f"{{x}} belongs to {pet.owner}." if pet.owner else "{x} belongs to nobody. {He} is free."
    slots = {
        "he": pet.he,
        "him": pet.him,
        "his": pet.his,
        "kind": pet.kind,
        "look": pet.look,
        "home": pet.home,
        "eats": pet.eats,
        "nature": pet.nature,
        "habit": pet.habit,
        "sound": pet.sound,
        "owned": f"{pet.owner}'s {pet.kind}" if pet.owner else f"a wild {pet.kind}",
        "owner": pet.owner or "nobody",
        "title": f"the {pet.kind}",
    }

    def item(asks: str, clauses: str, answers: str) -> Item:
        return Item(_forms(asks), _forms(clauses), _forms(answers), pet.name, slots)

    return [
        item(
            "Who is {x}? / What is {x}? / {x} / Tell me about {xo}. / What can you tell me about {xo}? / Describe {xo}. / What kind of animal is {x}? / Is {x} a person?",
            "who {x} is / what kind of animal {x} is / more about {xo}",
            "{x} is {owned}. {He} is {look}. / {x} is a {nature} {kind}. {He} {habit}. / {x} is {owned}. {He} lives {home} and loves {eats}. / {x} is a {kind}, {look}. {He} {habit}.",
        ),
        item(
            "Where does {x} [live|sleep]? / Where can I find {xo}? / Where is {x}?",
            "where {x} lives / where to find {xo}",
            "{x} lives {home}. / You can find {xo} {home}. / {x} is usually {home}.",
        ),
        item(
            "What does {x} eat? / What does {x} like to eat? / What should I feed {xo}? / What is {xs} favourite food?",
            "what {x} eats / what to feed {xo}",
            "{x} eats {eats}. / {x} likes {eats} best. / Give {xo} {eats}, and {he} will be happy.",
        ),
        item(
            "What does {x} look like? / What colour is {x}? / How can I recognise {xo}?",
            "what {x} looks like / what colour {x} is",
            "{x} is {look}. / {x} is a {kind}, {look}.",
        ),
        item(
            "Whose {kind} is {x}? / Who owns {xo}? / Who does {x} belong to? / Who looks after {xo}? / Who is {xs} owner?",
            "who owns {xo} / who {x} belongs to",
            owner,
        ),
        item(
            "What is {x} like? / Is {x} [friendly|dangerous|nice]? / What does {x} do [all day|]? / What is special about {xo}?",
            "what {x} is like / what {x} does",
            "{x} is {nature}. {He} {habit}. / {x} is a {nature} {kind} and {habit}. / {x} {habit}.",
        ),
        item(
            "What sound does {x} make? / What noise does {x} make? / What does {x} say?",
            "what sound {x} makes",
            "{x} is a {kind}, so {he} {sound}. / {x} {sound}.",
        ),
        item(
            "[Which|What] animal lives {home}? / Who lives {home}? / [Which|What] animal eats {eats}?",
            "which animal lives {home} / which animal eats {eats}",
            "{x}, the {kind}, lives {home} and eats {eats}. / That is {x}, the {kind}. {He} lives {home} and eats {eats}.",
        ),
        item(
            "Who {habit}? / Which animal {habit}?",
            "who {habit} / which animal {habit}",
            "{x}, the {kind}, {habit}. / That is {x}, the {kind}.",
        ),
        item(
            "What is the name of the {kind}? / What is the {kind} called? / Is there a {kind} in the village? / Does anybody have a {kind}? / Tell me about the {kind}.",
            "the name of the {kind} / whether there is a {kind} in the village",
            "The {kind} is called {x}. {He} is {look}. / There is a {kind} called {x}. {He} lives {home}. / The {kind} of the village is {x}, who {habit}.",
        ),
    ]


def place_items(place: Place) -> list[Item]:
    """Everything there is to ask about one place."""
    keeper = next((p for p in world.PEOPLE if p.name == place.keeper), None)
    name = f"the {place.name}"
    slots = {
        "he": "it",
        "him": "it",
        "his": "its",
        "where": place.where,
        "look": place.look,
        "use": place.use,
        "near": place.near,
        "place": place.name,
        "at": f"{place.at} the {place.name}",
        "keeper": f"{keeper.name}, the {keeper.role}," if keeper else "nobody",
        "stands": "lies"
        if place.name in ("lake", "forest", "meadow", "market square", "hill", "orchard", "garden", "ferry", "jetty")
        else "stands",
    }

    def item(asks: str, clauses: str, answers: str) -> Item:
        # "the bakery" has no possessive worth asking with; {xs} is not used for places
        return Item(_forms(asks), _forms(clauses), _forms(answers), name, slots)

    items = [
        item(
            "Where is {x}? / Where is {x}? / How do I get to {xo}? / How can I find {xo}? / Where can I find {xo}? / What is the way to {xo}? / How do I reach {xo}? / I am looking for {xo}. / Show me the way to {xo}.",
            "where {x} is / how to get to {xo} / the way to {xo}",
            "{x} {stands} {where}. / {x} is {where}[, not far from the {near}|]. / You will find {xo} {where}. / Walk to the {near}, and you will see {xo}. It is {where}.",
        ),
        item(
            "What is {x}? / What does {x} look like? / {x}? / Describe {xo}. / Give me some information about {xo}. / Tell me about {xo}. / What can you tell me about {xo}?",
            "what {x} looks like / what {x} is like / something about {xo}",
            "{x} is {look}. / {x} is {look}. It {stands} {where}. / {x} is {look}, and people go there to {use}.",
        ),
        item(
            "What can I do {at}? / What do people do {at}? / Why do people go to {xo}? / What is {x} for? / What happens {at}?",
            "what people do {at} / why people go to {xo}",
            "{At} you can {use}. / People go to {xo} to {use}. / {x} is the place to {use}.",
        ),
        item(
            "What is near {xo}? / What is next to {xo}? / What is close to {xo}?",
            "what is near {xo}",
            "{x} is near the {near}. / The {near} is close to {xo}. / Near {xo} you will find the {near}.",
        ),
        item(
            "Where can I {use}? / Where do people {use}? / Where should I go to {use}?",
            "where I can {use} / where people {use}",
            "You can {use} {at}. / Go to {xo}. It {stands} {where}. / {x} is the place to {use}.",
        ),
    ]
    if keeper:
        items.append(
            item(
                "Who works {at}? / Who looks after {xo}? / Who is {at}?",
                "who works {at} / who looks after {xo}",
                "{keeper} works {at}. / You will meet {keeper} {at}. / {keeper} looks after {xo}.",
            )
        )
    return items


def food_items() -> list[Item]:
    """Recipes, and who makes what."""
    items = []
    for food in world.FOODS:
        maker = next(p for p in world.PEOPLE if p.name == food.maker)
        slots = {
            "he": "they" if food.plural else "it",
            "him": "them" if food.plural else "it",
            "his": "their" if food.plural else "its",
            "maker": maker.name,
            "role": maker.role,
            "mhe": maker.he,
            "of": food.of,
            "how": food.how,
            "taste": food.taste,
            "is": "are" if food.plural else "is",
            "tastes": "taste" if food.plural else "tastes",
            "season": food.season,
            "makes": "grows" if food.plural else "makes",
            "make": "grow" if food.plural else "make",
            "made": "grown" if food.plural else "made",
            "it": "them" if food.plural else "it",
            "does": "do" if food.plural else "does",
        }
        rows = [
            (
                "Who {makes} {x}? / Who {makes} the {x}? / Where does {x} come from? / Who is good at making {x}?"
                if not food.plural
                else "Who {makes} {x}? / Where do {x} come from?",
                "who {makes} {x}",
                "{maker}, the {role}, {makes} {xo}. / {maker} {makes} {xo}. / {x} {is} {made} by {maker}[, the {role}|].",
            ),
            (
                "How {is} {x} {made}? / How do you {make} {x}? / How does {maker} {make} {x}? / What is the recipe for {x}? / How do they {make} {x}? / How do people {make} {x} [here|]? / How can I {make} {x}?",
                "how {x} {is} {made} / how to {make} {x} / how {maker} {makes} {x}",
                "{maker} {makes} {xo} like this: {how}. / This is how {maker} {makes} {xo}: {how}. / You need {of}. {maker} says that {how}.",
            ),
            (
                "What {is} {x} made of? / What is in {xo}? / What do I need for {x}?",
                "what {x} {is} made of / what is in {xo}",
                "{x} {is} made of {of}. / You need {of}. / For {xo} you need {of}.",
            ),
            (
                "What {does} {x} taste like? / {Is} {x} good? / How {does} {x} taste?",
                "how {x} {tastes}",
                "{x} {tastes} {taste}. / {x} {is} {taste}. Everybody likes {it}.",
            ),
        ]
        if food.season:
            rows.append(
                (
                    "When {is} {x} best? / When can I get {x}? / In which season do people eat {x}?",
                    "when {x} {is} best",
                    "{x} {is} best in {season}. / The best time for {x} is {season}.",
                )
            )
        items += [Item(_forms(a), _forms(c), _forms(r), food.name, slots) for a, c, r in rows]
    return items


def time_items() -> list[Item]:
    """Days, seasons, weather and feasts."""
    items = []
    days = [day.name for day in world.DAYS]
    for index, day in enumerate(world.DAYS):
        slots = {
            "day": day.name,
            "custom": day.custom,
            "where": day.where,
            "after": days[(index + 1) % 7],
            "before": days[index - 1],
        }
        rows = [
            (
                "What happens on {day}? / What do people do on {day}? / What is special about {day}? / What is on {day}? / Is there anything to do on {day}? / What can I do on {day}s? / What happens on {day}s?",
                "what happens on {day} / what people do on {day}",
                "On {day}, {custom} {where}. / Every {day}, {custom} {where}.",
            ),
            (
                "Which day comes after {day}? / What day is after {day}? / What comes after {day}?",
                "which day comes after {day}",
                "{after} comes after {day}. / The day after {day} is {after}. / After {day} comes {after}.",
            ),
            (
                "Which day comes before {day}? / What day is before {day}?",
                "which day comes before {day}",
                "{before} comes before {day}. / The day before {day} is {before}.",
            ),
        ]
        items += [Item(_forms(a), _forms(c), _forms(r), slots=slots) for a, c, r in rows]
    seasons = [season.name for season in world.SEASONS]
    for index, season in enumerate(world.SEASONS):
        slots = {
            "season": season.name,
            "weather": season.weather,
            "sight": season.sight,
            "doing": season.doing,
            "feast": season.feast,
            "about": season.feast_about,
            "clothes": season.clothes,
            "after": seasons[(index + 1) % 4],
            "before": seasons[index - 1],
        }
        rows = [
            (
                "What is the weather like in {season}? / How is the weather in {season}? / What is {season} like? / Is it [warm|cold] in {season}? / What weather does {season} bring?",
                "what the weather is like in {season} / what {season} is like",
                "In {season} there is {weather}. / {season} brings {weather}, and {sight}. / {season} in Larkmere means {weather}.",
            ),
            (
                "What do people do in {season}? / What can I do in {season}? / What do the children do in {season}? / What should we do in {season}? / What is there to do in {season}? / How do people spend the {season}?",
                "what people do in {season}",
                "In {season} people {doing}. / In {season} you can {doing}. / People like to {doing} in {season}.",
            ),
            (
                "What does the village look like in {season}? / How does Larkmere look in {season}? / Tell me about {season}. / Tell me about {season} in Larkmere. / Describe {season} in the village.",
                "how the village looks in {season} / something about {season}",
                "In {season} {sight}. / {season} brings {weather}. People {doing}, and {sight}. / In {season} {sight}, and people {doing}.",
            ),
            (
                "What feast is there in {season}? / Is there a feast in {season}? / Which festival do people celebrate in {season}? / Which [feast|festival] is celebrated in {season}? / What do people celebrate in {season}?",
                "which feast there is in {season}",
                "In {season} people celebrate the {feast}: {about}. / The feast of {season} is the {feast}. Then {about}.",
            ),
            (
                "What is the {feast}? / What happens at the {feast}? / Tell me about the {feast}. / Describe the {feast}. / What do you know about the {feast}? / {feast}?",
                "what the {feast} is / what happens at the {feast}",
                "At the {feast}, {about}. / The {feast} is the feast of {season}: {about}. / The {feast} is in {season}. Then {about}.",
            ),
            (
                "When is the {feast}? / In which season is the {feast}?",
                "when the {feast} is",
                "The {feast} is in {season}. / People celebrate the {feast} in {season}.",
            ),
            (
                "What should I wear in {season}? / What do people wear in {season}? / What clothes do I need in {season}?",
                "what to wear in {season}",
                "In {season} people wear {clothes}. / You need {clothes} in {season}.",
            ),
            (
                "Which season comes after {season}? / What comes after {season}?",
                "which season comes after {season}",
                "{after} comes after {season}. / After {season} comes {after}.",
            ),
            (
                "Which season comes before {season}?",
                "which season comes before {season}",
                "{before} comes before {season}.",
            ),
        ]
        items += [Item(_forms(a), _forms(c), _forms(r), slots=slots) for a, c, r in rows]
    return items


def fixed_items() -> list[Item]:
    """The tables of whys, hows and general facts."""
    rows = (*world.WHYS, *world.HOWS, *world.ABOUT)
    return [Item((question,), (clause,), (answer,)) for question, clause, answer in rows]


def yes_or_no(rng: Random) -> tuple[str, str]:
    """A question that wants a yes or a no, half of them each, with what is true added after a no."""
    who, other = rng.sample([p for p in world.PEOPLE if not p.child], 2)
    pet, beast = rng.sample(world.ANIMALS, 2)
    true = rng.random() < 0.5
    kind = rng.randrange(7)
    slots = {
        "x": who.name,
        "he": who.he,
        "his": who.his,
        "role": who.role,
        "other": other.name,
        "wrong": other.role,
        "village": "Larkmere",
    }
    if kind == 0:
        question, yes, no = (
            "Is {x} [the|a] {claim}?",
            "Yes, {x} is the {role}[ of {village}|].",
            "No, {x} is the {role}. The {wrong} is {other}.",
        )
        slots["claim"] = who.role if true else other.role
    elif kind == 1:
        question, yes, no = "Does {x} work {claim}?", "Yes, {x} works {right}.", "No, {x} works {right}."
        slots |= {"right": _place(who.work), "claim": _place(who.work if true else other.work)}
    elif kind == 2:
        question, yes, no = (
            "Does {x} [like|love|eat] {claim}?",
            "Yes, {x} loves {right}.",
            "[No|I do not think so], {x} likes {right} best. {claim_big} [is the favourite food of|is loved by] {other}.",
        )
        slots |= {
            "right": who.food,
            "claim": who.food if true else other.food,
            "claim_big": other.food[0].upper() + other.food[1:],
        }
        if other.food.endswith(("ies", "toes", "buns")):
            no = "No, {x} likes {right} best."
    elif kind == 3:
        question, yes, no = (
            "Is {pet} a {claim}?",
            "Yes, {pet} is a {kind}, {look}.",
            "No, {pet} is a {kind}. The {wrongkind} is called {beast}.",
        )
        slots |= {
            "pet": pet.name,
            "kind": pet.kind,
            "look": pet.look,
            "claim": pet.kind if true else beast.kind,
            "wrongkind": beast.kind,
            "beast": beast.name,
        }
    elif kind == 4:
        older = who.age > other.age
        question, yes, no = (
            "Is {x} [older|younger]_ than {other}?",
            "Yes, {x} is {a} and {other} is {b}.",
            "No, {x} is {a} and {other} is {b}.",
        )
        word = "older" if older == true else "younger"
        question = question.replace("[older|younger]_", word)
        slots |= {"a": number(who.age), "b": number(other.age)}
    elif kind == 5:
        elder, younger = (who, other) if who.age > other.age else (other, who)
        question, yes, no = (
            "Who is [older|the elder], {x} or {other}?",
            "{elder} is older. {Ehe} is {a}, and {younger} is {b}.",
            "",
        )
        slots |= {
            "elder": elder.name,
            "ehe": elder.he,
            "younger": younger.name,
            "a": number(elder.age),
            "b": number(younger.age),
        }
        true = True
    else:
        question, yes, no = "Does {x} live {claim}?", "Yes, {x} lives {right}.", "No, {x} lives {right}."
        true = true or who.home == other.home
        slots |= {"right": who.home, "claim": who.home if true else other.home}
    return say(rng, question, **slots), say(rng, yes if true else no, **slots)


# fmt: off
UNKNOWN = (
    "last name", "phone number", "shoe size", "favourite song", "favourite book", "favourite colour", "birthday", "hair colour", "eye colour", "star sign", "middle name",
    "email address", "salary", "secret", "password", "favourite film", "biggest fear", "dream", "first memory", "address",
)
# fmt: on


def unknown(rng: Random) -> tuple[str, str]:
    """A question about somebody known to which the tables have no answer; the model says so and offers what it has."""
    who = rng.choice(world.PEOPLE)
    question = "[What is|Tell me|Do you know|What's] {x}'s {what}[?|]"
    answer = "[I do not know {x}'s {what}|I am afraid I do not know {x}'s {what}|Nobody has told me {x}'s {what}][.|, but I know that {he} likes {hobby}.|, but I know that {he} {duty}.|, but I know that {he} lives {home}.]"
    slots = {
        "x": who.name,
        "what": rng.choice(UNKNOWN),
        "he": who.he,
        "hobby": who.hobby,
        "duty": who.duty,
        "home": who.home,
    }
    return say(rng, question, **slots), say(rng, answer, **slots)


def lists(rng: Random) -> tuple[str, str]:
    """A wish for several things at once, answered with a short list."""
    count = rng.randint(2, 5)
    people = [f"{p.name} the {p.role}" for p in rng.sample([p for p in world.PEOPLE if not p.child], count)]
    animals = [f"{a.name} the {a.kind}" for a in rng.sample(world.ANIMALS, count)]
    places = [f"the {p.name}" for p in rng.sample(world.PLACES, count)]
    foods = [f.name for f in rng.sample(world.FOODS, count)]
    what, found = rng.choice(
        [
            ("people[ from the village|]", people),
            ("animals[ in the village|]", animals),
            ("places[ in Larkmere|]", places),
            ("things to eat", foods),
            ("people who live in Larkmere", people),
            ("things that people eat in the village", foods),
        ]
    )
    question = say(rng, "[Name|List|Tell me|Give me] {n} {what}.", n=number(count), what=choose(rng, what))
    if rng.random() < 0.3:
        return question, "\n".join(f"{place + 1}. {thing[0].upper()}{thing[1:]}" for place, thing in enumerate(found))
    return question, say(
        rng, "[Here are {n}: {all}.|{all}.|{n} of them are {all}.]", n=number(count), all=listed(found)
    )


def all_items() -> dict[str, list[Item]]:
    """Every fact of the world, grouped by what it is about (so that a chat can stay with one subject)."""
    groups = {p.name: person_items(p) for p in world.PEOPLE}
    groups |= {a.name: animal_items(a) for a in world.ANIMALS}
    groups |= {p.name: place_items(p) for p in world.PLACES}
    return groups | {"food": food_items(), "time": time_items(), "village": fixed_items()}


def _forms(text: str) -> tuple[str, ...]:
    return tuple(text.split(" / ")) if text else ()


def _place(name: str) -> str:
    place = next(p for p in world.PLACES if p.name == name)
    return f"{place.at} the {place.name}"


def _family(name: str) -> str:
    """A sentence about somebody's kin."""
    for mother, father, child in world.COUPLES:
        if name == child:
            return f"{{x}} is the child of {mother} and {father}."
        if name in (mother, father):
            return f"{{x}} is married to {father if name == mother else mother}. Their child is called {child}."
    for one, two, kin in world.SIBLINGS:
        if name in (one, two):
            return f"{{x}} and {two if name == one else one} are {kin}."
    if name == "Olga":
        return "{x} is the mother of Ada and the grandmother of Finn."
    return "{x} lives alone, but the whole village is {his} family."


def _pet(name: str) -> str:
    """A sentence about somebody's animal."""
    for pet in world.ANIMALS:
        if pet.owner == name:
            return f"{{x}} has a {pet.kind} called {pet.name}. {pet.he.capitalize()} is {pet.look}."
    return "{x} has no animal of {his} own."
