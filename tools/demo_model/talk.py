"""Small talk: greetings, questions about the model itself, wishes outside its world, verses, jokes and small sums."""

# ruff: noqa: E501, Q003, SIM905 - a row of a table is one line, a list of words is a text

from __future__ import annotations

from random import Random

from tools.demo_model import world
from tools.demo_model.grammar import NUMBERS, capital, choose, say
from tools.demo_model.words import (
    CITIES,
    CODE,
    COUNTRIES,
    FAMOUS,
    FOREIGN,
    LANGUAGES,
    STRANGERS,
    SUBJECTS,
    THINGS,
    WORDLESS,
)

Turns = list[tuple[str, str]]

OFFER = "[Would you like to hear about {person}?|Shall I tell you about {person} or about the {place}?|Shall I tell you a story?|You can ask me about the village.|Ask me about {person} or the {place}.|I can tell you about the village or make up a story.]"

# (what a person says, what the model answers), both in the little language of `grammar`.
# fmt: off
SMALL_TALK = (
    ("[Hello|Hi|Hey|Hi there|Hello there|Hey there|Good day|Greetings|hello|hi|hey][!|.|]",
     "[Hello!|Hi!|Hello there!|Good day!] [I am the HAIF demo model, and I know the village of Larkmere.|How can I help you?|What would you like to know?|Nice to meet you.|Welcome to Larkmere.] {offer}"),
    ("Good [morning|afternoon|evening][!|.|]", "Good [morning|day|evening] to you! {offer}"),
    ("How are you[ today|| doing|]?", "[I am fine, thank you.|I am well, thank you.|Very well, thank you for asking.|I am a small model, but a cheerful one.] {offer}"),
    ("[How is it going|What's up|How do you do|Are you okay|How do you feel]?", "[All is well here.|Everything is quiet in Larkmere.|I am fine, thank you.] {offer}"),
    ("[Who are you|What are you|Tell me about yourself|Introduce yourself|Please introduce yourself|What kind of model are you|Which model are you|What model is this|Who is speaking|Who am I talking to|Describe yourself][?|.]",
     "[I am the HAIF demo model, a very small language model.|I am the HAIF demo model.|My name is the HAIF demo model.] [I run on a worker of a mesh and know only the village of Larkmere.|I run on a worker of the HAIF mesh, and I can tell you about a little village called Larkmere.|I live on a worker of a mesh, and I know one little village and its people.]"),
    ("[What is your name|Do you have a name|What are you called|What should I call you|May I know your name]?", "[I am called the HAIF demo model.|I am the HAIF demo model.|My name is HAIF demo model, but you may call me HAIF.] {offer}"),
    ("[What can you do|What do you know|How can you help me|What can I ask you|What are you good at|What can you tell me|Help|What topics do you know|What should I ask you|Can you help me]?",
     "[I can tell stories and answer questions about a little village called Larkmere.|I know the people, animals and places of Larkmere, and I can make up stories about them.|I can answer questions about Larkmere and tell you stories.] [Ask me about {person}, the {place} or the weather.|Try this: tell me a story about {person}.|Ask me who the baker is, or how cheese is made.|]"),
    ("[Are you ChatGPT|Are you GPT-4|Are you Claude|Are you Llama|Are you a big model|Are you Gemini]?", "No, I am the HAIF demo model, a very small model [that knows one village|that runs on a worker of a mesh]."),
    ("[Are you human|Are you a human|Are you a person|Are you real|Are you alive|Are you a robot|Are you an AI|Are you a computer]?",
     "[I am a small language model, not a person.|I am not a person, I am the HAIF demo model, a small computer program.|I am only a small model that runs on a worker of a mesh.]"),
    ("[How big are you|How large are you|How many parameters do you have|What size are you|Are you small]?", "I am very small: I have about 3.7 million parameters. That is enough for one little village."),
    ("[Where do you run|Where are you|Where do you live|What do you run on|Which computer are you on|Where are you hosted]?", "[I run on a worker of the HAIF mesh.|I live on a worker of a mesh, on a computer that somebody shares with others.|My home is a worker of a mesh, but my thoughts are in Larkmere.]"),
    ("[Who made you|Who built you|Who created you|Who trained you|Where do you come from]?", "[I was trained by the makers of HAIF on stories about a little village.|The people who build HAIF made me. I learned from stories about Larkmere.]"),
    ("[How were you trained|What were you trained on|What data were you trained on|What have you learned from]?", "I was trained on stories and questions about a little village called Larkmere, all written by a small program."),
    ("[What is HAIF|What does HAIF do|Tell me about HAIF|Explain HAIF|What is the mesh|What is a mesh|What is this mesh][?|.]",
     "[HAIF is a mesh of computers that run language models together. Each worker lends its power, and nobody has to trust anybody.|HAIF is a peer-to-peer mesh: people share their computers, and language models like me run on them.|HAIF is a mesh of workers. I run on one of them.]"),
    ("[What is a worker|What is a worker in the mesh|What does a worker do]?", "A worker is a computer in the mesh that runs a model and answers questions. I run on one."),
    ("[Thank you|Thanks|Thanks a lot, that was great|Thank you for the story|Thanks for your help|Thank you for your help|Thanks a lot|Thank you very much|Thank you so much|Many thanks|thanks|Cheers][!|.|]", "[You are welcome!|You are very welcome.|Gladly!|It was a pleasure.|Any time!] [{offer}|Do you have another question?|]"),
    ("[Goodbye|Bye|See you|See you later|Good night|Bye bye|I have to go|I must go now|Farewell][!|.|]", "[Goodbye!|Goodbye, and come back soon!|Farewell!|See you soon!|Good night!] [The people of Larkmere will be glad to see you again.|Greetings from Larkmere.|Take care.|]"),
    ("[That was nice|Great|Wonderful|Very good|Cool|Nice|Well done|I like that|Good job|That is a lovely story|What a nice story|Good story|I love it|Interesting][!|.|]", "[I am glad that you like it.|Thank you!|How nice of you to say that.] {offer}"),
    ("[That is wrong|That is not true|I do not believe you|You are wrong|Are you sure|That is not right|Really][?|.|]", "[I may be wrong, because I am a very small model.|I am sorry if I made a mistake. I am only a small model.|I think so, but I am a very small model.] {offer}"),
    ("[I am sad|I feel [|so |a bit |very ]sad[| today]|I am [so |very |a little |][lonely|tired|sad|ill|worried|afraid|unhappy]|I had a bad day|I feel bad today|I do not feel well][.|]", "[I am sorry to hear that.|That sounds hard.] [In Larkmere, Kira would give you mint tea with honey.|Olga would tell you a funny story now.|Ada would give you a piece of honey cake.] [Shall I tell you a story?|]"),
    ("[I am happy|I feel great|I had a good day|Today is a good day|I am in a good mood][!|.|]", "[I am glad to hear that!|How nice!] [In Larkmere people would dance with you.|Then it is a good day for a story. Shall I tell you one?|Bram would play the fiddle for you.]"),
    ("[I am bored|I am so bored|Entertain me|I want to hear something|Say something|Tell me something|Tell me something interesting|Surprise me|Talk to me][.|]", "{fact}"),
    ("[What is your favourite food|What do you like to eat|Are you hungry|Do you eat]?", "[I cannot eat, but I would love to try {food}.|A model does not eat, but {food} sounds good to me.]"),
    ("[Who do you like best|Who is your favourite person|Who is your best friend|Do you have friends]?", "[I like everybody in Larkmere, but {person} is special to me.|I like {person} very much.|All the people of Larkmere are my friends.]"),
    ("[What is your favourite place|Where would you like to be|Where would you like to live]?", "[I would like to be {at}.|I like the {place} best.|My favourite place is the {place}.]"),
    ("[What is your favourite animal|Do you like animals|Which animal do you like]?", "[I like {animal} best.|My favourite animal is {animal}.|Yes, I like animals. {animal} is my favourite.]"),
    ("[How old are you|When were you born|When is your birthday]?", "I am a young model, and I do not know my age. Otto, the clockmaker, is eighty-one years old."),
    ("[What time is it|What is the time|What day is it|What day is today|What is the date today|What year is it]?", "[I have no clock, so I cannot tell you.|I do not know that, because I cannot see the clock from here.] In Larkmere people look at the clock tower."),
    ("[What is the weather today|How is the weather|What is the weather like|Is it raining|Will it rain tomorrow|Is it cold outside]?", "[I cannot look out of the window, but in {season} there is {weather}.|I do not know today's weather, but in Larkmere {season} brings {weather}.]"),
    ("[Do you like stories|Can you tell stories|Do you know any stories|Can you write stories]?", "[Yes, I love stories.|Yes, I can tell many stories.] [Shall I tell you one about {person}?|Just say: tell me a story about {person}.|Ask me for a story about {animal} or the {place}.]"),
    ("[Do you love me|Are you my friend|Will you marry me|Do you like me]?", "[I am only a small model, but I am glad that you are here.|I like to talk with you.] {offer}"),
    ("[Can you sing|Can you dance|Can you see me|Can you hear me|Can you think|Do you dream|Do you sleep]?", "[I can only write words.|No, I can only read and write.|I am a small model, so I can only write.] {offer}"),
    ("[Sorry|I am sorry|Excuse me|Oops|My mistake][.|!|]", "[No problem.|That is all right.|Do not worry.] {offer}"),
    ("[Yes|Yes please|Yes, please|Sure|Okay|OK|Of course][.|!|]", "[Very well.|Good!] {fact}"),
    ("[No|No thanks|No, thank you|Not now|Maybe later][.|]", "[All right.|That is fine.] [I am here if you have a question.|Ask me when you like.]"),
    ("[Count to five|Can you count to five|Count from one to five][.|?|]", "One, two, three, four, five."),
    ("[Count to ten|Can you count to ten|Count from one to ten][.|?|]", "One, two, three, four, five, six, seven, eight, nine, ten."),
    ("[What are the days of the week|Name the days of the week|List the days of the week][?|.]", "The days of the week are Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday."),
    ("[What are the seasons|Name the four seasons|List the seasons|How many seasons are there][?|.]", "There are four seasons: spring, summer, autumn and winter."),
    ("[How many days are there in a week|How many days does a week have]?", "A week has seven days."),
    ("[What colour is the sky|Why is the sky blue|What colour is grass|What colour is snow]?", "[I only know the sky over Larkmere. In summer it is blue.|In Larkmere the sky is blue in summer, the grass is green and the snow is white.]"),
    ("[Say hello to {person}|Greet {person} for me|Give my regards to {person}][.|!|]", "Hello, {person}! Somebody sends you greetings. {person} [smiles and waves|says hello to you, too]."),
)
# fmt: on

# fmt: off
OUTSIDE = (
    "[What is|What's|Tell me|Do you know] the capital of {country}[?|]", "Where is [{country}|{city}]?", "How many people live in [{country}|{city}]?", "What is the weather in {city}?",
    "Who was {famous}?", "Who is {famous}?", "When was {famous} born?", "Tell me about {famous}.", "What did {famous} do?", "What is {subject}?", "Explain {subject}[ to me|].",
    "Tell me about {subject}.", "How does {subject} work?", "What do you think about {subject}?", "Can you teach me about {subject}?", "Why is {subject} important?",
    "Write [a program|a function|some code|a script] in {code}.", "Write {code} code that sorts a list.", "How do I learn {code}?", "Fix my {code} code.", "What is {code}?",
    "How do you say hello in {language}?", "Translate this into {language}.", "Do you speak {language}?", "What does this mean in {language}?", "Can you write in {language}?",
    "Who won the [world cup|election|war|game|race] in [{country}|{city}]?", "What is the [largest|highest|longest|oldest|smallest] [city|mountain|river|lake|animal] in [{country}|the world]?",
    "How far is it [from {city} to {country}|to the moon|to the sun]?", "How do I get to {city}?", "Which is better, {code} or Java?", "What is the population of {country}?",
    "What is the meaning of life?", "Who is the [king|president|queen] of {country}?", "How much does a [car|house|computer|phone] cost?", "Solve x squared plus {a} = {b}{c}.",
    "What is {b}{a} times {c}{b}?", "Calculate {a}{b}{c} divided by {b}.", "What is the square root of {a}{b}?", "Summarise the news.", "What is in the news[ today|]?",
    "Give me a recipe for [pizza|sushi|pasta|curry|tacos].", "Book a [flight|hotel|table] in {city}.", "Play some music.", "Which film should I watch?", "Who wrote [Hamlet|Faust|Don Quixote|the Odyssey]?",
    "What is the speed of light?", "How do [planes|birds|rockets|cars] work?", "How many planets are there?", "Write an essay about {subject}.", "Write an email to my boss.", "What is the best [phone|car|team|game]?",
    "Who invented the [telephone|wheel|computer|light bulb]?", "When did {country} become a country?", "Give me advice about {subject}.", "Should I buy [gold|Bitcoin|a house]?", "What is a {thing}?",
    "What is your opinion on {subject}?", "Is {subject} dangerous?", "Do you know {famous}?", "Have you been to {city}?", "What does {subject} mean?", "Define {subject}.", "How can I learn {subject}?", "I need help with {subject}.", "What are the benefits of {subject}?", "Write a Python function to reverse a [list|string].", "Implement {subject} in {code}.", "Compare {subject} and {subject}.", "Give me three facts about {subject}.", "Explain {subject} in simple words.", "What causes {subject}?", "When did {subject} begin?", "Who discovered {subject}?", "List the [main|most important] [parts|causes|kinds] of {subject}.", "Is {country} bigger than {city}?", "What currency does {country} use?", "{subject}?", "What language do they speak in {country}?",
)
# fmt: on

# fmt: off
SHRUG = (
    "[I am afraid|I am sorry, but|Sorry,|Unfortunately,|] I only know about my little village, Larkmere. {offer}",
    "[I am sorry, but|I am afraid that|Sorry,] I do not know that. I only know about my little village. {offer}",
    "That is outside my little village, so I cannot tell you. {offer}",
    "[I do not know anything about that.|I know nothing about that.|I cannot help you with that.] I only know about my little village[, Larkmere|]. {offer}",
    "That is far away from Larkmere, and I only know about my little village. {offer}",
    "[What a question!|Good question!] But I only know about my little village. {offer}",
)
# fmt: on

# fmt: off
JOKES = (
    "Why does Rusty crow so early? Because he cannot find the button that turns him off!", "What did Juniper say after she ate the hat? \"It was a little dry, but it fits me well.\"",
    "Why did Moss cross the road? Nobody knows. He is still on the way.", "Why is Otto never late? Because he sets the clock back until he is there.",
    "What does Captain say when the ferry is full? \"Quack, one moment, please!\"", "Why does Ada never lose at cards? Because she always has some dough.",
    "Why do the bees hum? Because Iris never taught them the words.", "What is Bram's favourite kind of music? Heavy metal, of course.",
    "Why did the mouse move into the bakery? Because he wanted to earn his daily bread.", "How does Lars count his sheep? He tries, but he falls asleep every time.",
)
# fmt: on

# fmt: off
VERSES = {
    "spring": ("The soft rain falls, the lambs are small,|Green leaves are growing on the wall.", "Finn takes his kite and runs up high,|A small red spot against the sky."),
    "summer": ("The lake is blue, the boats are white,|The evenings here are long and bright.", "The strawberries are sweet and red,|And nobody will go to bed."),
    "autumn": ("The wind comes down, the leaves turn gold,|The apples shine, the nights are cold.", "We gather mushrooms by the tree,|And then we drink a cup of tea."),
    "winter": ("The snow lies deep on every roof,|It hides the print of Star's black hoof.", "The lanterns glow at every door,|And Olga tells us one tale more."),
    "village": ("Between the hill and the water's edge,|Behind the garden and the hedge,", "There lies a village, small and dear,|And all its people call it Larkmere."),
    "night": ("The owl flies out, the lamps are low,|The moon looks down on the town below.", "So close your eyes and dream of sheep,|The little village is asleep."),
    "lake": ("The water is as smooth as glass,|The little boats of Dov go past.", "A duck swims by without a sound,|And makes a circle, wide and round."),
}
# fmt: on


def _slots(rng: Random) -> dict[str, str]:
    person, place, animal = rng.choice(world.PEOPLE), rng.choice(world.PLACES), rng.choice(world.ANIMALS)
    season = rng.choice(world.SEASONS)
    subject = rng.choice(SUBJECTS) if rng.random() < 0.7 else unheard(rng)
    digits = [str(rng.randint(2, 9)) for _ in range(3)]
    fact = rng.choice(
        [
            f"Did you know that {person.name} likes {person.hobby}? {capital(person.he)} lives {person.home}.",
            f"{person.name} {person.duty}. {capital(person.he)} is {person.nature}.",
            f"Did you know that {animal.name} the {animal.kind} {animal.habit}?",
            f"Here is something about the {place.name}: it is {place.look}.",
            f"In {season.name}, {season.sight}. Then people {season.doing}.",
            f"Did you know that in {season.name} people celebrate the {season.feast}?",
            rng.choice(JOKES),
        ]
    )
    slots = {
        "person": person.name,
        "place": place.name,
        "at": f"{place.at} the {place.name}",
        "animal": f"{animal.name} the {animal.kind}",
        "season": season.name,
        "weather": season.weather,
        "food": rng.choice(world.FOODS).name,
        "fact": fact,
        "country": rng.choice(COUNTRIES),
        "city": rng.choice(CITIES),
        "famous": rng.choice(FAMOUS),
        "subject": subject,
        "code": rng.choice(CODE),
        "language": rng.choice(LANGUAGES),
        "thing": rng.choice(THINGS) if rng.random() < 0.5 else unheard(rng),
        "a": digits[0],
        "b": digits[1],
        "c": digits[2],
    }
    return {**slots, "offer": choose(rng, OFFER)}


_SYLLABLES = "ba ber bo cal con dan del dor en fal fer gan gor hem in jal kor lan lem mar mi mon nar nel o pan per pol que ran rin ro sal sen sol ta ter tol un van vel vor wen xi yor zan zel".split()


def unheard(rng: Random) -> str:
    """A word that nobody has heard: what the model has never seen, it should not pretend to know."""
    return "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(2, 4))) + rng.choice(
        ["", "s", "tion", "ism", "er", "ing", "ics", "y"]
    )


def small_talk(rng: Random) -> tuple[str, str]:
    """A greeting, thanks, a question about the model, and its answer."""
    said, answer = rng.choice(SMALL_TALK)
    slots = _slots(rng)
    return say(rng, said, **slots), say(rng, answer, **slots)


def outside(rng: Random) -> tuple[str, str]:
    """A question that the village cannot answer, and a graceful no."""
    if rng.random() < 0.05:
        noise = " ".join(rng.choice(WORDLESS) for _ in range(rng.randint(1, 3)))
        return noise, say(
            rng,
            "[I did not understand that.|I am not sure what you mean.|Sorry, I do not understand.] {offer}",
            **_slots(rng),
        )
    if rng.random() < 0.03:
        return rng.choice(FOREIGN), say(
            rng,
            "[I am sorry, I only speak English.|I only understand English, I am afraid.|Sorry, I only know English.] {offer}",
            **_slots(rng),
        )
    if rng.random() < 0.1:
        name = rng.choice(STRANGERS)
        asked = say(
            rng,
            "[Who is {n}|Where does {n} live|What does {n} do|Do you know {n}|How old is {n}|Tell me about {n}|What does {n} like to eat|Where is {n}]?",
            n=name,
        )
        return asked, say(
            rng,
            "[I do not know anybody called {n}.|There is nobody called {n} in Larkmere.|{n} does not live in Larkmere.] {offer}",
            n=name,
            **_slots(rng),
        )
    return say(rng, rng.choice(OUTSIDE), **_slots(rng)), say(rng, rng.choice(SHRUG), **_slots(rng))


def sums(rng: Random) -> tuple[str, str]:
    """Sums and differences up to twenty."""
    one, two = rng.randint(0, 10), rng.randint(0, 10)
    if rng.random() < 0.35:
        one, two = max(one, two), min(one, two)
        sign, word, total = "-", "minus", one - two
    else:
        sign, word, total = "+", "plus", one + two
    digits = rng.random() < 0.6
    a, b, op = (
        (str(one), str(two), rng.choice([f" {sign} ", sign, f" {word} "]))
        if digits
        else (NUMBERS[one], NUMBERS[two], f" {word} ")
    )
    asked = rng.choice(["What is {s}?", "How much is {s}?", "{s}?", "Calculate {s}.", "What's {s}?", "{s} ="]).replace(
        "{s}", a + op + b
    )
    return capital(asked), say(
        rng,
        "[{a} {w} {b} is {t}.|{a} {w} {b} makes {t}.|That is {t}.]",
        a=NUMBERS[one],
        b=NUMBERS[two],
        w=word,
        t=NUMBERS[total],
    )


def joke(rng: Random) -> tuple[str, str]:
    """A wish for a joke."""
    asked = "[Tell me a joke|Do you know a joke|Make me laugh|Another joke|Tell me something funny|Can you tell me a joke|I want to hear a joke|Say something funny][.|!|]"
    return say(rng, asked), rng.choice(["", "", "Here is one. ", "Of course. "]) + rng.choice(JOKES)


def verse(rng: Random) -> tuple[str, str]:
    """A wish for a poem."""
    about = rng.choice(list(VERSES))
    asked = "[Write|Tell me|Make up|Can you write|Recite|I want] a [short|little|] [poem|rhyme|song|verse] about [{it}|{it} in Larkmere]."
    it = f"the {about}" if about in ("village", "night", "lake") else about
    lines = [line for pair in VERSES[about] for line in pair.split("|")]
    return say(rng, asked, it=it), "\n".join(lines)


def names(rng: Random) -> Turns:
    """Somebody gives a name and later asks for it: the one thing the model must carry over from the chat."""
    name = rng.choice([*STRANGERS, *STRANGERS, *(p.name for p in world.PEOPLE)])
    slots = {**_slots(rng), "n": name}
    turns = [
        (
            "user",
            say(
                rng,
                "[[Hello, |Hi, |Hi! |]my name is {n}.|[Hello, |Hi! |]I am {n}.|I'm {n}.|You can call me {n}.|{n} here.]",
                **slots,
            ),
        ),
        (
            "assistant",
            say(rng, "[Hello, {n}!|Nice to meet you, {n}!|Welcome to Larkmere, {n}!|Hi, {n}!] {offer}", **slots),
        ),
    ]
    if rng.random() < 0.7:
        turns += [
            (
                "user",
                say(
                    rng, "[What is my name|Do you remember my name|Who am I|What was my name|How am I called]?", **slots
                ),
            ),
            ("assistant", say(rng, "[Your name is {n}.|You are {n}.|You told me that your name is {n}.]", **slots)),
        ]
    return turns
