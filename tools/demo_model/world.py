"""The facts of Larkmere: the one small village that the demo model knows, written down once.

Everything that the corpus says is drawn from these tables, so an answer can be checked against them.
Names, trades, homes, favourite foods and pastimes are each unique to one person: a question that runs
backwards ("who is the baker?") then has exactly one answer.
"""

# ruff: noqa: E501 - a row of a table is one line

from __future__ import annotations

from dataclasses import dataclass

VILLAGE = "Larkmere"
LAKE = "Lark Lake"
RIVER = "the Wren"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who lives in the village. `home`, `duty` and `habit` are phrases that fit "lives ...", "he ..."."""

    name: str
    he: str
    age: int
    role: str
    work: str
    duty: str
    home: str
    nature: str
    food: str
    hobby: str
    tool: str
    wears: str
    friend: str
    child: bool = False

    @property
    def him(self) -> str:
        """The pronoun as an object."""
        return "her" if self.he == "she" else "him"

    @property
    def his(self) -> str:
        """The pronoun as a possessive."""
        return "her" if self.he == "she" else "his"


@dataclass(frozen=True, slots=True)
class Animal:
    """A beast with a name. `owner` is a person's name, or empty for one that is wild."""

    name: str
    he: str
    kind: str
    look: str
    owner: str
    home: str
    eats: str
    nature: str
    habit: str
    sound: str

    @property
    def him(self) -> str:
        """The pronoun as an object."""
        return "her" if self.he == "she" else "him"

    @property
    def his(self) -> str:
        """The pronoun as a possessive."""
        return "her" if self.he == "she" else "his"


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere in the village. `at` is the preposition that fits it; `where` completes "it stands ..."."""

    name: str
    at: str
    where: str
    look: str
    use: str
    keeper: str
    near: str


@dataclass(frozen=True, slots=True)
class Food:
    """Something to eat or drink. `of` lists what goes in, `how` tells how it is made."""

    name: str
    maker: str
    of: str
    how: str
    season: str
    taste: str
    plural: bool = False


@dataclass(frozen=True, slots=True)
class Season:
    """A quarter of the year, its weather and its feast."""

    name: str
    weather: str
    sight: str
    doing: str
    feast: str
    feast_about: str
    clothes: str


@dataclass(frozen=True, slots=True)
class Day:
    """A weekday and what the village always does on it."""

    name: str
    custom: str
    where: str
    who: str


# fmt: off
PEOPLE = (
    Person("Ada", "she", 41, "baker", "bakery", "bakes bread and cakes before the sun is up", "above the bakery",
           "cheerful", "honey cake", "singing", "rolling pin", "a white apron", "Rosa"),
    Person("Bram", "he", 45, "blacksmith", "forge", "makes horseshoes, hinges and nails", "in the stone house beside the forge",
           "strong and quiet", "potato soup", "playing the fiddle", "heavy hammer", "a leather apron", "Otto"),
    Person("Cora", "she", 33, "miller", "windmill", "grinds the wheat into flour", "in the round house under the windmill",
           "curious", "warm bread", "watching birds", "flour sack", "a blue scarf", "Edda"),
    Person("Dov", "he", 52, "fisherman", "jetty", "catches silver fish in the lake", "in the red hut by the lake",
           "patient", "fish pie", "carving little boats", "long net", "tall rubber boots", "Sam"),
    Person("Edda", "she", 38, "teacher", "school", "teaches the children to read and count", "in the yellow house by the school",
           "wise", "apple tart", "reading old books", "piece of chalk", "round glasses", "Cora"),
    Person("Finn", "he", 9, "pupil", "school", "learns to read and count", "above the bakery",
           "brave", "jam buns", "flying kites", "red kite", "a striped cap", "Greta", child=True),
    Person("Greta", "she", 8, "pupil", "school", "learns to read and count", "in the stone house beside the forge",
           "clever", "pancakes", "collecting stones", "magnifying glass", "yellow boots", "Finn", child=True),
    Person("Hugo", "he", 40, "gardener", "garden", "grows beans, carrots and roses", "in the green cottage by the garden",
           "gentle", "carrot stew", "painting flowers", "watering can", "a straw hat", "Iris"),
    Person("Iris", "she", 36, "beekeeper", "orchard", "looks after the bees and gathers their honey", "in the wooden house in the orchard",
           "calm", "honey on toast", "humming old songs", "smoke pot", "a white veil", "Hugo"),
    Person("Jonas", "he", 43, "carpenter", "workshop", "builds tables, chairs and doors", "above the bakery",
           "careful", "mushroom pie", "building birdhouses", "small saw", "a brown waistcoat", "Bram"),
    Person("Kira", "she", 39, "doctor", "clinic", "looks after everybody who is ill or hurt", "in the green cottage by the garden",
           "kind", "vegetable soup", "swimming in the lake", "black bag", "a long grey coat", "Mina"),
    Person("Lars", "he", 27, "shepherd", "meadow", "watches over the sheep", "in the small hut on the hill",
           "dreamy", "cheese and bread", "playing the flute", "wooden staff", "a green cloak", "Piet"),
    Person("Mina", "she", 42, "weaver", "weaving house", "weaves warm blankets and scarves", "in the stone house beside the forge",
           "thoughtful", "plum cake", "dancing", "old loom", "a purple shawl", "Kira"),
    Person("Nils", "he", 48, "innkeeper", "inn", "cooks supper for the guests and keeps their rooms warm", "upstairs in the inn",
           "jolly", "roast potatoes", "telling jokes", "big copper pot", "a red waistcoat", "Ada"),
    Person("Olga", "she", 74, "storyteller", "well", "tells old stories to anybody who will listen", "in the white cottage next to the well",
           "funny", "oat porridge", "knitting socks", "rocking chair", "a warm woollen shawl", "Finn"),
    Person("Otto", "he", 81, "clockmaker", "clock tower", "mends clocks and keeps the tower clock right", "in the narrow house behind the clock tower",
           "slow and careful", "pear jam", "playing chess", "tiny screwdriver", "a velvet jacket", "Bram"),
    Person("Piet", "he", 30, "postman", "post office", "carries letters and parcels to every door", "in the little room behind the post office",
           "quick", "cherry pie", "riding his bicycle", "leather bag", "a blue cap", "Lars"),
    Person("Rosa", "she", 34, "cheese maker", "dairy", "makes butter and round yellow cheese", "in the blue house next to the dairy",
           "hard-working", "fresh butter on rolls", "climbing the hill", "milk pail", "wooden shoes", "Ada"),
    Person("Sam", "he", 57, "ferryman", "ferry", "rows people across the lake", "on his houseboat at the jetty",
           "talkative", "smoked fish", "looking at the stars", "pair of oars", "a captain's hat", "Dov"),
    Person("Tilda", "she", 7, "pupil", "school", "learns to read and count", "in the green cottage by the garden",
           "shy", "strawberries", "drawing animals", "box of pencils", "a yellow raincoat", "Greta", child=True),
)
# fmt: on

# fmt: off
ANIMALS = (
    Animal("Biscuit", "he", "dog", "brown and fluffy", "Finn", "in a basket behind the bakery", "sausages", "playful",
           "chases every falling leaf", "barks"),
    Animal("Pepper", "she", "cat", "black with white paws", "Edda", "on the window sill of the school", "small fish", "proud",
           "sleeps on the warmest book she can find", "purrs"),
    Animal("Clover", "she", "cow", "brown with a white star on her nose", "Rosa", "in the barn behind the dairy", "sweet grass", "gentle",
           "follows Rosa like a puppy", "moos"),
    Animal("Bramble", "he", "donkey", "grey with long ears", "Cora", "in the shed next to the windmill", "carrots", "stubborn",
           "carries the flour sacks to the bakery", "brays"),
    Animal("Snow", "she", "lamb", "white and woolly", "Lars", "on the meadow with the other sheep", "clover leaves", "curious",
           "wanders away when nobody is looking", "bleats"),
    Animal("Pip", "he", "mouse", "tiny and grey", "", "in a hole under the bakery floor", "bread crumbs", "clever",
           "comes out at night when everything is quiet", "squeaks"),
    Animal("Rusty", "he", "rooster", "red with a golden tail", "Nils", "in the yard of the inn", "corn", "loud",
           "wakes the whole village every morning", "crows"),
    Animal("Juniper", "she", "goat", "white with a black beard", "Tilda", "in the pen behind the green cottage", "everything, even hats", "naughty",
           "climbs on tables and carts", "bleats"),
    Animal("Moss", "he", "tortoise", "old and green", "Hugo", "under the rose bushes in the garden", "lettuce", "slow and calm",
           "sleeps through the whole winter", "sighs"),
    Animal("Star", "she", "horse", "black with a white spot on her forehead", "Bram", "in the stable beside the forge", "apples", "strong",
           "pulls the big cart on market day", "neighs"),
    Animal("Luna", "she", "owl", "brown with golden eyes", "", "in the old oak", "beetles", "wise",
           "watches over the village at night", "hoots"),
    Animal("Captain", "he", "duck", "white with orange feet", "Sam", "under the jetty", "wet bread", "bold",
           "rides at the front of the ferry", "quacks"),
)
# fmt: on

# fmt: off
PLACES = (
    Place("bakery", "at", "on the market square", "a warm house with a tall brick chimney", "buy bread, buns and cakes", "Ada", "well"),
    Place("forge", "at", "at the end of Hammer Lane", "a dark stone building with a bright fire inside", "have a horse shod or a pot mended", "Bram", "workshop"),
    Place("windmill", "at", "on top of the green hill", "a tall white tower with four long sails", "bring wheat and carry home flour", "Cora", "meadow"),
    Place("jetty", "on", "on the shore of the lake", "a long row of wooden boards above the water", "sit and fish", "Dov", "ferry"),
    Place("school", "at", "beside the stone bridge", "a yellow house with a bell on the roof", "learn to read, write and count", "Edda", "bridge"),
    Place("garden", "in", "behind the green cottage", "a wide field of vegetables with roses along the wall", "pick beans, carrots and roses", "Hugo", "orchard"),
    Place("orchard", "in", "on the sunny side of the hill", "a quiet place full of apple trees and beehives", "pick apples and taste honey", "Iris", "garden"),
    Place("workshop", "in", "halfway down Hammer Lane", "a bright room that smells of fresh wood", "order a chair or mend a door", "Jonas", "forge"),
    Place("clinic", "at", "opposite the post office", "a small white house with a green door", "see the doctor", "Kira", "post office"),
    Place("meadow", "on", "between the hill and the forest", "a wide green field full of flowers", "watch the sheep and lie in the grass", "Lars", "forest"),
    Place("weaving house", "at", "next to the stream", "a long low house with big windows", "buy blankets and scarves", "Mina", "bridge"),
    Place("inn", "at", "on the corner of the market square", "a big old house with a blue lantern over the door", "eat supper and stay the night", "Nils", "market square"),
    Place("well", "at", "in the middle of the village", "a deep round well with a wooden roof", "draw cold water and hear a story", "Olga", "bakery"),
    Place("clock tower", "at", "on the north side of the market square", "a thin tower with a golden clock", "look at the time and see far over the lake", "Otto", "market square"),
    Place("post office", "at", "opposite the clinic", "a small red house with a brass letter box", "send letters and parcels", "Piet", "clinic"),
    Place("dairy", "at", "at the edge of the meadow", "a cool white house with a blue roof", "buy milk, butter and cheese", "Rosa", "meadow"),
    Place("ferry", "on", "at the end of the jetty", "a flat green boat with a little bell", "cross the lake", "Sam", "jetty"),
    Place("market square", "on", "in front of the clock tower", "a round square paved with grey stones", "go to the market and meet everybody", "", "inn"),
    Place("bridge", "on", "over the stream called the Wren", "an old stone bridge with three arches", "cross the stream and watch the trout", "", "school"),
    Place("forest", "in", "behind the meadow", "a deep green wood of oaks and pines", "gather mushrooms and blackberries", "", "meadow"),
    Place("hill", "on", "north of the village", "a round green hill with the windmill on top", "fly kites and see the whole valley", "", "windmill"),
    Place("lake", "at", "south of the village", "a wide blue lake with reeds around it", "swim, row and fish", "", "jetty"),
    Place("old oak", "under", "where the meadow meets the forest", "a huge tree that is three hundred years old", "sit in the shade and listen to the owl", "", "forest"),
)
# fmt: on

# fmt: off
FOODS = (
    Food("bread", "Ada", "flour, water, salt and yeast", "she kneads the dough, lets it rest for an hour and bakes it in the brick oven", "", "crisp and warm"),
    Food("honey cake", "Ada", "flour, eggs, butter and honey", "she stirs the honey into the batter and bakes it slowly", "", "soft and sweet"),
    Food("honey", "Iris", "the nectar of apple flowers", "the bees gather it, and she takes the full combs from the hives", "summer", "golden and sweet"),
    Food("cheese", "Rosa", "fresh milk and a little salt", "she warms the milk, presses the curds and leaves the wheels on a shelf for three months", "", "mild and creamy"),
    Food("butter", "Rosa", "cream and a pinch of salt", "she turns the cream in a wooden churn until it is thick", "", "soft and fresh"),
    Food("fish pie", "Nils", "fish, leeks, cream and potatoes", "he covers the fish with mashed potatoes and bakes it until it is brown", "", "rich and salty"),
    Food("pumpkin soup", "Nils", "pumpkins, onions and cream", "he cooks the pumpkin in the big copper pot for an hour", "autumn", "thick and warm"),
    Food("apple tart", "Ada", "apples, butter, flour and cinnamon", "she lays thin slices of apple on the dough and bakes it until it is golden", "autumn", "sweet and a little sour"),
    Food("pear jam", "Hugo", "ripe pears and sugar", "he boils the pears with sugar and stirs for a long time", "autumn", "smooth and sweet"),
    Food("mint tea", "Kira", "mint leaves and hot water", "she pours hot water on fresh leaves and waits five minutes", "", "fresh and cool"),
    Food("strawberries", "Hugo", "nothing but sun and rain", "he plants them in spring, waters them and picks them when they are red", "summer", "juicy and sweet", plural=True),
    Food("oat porridge", "Olga", "oats, milk and a spoon of honey", "she stirs the oats in hot milk until they are soft", "winter", "plain and filling"),
    Food("smoked fish", "Dov", "fish, salt and beech smoke", "he hangs the fish over a slow fire for a whole day", "", "salty and strong"),
)
# fmt: on

# fmt: off
SEASONS = (
    Season("spring", "soft rain and mild sun", "the apple trees turn white with blossom", "plant seeds and fly kites",
           "Kite Festival", "everybody brings a home-made kite to the hill, and the highest one wins a honey cake", "light jackets and rubber boots"),
    Season("summer", "long warm days and blue skies", "the lake is full of swimmers and boats", "swim, row and pick strawberries",
           "Boat Race", "small boats race from the jetty to the far shore and back", "straw hats and bare feet"),
    Season("autumn", "wind, fog and falling leaves", "the forest turns red and gold", "pick apples and gather mushrooms",
           "Apple Fair", "there are apple tarts, games and music on the market square", "scarves and warm coats"),
    Season("winter", "snow and long dark evenings", "the lake freezes and the roofs are white", "skate on the lake and tell stories by the fire",
           "Lantern Night", "everybody hangs a lantern at the door and sings on the bridge", "woollen hats and thick gloves"),
)
# fmt: on

# fmt: off
DAYS = (
    Day("Monday", "everybody washes clothes", "at the stream", "everybody"),
    Day("Tuesday", "Olga tells a story in the evening", "at the well", "Olga"),
    Day("Wednesday", "Ada bakes honey cake for the whole village", "at the bakery", "Ada"),
    Day("Thursday", "Bram plays the fiddle and people dance", "at the inn", "Bram"),
    Day("Friday", "Nils serves fish pie to everybody", "at the inn", "Nils"),
    Day("Saturday", "there is a market", "on the market square", "everybody"),
    Day("Sunday", "people rest, and families have a picnic", "by the lake", "everybody"),
)
# fmt: on

COUPLES = (("Ada", "Jonas", "Finn"), ("Bram", "Mina", "Greta"), ("Hugo", "Kira", "Tilda"))
SIBLINGS = (("Iris", "Rosa", "sisters"), ("Nils", "Piet", "brothers"))

# (question, the same as a clause, answer): why things are as they are.
# fmt: off
WHYS = (
    ("Why does Ada get up so early?", "why Ada gets up so early", "Ada gets up early because the bread must be warm when the village wakes."),
    ("Why is Bram so strong?", "why Bram is so strong", "Bram is strong because he swings his heavy hammer at the forge every day."),
    ("Why does Cora live on the hill?", "why Cora lives on the hill", "Cora lives on the hill because the windmill stands there, where the wind is strongest."),
    ("Why does Dov fish at dawn?", "why Dov fishes at dawn", "Dov fishes at dawn because the lake is still and the fish are hungry then."),
    ("Why does Edda ring a bell?", "why Edda rings a bell", "Edda rings the bell because the lessons are about to begin."),
    ("Why does Iris wear a veil?", "why Iris wears a veil", "Iris wears a white veil because the bees could sting her face."),
    ("Why does Iris use smoke?", "why Iris uses smoke", "Iris uses a little smoke because it makes the bees calm and sleepy."),
    ("Why does Lars play the flute?", "why Lars plays the flute", "Lars plays the flute because the sheep stay close when they hear it."),
    ("Why do people visit Kira?", "why people visit Kira", "People visit Kira because she is the doctor and helps everybody who is ill or hurt."),
    ("Why does Piet ride a bicycle?", "why Piet rides a bicycle", "Piet rides a bicycle because he has letters for every house in the village."),
    ("Why does Otto climb the clock tower?", "why Otto climbs the clock tower", "Otto climbs the clock tower because the golden clock must be wound every evening."),
    ("Why is the inn called the Blue Lantern?", "why the inn is called the Blue Lantern", "The inn is called the Blue Lantern because a blue lantern hangs over its door."),
    ("Why is the village called Larkmere?", "why the village is called Larkmere", "Larkmere is named after the larks that sing over the lake, and mere is an old word for lake."),
    ("Why does everybody love Olga?", "why everybody loves Olga", "Everybody loves Olga because her stories make people laugh."),
    ("Why is Rusty so loud?", "why Rusty is so loud", "Rusty is loud because he thinks that the sun will not rise without him."),
    ("Why does Moss sleep all winter?", "why Moss sleeps all winter", "Moss sleeps all winter because tortoises do not like the cold."),
    ("Why does Captain ride on the ferry?", "why Captain rides on the ferry", "Captain rides on the ferry because Sam always gives him some wet bread."),
    ("Why is Juniper in trouble so often?", "why Juniper is in trouble so often", "Juniper is often in trouble because she eats everything, even hats."),
    ("Why does Luna stay awake at night?", "why Luna stays awake at night", "Luna stays awake at night because owls sleep during the day and hunt in the dark."),
    ("Why do people hang lanterns in winter?", "why people hang lanterns in winter", "People hang lanterns in winter because Lantern Night makes the dark evenings bright."),
    ("Why does the windmill turn?", "why the windmill turns", "The windmill turns because the wind on the hill pushes its four long sails."),
    ("Why is the forest good in autumn?", "why the forest is good in autumn", "The forest is good in autumn because it is full of mushrooms and blackberries."),
    ("Why do the children like Saturday?", "why the children like Saturday", "The children like Saturday because there is a market and they can eat jam buns."),
    ("Why does Tilda draw animals?", "why Tilda draws animals", "Tilda draws animals because she is shy with people but never with animals."),
    ("Why does Finn like the hill?", "why Finn likes the hill", "Finn likes the hill because the wind there is best for his red kite."),
)
# fmt: on

# (question, the same as a clause, answer): how things are done, beyond the recipes in FOODS.
# fmt: off
HOWS = (
    ("How do I make a kite?", "how to make a kite", "Tie two thin sticks into a cross, cover them with paper, and add a long tail and a string. Finn can show you on the hill."),
    ("How do I make a lantern?", "how to make a lantern", "Fold strong paper into a box, cut small windows, and put a candle inside. Then hang it at your door."),
    ("How do people cross the lake?", "how people cross the lake", "People cross the lake on the ferry. Sam rows them over and rings a little bell."),
    ("How does the mail get to the houses?", "how the mail gets to the houses", "Piet carries the mail in his leather bag and rides to every house on his bicycle."),
    ("How does Lars call his sheep?", "how Lars calls his sheep", "Lars plays three notes on his flute, and the sheep come running."),
    ("How does Bram make a horseshoe?", "how Bram makes a horseshoe", "Bram heats the iron in the fire until it glows, then he bends it with his heavy hammer."),
    ("How does Jonas make a chair?", "how Jonas makes a chair", "Jonas saws the wood, shapes four legs, and fits the parts together with glue and pegs."),
    ("How does Mina make a blanket?", "how Mina makes a blanket", "Mina spins the wool into thread, dyes it, and weaves it on her old loom."),
    ("How is flour made?", "how flour is made", "The wind turns the sails, the sails turn the millstones, and the stones grind the wheat into flour. Cora does this in the windmill."),
    ("How do you catch fish?", "how to catch fish", "Dov throws his long net into the lake at dawn, waits quietly, and pulls it in."),
    ("How do I plant carrots?", "how to plant carrots", "Make a small furrow in soft earth, drop the seeds in, cover them and water them well. Hugo plants his in spring."),
    ("How do the children get to school?", "how the children get to school", "The children walk to school over the stone bridge when the bell rings."),
    ("How does Kira cure a cold?", "how Kira cures a cold", "Kira gives you hot mint tea with honey and tells you to stay in bed."),
    ("How does Otto mend a clock?", "how Otto mends a clock", "Otto opens the clock, cleans every wheel, and puts it together again with his tiny screwdriver."),
)
# fmt: on

# (question, the same as a clause, answer): the village as a whole.
# fmt: off
ABOUT = (
    ("What is Larkmere?", "what Larkmere is", "[Larkmere is a little village between a green hill and a blue lake.|Larkmere is a small village by a lake. It has a bakery, a forge, a windmill, a school and an inn.]"),
    ("Where is Larkmere?", "where Larkmere is", "Larkmere lies between a green hill and Lark Lake."),
    ("How many people live in Larkmere?", "how many people live in Larkmere", "Twenty people live in Larkmere, and three of them are children."),
    ("How old is the village?", "how old the village is", "The village is about three hundred years old, as old as the oak at the edge of the forest."),
    ("How many animals live in the village?", "how many animals live in the village", "Twelve animals in the village have a name, and there are many sheep and birds besides."),
    ("What is the lake called?", "what the lake is called", "The lake is called Lark Lake."),
    ("What is the stream called?", "what the stream is called", "The stream is called the Wren, and an old stone bridge crosses it."),
    ("What is the inn called?", "what the inn is called", "The inn is called the Blue Lantern."),
    ("Who founded the village?", "who founded the village", "The village was founded by a fisherman and a miller, who met at the lake three hundred years ago."),
    ("Who lives in Larkmere?", "who lives in Larkmere", "[Twenty people live in Larkmere, among them Ada the baker, Bram the blacksmith, Kira the doctor and old Otto.|Twenty people, for example Edda the teacher, Dov the fisherman, Nils the innkeeper and the children Finn, Greta and Tilda.]"),
    ("Who are the children in the village?", "who the children of the village are", "The children of the village are Finn, Greta and Tilda."),
    ("Who is the oldest person in the village?", "who the oldest person in the village is", "The oldest person is Otto, the clockmaker. He is eighty-one years old."),
    ("Who is the youngest person in the village?", "who the youngest person in the village is", "The youngest person is Tilda. She is seven years old."),
    ("Who is the oldest woman in the village?", "who the oldest woman in the village is", "The oldest woman is Olga, the storyteller. She is seventy-four years old."),
    ("Is there a king in Larkmere?", "whether there is a king in Larkmere", "No, Larkmere has no king. The people talk on the market square and decide together."),
    ("Is there a shop in the village?", "whether there is a shop in the village", "There is no big shop, but there is a bakery, a dairy and a market on Saturday."),
    ("What can I do in Larkmere?", "what there is to do in Larkmere", "You can swim in the lake, walk in the forest, visit the market on Saturday and hear a story at the well."),
    ("What do people eat in Larkmere?", "what people eat in Larkmere", "People in Larkmere eat bread, cheese, fish pie, soup and a lot of honey cake."),
    ("Where can I sleep in the village?", "where to sleep in the village", "You can sleep at the inn, the Blue Lantern. Nils keeps the rooms warm."),
    ("Where can I buy bread?", "where to buy bread", "You can buy bread at the bakery on the market square."),
    ("Where can I eat supper?", "where to eat supper", "You can eat supper at the inn. Nils cooks soup and fish pie."),
    ("What is there to eat at the inn?", "what there is to eat at the inn", "At the inn you can eat fish pie, pumpkin soup and roast potatoes. Nils cooks them all."),
    ("What happens at the weekend?", "what happens at the weekend", "On Saturday there is a market, and on Sunday families have a picnic by the lake."),
    ("Where can I swim?", "where to swim", "You can swim in Lark Lake, near the jetty."),
    ("Where can I see the whole village?", "where to see the whole village", "You can see the whole village from the hill or from the clock tower."),
    ("What is the tallest building in the village?", "what the tallest building in the village is", "The tallest building is the clock tower on the market square."),
    ("Are there wolves in the forest?", "whether there are wolves in the forest", "No, there are no wolves in the forest. There are deer, hares and an owl called Luna."),
    ("What grows in the forest?", "what grows in the forest", "Oaks, pines, mushrooms and blackberries grow in the forest."),
    ("What can I buy at the market?", "what one can buy at the market", "At the market you can buy bread, cheese, honey, vegetables, fish and warm scarves."),
    ("Where does the flour come from?", "where the flour comes from", "The flour comes from the windmill, where Cora grinds the wheat. Bramble the donkey carries it to the bakery."),
    ("Where does the milk come from?", "where the milk comes from", "The milk comes from Clover, the cow at the dairy."),
    ("Where does the wool come from?", "where the wool comes from", "The wool comes from the sheep that Lars keeps on the meadow."),
    ("Who helps when somebody is ill?", "who helps when somebody is ill", "Kira, the doctor, helps everybody who is ill."),
    ("Who makes music in the village?", "who makes music in the village", "Bram plays the fiddle, Lars plays the flute, and Ada sings."),
)
# fmt: on
