"""Words from outside the village: things to tell stories about, strangers' names, and what the model cannot know."""

# ruff: noqa: E501, SIM905 - a row of a table is one line, a list of words is a text

from __future__ import annotations

# fmt: off
OBJECTS = tuple(
    """anchor apple arrow ball balloon banana barrel basket bell bench bicycle blanket boat book boot bottle bow box bridge broom brush bucket button
    camera candle carpet chair chest clock coin compass cup desk diamond doll drum egg feather flag flute fork fountain glass globe glove guitar
    hammer harp hat horn jacket jar jewel kettle key kite knife ladder lamp lantern letter lock machine magnet map mask medal mirror nail necklace
    needle nest notebook nut painting pear pearl pencil piano pillow plate puppet puzzle radio ribbon ring robot rocket rope saw scarecrow shell
    ship shoe shovel sled spoon stamp statue stone sword table teapot telescope tent ticket toy train treasure trumpet umbrella vase violin wagon
    wand watch wheel whistle window""".split()
)
# fmt: on
# fmt: off
CREATURES = tuple(
    """astronaut bat bear beetle bird butterfly camel cat caterpillar clown cook cow crab crane cricket crocodile crow dancer deer detective dinosaur
    dog dolphin donkey dragon dragonfly duck eagle elephant elf explorer fairy farmer firefly fish fox frog ghost giant giraffe goat goblin goose
    hamster hare hedgehog hen hero hippo horse inventor jellyfish kangaroo king kitten knight ladybird lion lizard lobster magician mermaid mole
    monkey monster moth mouse musician ninja octopus ostrich otter owl panda parrot peacock penguin phoenix pig pirate pony prince princess puppy
    queen rabbit raccoon raven rhino sailor scientist seal shark sheep skeleton snail snake snowman soldier spider squirrel stork swan thief tiger
    toad turtle unicorn vampire whale witch wizard wolf worm zebra superhero teddy""".split()
)
# fmt: on
# fmt: off
SIGHTS = tuple(
    """bus cactus car castle cave city circus cloud comet computer crown desert engine forest galaxy garden island jungle kingdom lighthouse meteor
    moon mountain mushroom ocean palace parade planet plane pond rainbow river rose satellite school sea secret shadow snowflake spaceship star
    storm submarine sun sunflower swamp tower tractor tree truck tunnel village volcano waterfall wind zoo""".split()
)
# fmt: on
THINGS = (*OBJECTS, *CREATURES, *SIGHTS)
_MANY = {
    "mouse": "mice",
    "goose": "geese",
    "fish": "fish",
    "sheep": "sheep",
    "deer": "deer",
    "thief": "thieves",
    "wolf": "wolves",
    "knife": "knives",
    "elf": "elves",
}


def plural(noun: str) -> str:
    """More than one of it."""
    if noun in _MANY:
        return _MANY[noun]
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


# fmt: off
STRANGERS = tuple(
    """Alice Bob Carol Charlie Daniel David Emma Eva Frank George Hannah Harry Jack James Jane John Julia Kate Laura Leo Linda Lisa Lucy Maria Mark
    Martin Mary Max Michael Mike Nina Oliver Oscar Paul Peter Robert Sarah Simon Sofia Stefan Susan Thomas Tim Tom Victor Walter William Zoe Zelda
    Anna Ben Clara Diego Elena Felix Grace Helen Ivan Jan Karl Lena Marco Noah Olivia Pablo Quinn Ruth Sasha Theo Ursula Vera Wendy Xaver Yara Amir
    Fatima Hiro Ines Joao Kofi Mei Priya Ravi Yuki Chen Omar Leila Sven Ingrid Pierre Chloe Luca Giulia""".split()
)
# fmt: on

# fmt: off
COUNTRIES = tuple(
    """France Germany Italy Spain Portugal England Scotland Ireland Norway Sweden Finland Denmark Poland Austria Switzerland Belgium Greece Turkey
    Russia Ukraine China Japan Korea India Brazil Argentina Mexico Canada Australia Egypt Kenya Nigeria Morocco Iran Israel Vietnam Thailand Peru
    Chile Cuba Iceland Hungary Romania America Europe Africa Asia""".split()
)
# fmt: on
CITIES = tuple(
    "Paris London Berlin Rome Madrid Tokyo Moscow Beijing New_York Chicago Sydney Cairo Vienna Prague Amsterdam Lisbon Dublin Oslo".replace(
        "_", "-"
    ).split()
)
# fmt: off
FAMOUS = tuple(
    "Albert Einstein|Napoleon|Shakespeare|Mozart|Beethoven|Picasso|Cleopatra|Marie Curie|Isaac Newton|Elon Musk|Barack Obama|the president|the pope"
    "|Julius Caesar|Michael Jackson|Alan Turing|Ada Lovelace|Leonardo da Vinci|Charles Darwin|Steve Jobs|Harry Potter|Sherlock Holmes|Batman".split("|")
)
# fmt: on
# fmt: off
SUBJECTS = tuple(
    "quantum physics|black holes|the stock market|machine learning|neural networks|gravity|photosynthesis|the second world war|the Roman empire|calculus"
    "|chemistry|electricity|football|basketball|politics|the internet|computers|rockets|Mars|dinosaurs|cars|money|taxes|Bitcoin|medicine|DNA|atoms"
    "|vaccines|evolution|philosophy|the Bible|Greek mythology|video games|movies|Hollywood|rock music|the moon landing|climate change|volcanoes|airplanes"
    "|trains|smartphones|programming|Linux|databases|the law|insurance|chess openings|sharks|the ocean|pyramids|blockchain|encryption|peer-to-peer networks".split("|")
)
# fmt: on
LANGUAGES = tuple(
    "French German Spanish Italian Latin Chinese Japanese Russian Arabic Greek Dutch Polish Swedish Turkish Hindi".split()
)
CODE = tuple("Python JavaScript Java Rust C++ Go SQL HTML Bash Ruby Haskell".split())
# fmt: off
FOREIGN = tuple(
    "Hola|Bonjour|Hallo|Guten Tag|Ciao|Buenos días|¿Cómo estás?|Comment ça va?|Wie geht es dir?|Wer bist du?|Qui es-tu?|¿Quién eres?|Come stai?|Olá|Hej|Namaste|Salut|Merhaba"
    "|Erzähl mir eine Geschichte|Raconte-moi une histoire|Cuéntame una historia|Was kannst du?|Parlez-vous français?|Sprichst du Deutsch?|¿Hablas español?|Привет|你好|こんにちは|Hoe gaat het?|Dzień dobry".split("|")
)
# fmt: on
# fmt: off
WORDLESS = tuple(
    "asdf|qwerty|xyz|blah blah|???|...|!!!|foo bar|lorem ipsum dolor sit amet|test|123|aaaa|hmm|404|<html>|{}|[]|$$$|%20|a b c|:-)|ok?|zzz|test 123|// TODO|\\n|été|naïve|¿qué?|你好|привет|日本|ñandú|große Straße|😀|👍|café|10 €|½|©|→".split("|")
)
# fmt: on
