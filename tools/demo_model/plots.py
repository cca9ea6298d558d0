"""The plots: each is a list of beats, one a line; ` / ` parts the ways to tell a beat, `?` marks one that may be left out.

The slots are those of `stories.Scene`. Themes after the name of a plot are what a listener may ask for.
"""

# ruff: noqa: E501 - a row of a table is one line

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plot:
    """What happens: the themes it serves and its beats, each a tuple of alternatives, the last of them perhaps empty."""

    name: str
    themes: tuple[str, ...]
    beats: tuple[tuple[str, ...], ...]

    @property
    def text(self) -> str:
        """Everything the plot may say, to find out which slots it leans on."""
        return " ".join(form for beat in self.beats for form in beat)


# Openings, feelings and endings that any plot may call on: {open}, {then}, {glad}, {sad}, {end}.
# fmt: off
BANKS = {
    "open": "[One {season} [morning|afternoon|evening]|[Early|Late] one {season} [morning|evening]|On a [bright|windy|quiet|cold|warm] {season} day|One {day} [morning|afternoon] in {season}"
            "|One [bright|grey|cold|windy|golden] morning|Last {season}|On {day}|On a [quiet|bright|windy] {day} in {season}]",
    "opened": "[Once upon a time there was a {role} called {hero}[, who lived {home}|].|Once upon a time, in the village of Larkmere, there lived a [{nature}|] {role} called {hero}."
              "|In the little village of Larkmere lived {hero} the {role}.|In Larkmere everybody knew {hero} the {role}.|There once was a [{nature}|] {role} in Larkmere. {His} name was {hero}.|]",
    "view": "[It was {season}, and {sight}.|{Sight}.|The air smelled of {season}.|The sun stood [low|high] over the lake.|A soft wind came from the lake.|The bell of the clock tower rang [seven|eight|nine|ten|three] times.|]",
    "detail": "[Somewhere a bird was singing.|It smelled of fresh bread and wood smoke.|{third} waved from a window.|The leaves whispered in the wind.|Two children ran past with a ball.|The smoke rose straight from the chimneys.|From far away came the sound of a fiddle.|The stones of the path were still wet.|Nobody else was about.|A white feather came down from the sky.|The clock tower struck the hour.|Far away, a dog was barking.]",
    "glad": "[{hero} laughed with joy.|{hero} smiled from ear to ear.|{hero} was so happy that {he} danced.|{hero} had not been so happy for a long time.|{His} eyes shone like stars.|{hero} jumped up and down.|Nothing could have made {hero} happier.|{hero} felt as light as a feather.|A warm feeling filled {his} heart.]",
    "sad": "[{hero} was very sad.|{hero} sat down and sighed.|Tears came to {his} eyes.|{hero} did not know what to do.|{hero} bit {his} lip.|{hero} hid {his} face in {his} hands.|For a while {hero} said nothing at all.|{hero} wanted to cry.|{His} heart felt heavy.]",
    "brave": '[{hero} took a deep breath.|{hero} was afraid, but {he} did not turn back.|{His} knees shook, but {he} went on.|Then {he} thought of {friend}, and {his} fear grew small.|{He} bit {his} lip and kept going.|"I can do this," {hero} whispered.]',
    "evening": "[That evening|When the sun went down|In the evening|Later|When the stars came out|Before bedtime]",
    "rest": "[{evening}, they [all|] sat [by the fire|at the well|at the inn|in front of the bakery] and [ate {food}|drank mint tea|told the story again|laughed about the day].|{evening}, {hero} went home, tired but happy.|Then they walked home together.]",
    "friendship": '[And from that day on they were the best of friends.|"That is what friends are for," said {friend}.|{hero} knew now that a friend is worth more than gold.|Since then, {hero} and {friend} have met every {day}.]',
    "lessons": "[And so {hero} learned that {lesson}.|{hero} never forgot that {lesson}.|Since that day {hero} has known that {lesson}.|]",
    "moral": '[And so {hero} learned that {lesson}.|{hero} never forgot that {lesson}.|"You see," said {friend}, "{lesson}."|From then on, everybody in Larkmere knew that {lesson}.|]',
}
# fmt: on

_PLOTS = """
# lost thing | something lost, helping, friendship | two heads are better than one; a friend helps you look; it is good to ask for help
{opened}
{open}, {hero} could not find {his} {item}. / {open}, {hero} noticed that {his} {item} was gone. / {open}, {hero} looked into {his} pocket, but the {item} was not there.
{view}
?{detail}
{He} looked under the bed, behind the door and in the garden, but {he} found nothing. / {He} searched {at} and {at2}, but it was nowhere. / First {he} looked {at}. Then {he} looked {at2}. There was no {item}.
{sad} / "Oh no," said {hero}. "I need my {item}!"
Then {friend} the {frole} came by. "What is the matter?" {fhe} asked. / Just then {friend} walked past and saw {his} face. "Why are you so sad?" asked {friend}. / "What are you looking for?" asked {friend}, who was just passing by.
"I have lost my {item}," said {hero}. "Will you help me look for it?" "Of course I will," said {friend}. / {hero} told {friend} about the {item}. "Two pairs of eyes see more than one," said {friend}. "I will help you." / "My {item} is gone," said {hero}. "When did you have it last?" asked {friend}. "I had it {at}," said {hero}.
?They asked {third} too, but {third} had not seen it. / They met {third}, who said, "Have you looked {at3}?"
Together they walked to {place3}. / So they went to {place3} and looked again.
There sat {pet} the {kind}, and in front of {phim} lay the {item}. / Suddenly {pet} the {kind} came running with the {item} in {phis} mouth. / There they heard a noise. It was {pet} the {kind}, sitting on the {item}!
{glad}
"Thank you, {pet}," {he} said, and gave {phim} {eats}. / {friend} laughed too. "So {pet} was the thief!"
{moral} / {friendship} / {rest}

# lost animal | animals, something lost, courage, helping | it is brave to go on when you are afraid; nobody is too small to be missed; love makes you brave
{open}, {pet} the {kind} was gone. / {open}, {hero} called for {pet} the {kind}, but {phe} did not come. / {hero} was on the way to {place} when {he} heard the news: {pet} the {kind} was missing.
{view}
"{pet}! Where are you?" called {hero}. Nobody answered. / {hero} called {phis} name again and again, but everything stayed silent.
?{detail}
{hero} asked {friend} for help, and together they looked {at}. / {hero} ran to {friend} the {frole}. "{pet} is lost," {he} cried. "Let us look for {phim}," said {friend}. / {friend} brought a lantern, and they began to search.
They looked {at}, but they found only some {tracks}. / {At} they saw small {tracks} on the ground. / They searched {at} and {at2}, but {pet} was not there.
?The [wind|rain|fog] grew stronger, and it became dark. / A cold wind began to blow. / Clouds came over the hill, and it started to rain.
{brave}
They followed the {tracks} to {place3}. / Then {hero} had an idea. "{pet} likes {eats}," {he} said. "Let us try {at3}." / Then they heard something. It came from {place3}.
There was {pet}, [cold and wet|stuck between two stones|sitting in a bush|caught in an old net|afraid to move]. / Behind a [tree|stone|fence] sat {pet}, and {phe} {psound} softly.
{hero} [carefully|gently|quickly] freed {phim} and held {phim} tight. / "Do not be afraid," said {hero}. "I will carry you home." / {hero} put {his} coat around {phim}.
{glad}
{evening}, {pet} got {eats}, and {hero} got {food}. / At home {pet} ate a lot of {eats} and fell asleep at once. / The whole village was happy that {pet} was safe.
?{moral} / {friendship}

# storm | weather, helping, storm, courage | together we are stronger than any storm; a village is strong when everybody helps; many hands make light work
{open}, the sky over Larkmere turned black. / {open}, a great storm came over the lake. / {open}, {hero} saw dark clouds behind the hill.
The wind howled, and the rain beat against the windows. / The wind tore leaves from the trees and tiles from the roofs. / Thunder rolled over the valley, and the animals ran to their sheds.
{hero} the {role} was {atwork} when {he} heard a crash. / {hero} looked out and saw that something was wrong {at}. / "Look!" cried {hero}. "The storm has reached {place}!"
?{detail}
The wind had done great damage {at}. / A big tree had fallen close to {place}. / The water was rising {at}.
?{pet} the {kind} was still out there and {psound} in fear. / {pet} the {kind} hid under a cart.
{brave}
{He} ran to {friend} the {frole}. "Come quickly," {he} called, "we must help!" / {He} rang the bell as loudly as {he} could. Soon {friend} and {third} came running. / {He} knocked at every door. {friend} came first, then {third}, and soon everybody was there.
{friend} brought ropes, {third} brought boards, and {hero} held the lantern. / They made a long line and carried stones and sacks. / {hero} and {friend} pulled with all their strength, while {third} brought nails and boards.
?All night they worked in the rain. / Nobody thought of sleep. / It took many hours.
In the morning the storm was over, and the sun came out. / At last the wind grew quiet, and a rainbow stood over the lake. / When the sun rose, {place} was safe.
{third} brought {food} for everybody. / {hero} was wet and tired, but very proud. / "Without you it would be gone," said {friend}, and {hero} smiled.
{moral} / Even today people in Larkmere talk about that night.

# surprise | food, birthday, kindness, surprise, friendship | giving makes you happier than getting; small gifts can be the greatest; a cake is best when it is shared
{opened}
{open}, {hero} remembered that it was {friend}'s birthday. / "Tomorrow is {friend}'s birthday," thought {hero} {open_small}. "What can I give {fhim}?" / {hero} wanted to surprise {friend} the {frole}.
{He} knew that {friend} loved {ffood}. / Everybody knows what {friend} likes best: {ffood}. / {hero} thought about it {at}. Then {he} remembered: {friend} loves {ffood}!
?{detail}
"I will make {ffood} for {fhim}," {he} said. / So {he} went to {third} and asked, "Will you show me how to make {ffood}?"
First {he} went to {place} to get what {he} needed. / {third} helped {him} in the kitchen. / {He} worked all morning and told nobody.
But then {pet} the {kind} came in and ate half of it! / But {hero} forgot the time, and it turned black in the oven. / But on the way {he} stumbled, and everything fell into the grass.
{sad}
"Do not worry," said {third}. "We will make it again together." / {third} laughed. "That happens to everybody. Try again!" / Then {third} came and said, "We still have time."
This time it was perfect. / The second one was even better than the first. / Soon the whole house smelled wonderful.
{evening}, they all hid {at2} and waited for {friend}. / {evening}, {hero} carried it to {place2}, where {friend} was waiting.
"Surprise!" they shouted. {friend} could not believe {fhis} eyes. / When {friend} saw it, {fhe} had tears of joy in {fhis} eyes. / {friend} took one bite and smiled. "This is the best {ffood} of my life," {fhe} said.
They sang and danced until the stars came out. / {friend} gave everybody a piece, even {pet}. / {rest}
?{moral}

# contest | contest, courage, friendship, feast | it is more important to help than to win; winning is not everything; a friend is better than a prize
{open}, the whole village came together for the {feast}. / It was the day of the {feast}, and {hero} had waited for it all {season}. / The {feast} was about to begin, and {hero} was very excited.
{view}
{hero} had worked on {his} {entry} for many days. / "This year I will win," said {hero}, and showed {friend} {his} {entry}. / {hero} the {role} had built a {entry} all alone.
?{detail}
{friend} had a {entry} too, and it was a fine one. / "We shall see," laughed {friend}, who had a {entry} as well. / It was very good, but everybody said that {friend}'s {entry} was even better.
Edda rang her bell, and the contest began. / "Ready, steady, go!" called Nils, and off they went. / Otto looked at his watch and gave the sign.
At first {hero} was ahead. / At first {friend} was faster, but {hero} came closer and closer. / For a long time nobody could say who was better.
Then {hero} heard a cry. {friend}'s {entry} was broken! / Suddenly {friend} fell and hurt {fhis} foot. / Then a strong wind came, and {friend} lost {fhis} {entry}.
{hero} stopped at once. {He} wanted to win, but {he} wanted to help even more. / What should {he} do? {hero} looked at the prize, and then at {friend}. / {hero} did not think twice and turned around.
"Take my hand," said {hero}. "We will do it together." / "You can share mine," {he} said, and helped {friend}. / {He} sat down beside {friend} and helped {fhim}, and lost a lot of time.
?{pet} the {kind} {psound} as if to cheer them on. / The people cheered for both of them.
In the end {third} won, but nobody clapped for {third} as loudly as for {hero}. / They came last, but they came together. / Nobody knows how, but they reached the end first, side by side.
The prize was {food}, and everybody got a piece. / Nils gave both of them {food}. / "You have won something better," said Olga. "You have won a friend."
{moral} / {friendship}

# learning | learning, work, patience | nobody is born a master; you learn by trying again; patience is the best teacher
{open}, {hero} went to see {friend} the {frole}. / {opened} {open}, {hero} visited {friend} the {frole}. / {hero} had always wanted to know how a {frole} works.
"I want to learn what you do," said {hero}. "Will you teach me?" / "May I help you today?" asked {hero}. / {He} watched {friend} for a while. "That looks easy," {he} said.
"Gladly," said {friend}. "But it takes patience." / {friend} smiled and gave {him} {fhis} {ftool}. / "It is harder than it looks," said {friend}, and showed {him} the {ftool}.
?{detail}
{hero} began at once, but everything went wrong. / The first try was a disaster. / {hero} worked [much too fast|as hard as {he} could], and soon everything was a mess.
{pet} the {kind} looked on and {psound}. / The {ftool} fell on {his} foot, and {he} cried out. / {third} came by and laughed.
{sad}
"I will never learn it," said {hero}. "I am no good at this." / "I give up," said {hero}.
"I also made mistakes when I began," said {friend}. "Try it again, slowly." / {friend} put a hand on {his} shoulder. "Not so fast. Watch, and then do it with me." / "Let us eat some {food} first," said {friend}, "and then we try again."
{hero} tried again, and again, and once more. / So {he} tried a second time, and a third time. / Day after day {hero} came back.
{evening}, it worked! / After a week, {he} could do it. / And then, suddenly, {his} hands knew what to do.
{glad}
"Now you are almost a {frole}," said {friend}. / {friend} nodded. "Well done," {fhe} said. / {hero} showed it to everybody in the village.
{moral}

# sick neighbour | kindness, helping, illness | a kind word is the best medicine; kindness comes back to you; nobody should be alone when they are ill
{open}, {friend} did not come to work. / {open}, {hero} noticed that {friend} was not {fatwork}. / {open}, the door of {friend} the {frole} stayed closed.
"Something is wrong," thought {hero}, and went to see {fhim}. / {hero} was worried and went to see {fhim}. / So {hero} knocked at {fhis} window and looked inside.
{friend} lay in bed with a red nose and a fever. / "I am ill," said {friend} in a weak voice. "My head hurts." / {friend} was in bed and coughed and coughed.
?{detail}
"Who will do my work now?" asked {friend}. / "And nobody looks after my work," {fhe} sighed. / "I cannot even feed {pet}," {fhe} sighed.
"Do not worry," said {hero}. "I will take care of everything." / "You must rest," said {hero}. "I will help you."
First {he} called Kira, who brought mint tea and honey. / {He} ran to the clinic and came back with Kira the doctor. "Three days in bed," said Kira.
Then {hero} took the {ftool} and did {friend}'s work as well as {he} could. / Then {he} went to work in {fhis} place. It was hard, but {he} did not give up. / {hero} fed {pet} the {kind}, swept the floor and cooked {ffood}.
?{third} came to help, too. / On the second day {third} brought flowers. / The children painted a picture for {friend}.
Every evening {hero} sat by {fhis} bed and told {fhim} a story. / In the evening {he} brought {ffood}, because {friend} loves it.
After three days {friend} was well again. / Soon {friend} could laugh again. / On {day} {friend} stood up and said, "I feel fine!"
"How can I thank you?" asked {friend}. "You would do the same for me," said {hero}. / "You are a true friend," said {friend}.
{moral} / {friendship}

# mystery | mystery, night, courage, surprise | things look bigger in the dark; it is good to look before you are afraid; not everything strange is bad
{open}, {hero} heard a strange sound. It came from {place}. / {open}, {hero} saw a small light {at}. / For three nights, people had heard something {at}. Nobody knew what it was.
{view}
"Maybe it is a ghost," said {friend} the {frole}. / "I do not like this," whispered {friend}. / {third} said that it was a robber. {friend} said that it was a ghost.
?{detail}
"There are no ghosts," said {hero}. "Let us find out." / But {hero} wanted to know the truth. / {hero} took a lantern and {his} {tool}. "Who comes with me?" {he} asked. "I do," said {friend}.
{brave}
Slowly {he} and {friend} walked to {place}. / Step by step they came closer. / They hid behind a wall and waited.
There it was again! It rustled and creaked. / Something moved in the dark. / The sound grew louder, and {friend} held {hero}'s hand.
{hero} lifted the lantern. / "Who is there?" called {hero}. / Then the moon came out from behind a cloud.
It was only {pet} the {kind}! {Phe} had found some {eats}. / There sat {pet} the {kind}, with {phis} head in a bucket. / In the light stood {pet} the {kind}, who looked as scared as they were.
{friend} laughed until {fhis} belly hurt. / They looked at each other and began to laugh. / "What a terrible ghost you are," said {hero}.
{hero} took {pet} home and gave {phim} {eats}. / They freed {pet} and brought {phim} home.
The next day the whole village laughed about it. / Since then, {friend} has not been afraid of ghosts. / {moral}

# journey | journey, courage, work, travel | every long way begins with one step; a promise is a promise; help is often closer than you think
{open}, {hero} had to bring {food} to {place}. / {open}, {friend} asked {hero} to carry a {item} to {place}. / "Please take this {item} to {third} {at}," said {friend} to {hero}.
"I will be back before dark," said {hero}. / {hero} packed {his} {tool} and some bread, and set out. / {hero} promised to be careful.
{view}
?{detail}
The way was long. It led past {place2} and over the stream. / First {he} came to {place2}. / {He} walked past {place2} and sang a little song.
There {pet} the {kind} was waiting and came along. / On the way {he} met {pet} the {kind}. "Do you want to come with me?" {he} asked. {pet} {psound}. / {pet} the {kind} saw {him} and followed {him}.
Then the path ended. A tree had fallen across it. / Then it began to rain, and {he} could hardly see the path. / At the stream the water was high, and {he} could not cross.
{sad} / "What now?" said {hero}. / {hero} stopped and looked around.
But {pet} knew a better way and ran ahead. / Then {he} had an idea. {He} used {his} {tool} and a strong branch. / A voice called from the other side. It was {third}, who threw {him} a rope.
{brave}
At last {he} saw {place}. / When {he} reached {place}, {he} was wet to the skin. / And there it was: {place}!
{third} was there and could not believe it. "You have come all this way?" / "Come in and get warm," said {third}, who was waiting there.
{hero} gave {third} what {he} had brought, and {third} was very happy. / "Here it is," said {hero}. "A promise is a promise." {third} thanked {him} with a song.
?{evening}, {hero} and {pet} walked home together. / On the way back the stars were shining.
{lessons}

# quarrel | quarrel, friendship, forgiveness | a small word can end a big quarrel; it is never too late to say sorry; friends can be angry and still be friends
{hero} and {friend} were good friends, but {open_small} they had a quarrel. / {open}, {hero} and {friend} began to argue. / {open}, there was a quarrel between {hero} the {role} and {friend} the {frole}.
It was about a {item}. / They both wanted the same {item}. / {friend} had borrowed {hero}'s {item} and lost it.
"It is mine," said {hero}. "No, it is mine," said {friend}. / "You never listen to me!" cried {hero}. "And you never say please," said {friend}.
?{detail}
{hero} went to {place}, and {friend} went to {place2}. / They turned their backs on each other and walked away. / For {days} days they did not say a word to each other.
But {hero} could not enjoy anything. Even {food} did not taste good. / {hero} felt lonely. Without {friend}, {at} it was much too quiet. / {hero} tried to work, but {he} thought of {friend} all the time.
{third} saw it and said, "It is hard to be angry all day." / {third} told {him} an old story about two brothers and a bridge. / {pet} the {kind} lay down beside {him} and {psound} sadly.
"I want my friend back," thought {hero}. / "Maybe I was wrong," {he} said to {pet}. / {hero} thought about it all night.
The next morning {he} went to {friend} with some {ffood}. / So {he} took the {item} and walked to {place2}. / {He} picked some flowers and knocked at {fhis} door.
At that moment {friend} came out. / {friend} opened the door. {Fhe} held {food} in {fhis} hand. / On the bridge they met in the middle.
"I am sorry," they both said at the same time. / "I am sorry," said {hero}. "I am sorry, too," said {friend}. / "Can you forgive me?" asked {hero}. "I already have," said {friend}.
They laughed and shared everything. / They shook hands, and then they laughed. / Now they use the {item} together.
{friendship} / {moral}

# found thing | discovery, surprise, imagination, honesty | honest people sleep well; every little thing has a story; one never knows what a day will bring
{open}, {hero} found a {thing} {at}. / {open}, {hero} the {role} was walking to {place} when {he} saw a {thing}. / "Look what I have found!" cried {hero} {open_small}. In {his} hands {he} held a {thing}.
{view}
It was a [small|big|strange|beautiful|shiny|very old] {thing}, and nobody had ever seen one like it. / {hero} had never seen such a {thing} before. / The {thing} was [covered with dust|as small as a nut|half hidden in the grass|wet and muddy].
?{detail}
"Where does it come from?" {he} asked. / "A {thing}!" {he} said. "Who could have lost it?" / {He} picked up the {thing} and looked at it from all sides.
{He} showed the {thing} to {friend} the {frole}. / {friend} came by and looked at the {thing}, too. / {hero} took it to {friend}, because {friend} knows many things.
"I do not know whose {thing} it is," said {friend}. "Ask {third}." / "That is not an ordinary {thing}," said {friend}. / "What a fine {thing}," said {friend}. "But it must belong to somebody."
?{pet} the {kind} sniffed at the {thing} and {psound}. / {pet} the {kind} was afraid of the {thing} and hid.
So they asked everybody in the village. {third} said no, and Nils said no. / They went from door to door and asked. / They put up a note on the market square: "Found: a {thing}."
At last old Otto smiled. "That {thing} was mine when I was a child," he said. / Then Olga clapped her hands. "My {thing}! I lost it many years ago." / In the end {third} knew it. "A traveller lost that {thing} last {season}," {third} said.
{hero} wanted to keep the {thing}, but {he} gave it back. / "Then you must have it," said {hero}. / {hero} was a little sad, but {he} knew what was right.
"You are an honest {role}," they said. "Keep the {thing}. It is a gift." / As a thank-you, {hero} got {food} and a song. / "Let us put the {thing} on the wall of the inn, where all can see it."
{glad}
?{moral}

# tale of a thing | imagination, night, bedtime, storyteller | stories are doors without locks; the best treasure is a good story; you can travel far without leaving your chair
{open}, the children sat around Olga at the well. "Tell us a story about a {thing}," said {hero}. / {evening}, {hero} asked Olga for a story about a {thing}. / {open}, {hero} wanted to hear about a {thing}. Everybody knew that only Olga could tell it. / {open}, it was cold, and everybody sat by the fire at the inn. "I know a story about a {thing}," said Olga.
Olga put down her knitting and began. / "Very well," said Olga, and her eyes shone. / "Listen," said Olga.
"Long ago there was a {thing} in a land far away. / "There once was a {thing} that lived behind the hill. / "Many years ago, a {thing} came to our lake.
The {thing} was very lonely, because nobody was like it. / Everybody was afraid of the {thing}, but it was kind. / The {thing} wanted to see the world. / The {thing} had a secret: it could sing. / The {thing} slept all day and came out at night.
So it went over the hill and through the forest. / One day a child came and was not afraid. / It travelled for seven days and seven nights.
There it met a {othername}, and the {othername} was lonely, too. / 'Do you want to be my friend?' asked a little {othername}. / On the way it helped a {othername} that was caught in a net.
From then on the {thing} and the {othername} were never apart." / The {thing} and the {othername} became friends, and they built a house by the water." / The {othername} laughed, and the {thing} was not alone any more. And if you listen at night, you can hear the {thing} and the {othername} laugh."
{hero} listened with big eyes. / Nobody said a word. Only {pet} the {kind} {psound}. / {hero} had forgotten {his} {food}.
"Is that true?" asked {hero}. "Every word," said Olga. / "And where is the {thing} now?" asked {hero}. Olga smiled. "Who knows?" she said.
That night {hero} dreamed of a {thing}. / {hero} went home and drew the {thing}. / In {his} dream, {hero} met the {thing} and it waved.
?{lessons}

# making a thing | imagination, making, play, work | with patience you can make anything; ideas are bigger than pockets; it is more fun to make something together
{open}, {hero} wanted to have a {thing}. / "I would love to have a {thing}," said {hero} {open_small}. / {opened} {open}, {hero} could think of nothing but a {thing}.
But there was no {thing} in all of Larkmere. / "A real {thing} is too expensive," {he} thought. / "We have never had a {thing} in Larkmere," said {friend}.
"Then I will make one," said {hero}. / "Let us make a {thing} out of wood," said {friend} the {frole}. / So {he} decided to build a {thing} {himself}.
?{detail}
{He} took some boards, a bit of paint and {his} {tool}. / {friend} brought wood and paper, and {third} brought paint. / {He} found old wheels, cloth and string {at}.
They sawed and glued all day. / {hero} worked until the sun went down. / First {he} drew a plan. Then {he} began to build.
The first {thing} looked funny and fell over. / "That looks more like a {othername} than a {thing}," laughed {friend}. / {pet} the {kind} ran off with a piece of it.
{sad} / But {hero} was not angry. {He} began again.
At last the {thing} was finished. It was [red and gold|blue and white|as big as a door|a little crooked, but beautiful|as green as the forest]. / After {days} days the {thing} stood {at}, and everybody came to see it. / And then it was done: the first {thing} of Larkmere!
"That is the finest {thing} in the world," said {third}. / {friend} walked around the {thing} three times. / The people clapped, and {pet} {psound}.
{glad}
?{evening}, they carried the {thing} through the village and sang. / Since then, the {thing} has stood {at2}. / Every child in Larkmere may play with it.
{moral}

# picture of a thing | art, imagination, colours, courage | everybody sees the world with other eyes; a picture can say more than words; it is good to show what you can do
{open}, {hero} saw an empty wall {at}. / {opened} {open}, {hero} stood in front of a big white wall {at}. / {open}, Nils said, "The wall {at} looks so empty. Who can paint something on it?"
"I will paint a {thing} there," said {hero}. / {hero} thought about it all day. Then {he} knew: it must be a {thing}! / "What do you think of a {thing}?" asked {hero}.
"A {thing}?" said {friend} the {frole}. "Nobody here has ever seen a {thing}." / "Why a {thing}?" asked {friend}. "Because I dreamed of one," said {hero}. / {friend} laughed. "You cannot paint a {thing} in Larkmere," {fhe} said.
?{detail}
But {hero} had already fetched {his} paint. / But {hero} saw the {thing} clearly in {his} mind. / So {hero} closed {his} eyes, and there it was, a {thing} in all its colours.
First {he} painted the sky, and then {he} painted the {thing}. / {He} took blue for the shadows and yellow for the light. / {He} painted from the morning until the evening and forgot to eat {his} {food}.
?{pet} the {kind} stepped into the paint and left {tracks} on the wall. / {third} held the ladder. / It began to rain, and {third} held an umbrella over {him}.
"Is it finished?" asked {third}. "Not yet," said {hero}. / {hero} was not sure. "It does not look right," {he} said. / Everybody wanted to see it, but {hero} said, "Wait."
When it was done, the people came to look at the {thing}. / {evening}, {hero} stepped back. The {thing} was finished. / The next day the whole village stood in front of the {thing}.
The {thing} was big and bright, and it seemed to move. / It was the most beautiful {thing} that anybody could think of. / It was a {thing} with golden edges, and the moon shone above it.
"Now I know what a {thing} looks like," said {friend}. / {friend} took off {fhis} hat. "I was wrong," {fhe} said. "It is wonderful." / Old Otto looked at the {thing} for a long time and smiled.
{glad}
?Today the {thing} is still there, and strangers stop to look at it. / Since then, people say, "Let us meet at the {thing}."
{lessons}

# fear | fear, courage, shyness, growing up | courage means to do it although you are afraid; you are braver than you think; everybody is afraid of something
{hero} the {role} was afraid of {fear}. / Nobody knew it, but {hero} was afraid of {fear}. / {opened} {hero} had a secret: {he} was afraid of {fear}.
{open}, {he} had to go {to}, and there was no way around it. / {open}, {friend} said, "Come with me to {place}." / {open}, the others wanted to go to {place}.
"I cannot," said {hero}. "I am afraid of {fear}." / {hero} looked at {his} feet and said nothing. / "I would rather stay at home," said {hero}.
?{detail}
"I was also afraid of {fear} once," said {friend}. / {friend} did not laugh. "Everybody is afraid of something," {fhe} said. "I am afraid of {fear2}."
"What did you do?" asked {hero}. "I took one small step," said {friend}, "and then another." / "Hold my hand," said {friend}. / "Take {pet} with you," said {friend}. "{Phe} is not afraid of anything."
{brave}
One step. Then another. {He} heard {his} own heart. / {hero} counted to ten and started to walk. / {pet} the {kind} walked beside {him} and {psound}.
Suddenly {he} noticed that it was not so bad. / Then {he} opened {his} eyes. Nothing had happened. / And what did {he} see? {At} it was beautiful.
"I have done it!" {he} cried. / {glad}
{friend} hugged {him}. / {friend} gave {him} some {food}. / "I knew it," said {friend}.
{evening}, {hero} told everybody at home about it. / Now {hero} goes there every {day}. / Now {he} helps others who are afraid of {fear}.
{moral}

# growing | garden, patience, seasons, nature | good things need time; a small seed can become a big joy; who waits will be rewarded
In spring, {hero} found a small seed in {his} pocket. / In spring, Hugo the gardener gave {hero} a seed. "Put it into the earth and wait," he said. / One spring day, {hero} planted a seed behind {his} house.
"What will it be?" asked {hero}. "Wait and see," said Hugo. / {He} did not know what kind of seed it was. / {friend} thought that it would be a tree. {hero} hoped for a flower.
{He} watered it every morning before going to work. / Every day {he} looked, and every day there was nothing. / {hero} put a little fence around it, because of {pet} the {kind}.
?{detail}
{sad} / "It will never grow," said {hero}.
"Give it time," said {friend}. / {friend} shook {fhis} head. "You must be patient."
In the first week of summer a green leaf came out of the ground. / Then, one morning after the rain, there was a tiny green leaf. / One day {pet} {psound} loudly. There was a green leaf!
It grew and grew. Soon it was as tall as {hero}, and then as tall as the door. / All summer it grew, and {hero} told it stories. / It grew higher than the fence and higher than the window.
In autumn it carried [a giant pumpkin|a hundred golden apples|a sunflower as big as a wheel|sweet yellow pears]. / When autumn came, there it was: [a giant pumpkin|the biggest sunflower of the village|a small tree full of pears].
{hero} called {friend} and {third}, and they could not believe it. / The whole village came to see it. / Even Otto came down from the clock tower to look at it.
At the Apple Fair, {hero} won the first prize. / They made a feast {at}, and there was enough for everybody. / {hero} shared it with the whole village.
"And what will you do with the seeds?" asked {friend}. "I will give one to every child," said {hero}. / {hero} kept one seed for the next spring.
{moral}

# visitor | visitor, kindness, travel, surprise | a stranger is a friend you have not met yet; an open door brings joy; kindness is the same in every language
{open}, a stranger came to Larkmere. / {open}, somebody knocked at the door of the inn. It was a traveller with a {item}. / {open}, a traveller came over the bridge with {a_thing} under {herarm} arm.
{view}
Nobody knew {her}. Some people closed their windows. / "Who is that?" asked {friend} the {frole}. "I have never seen {her} before." / The traveller looked tired and hungry.
?{detail}
But {hero} went up to {her} and said, "Welcome to Larkmere!" / {hero} the {role} was the first to say hello. / "Are you hungry?" asked {hero}.
{He} brought the traveller {food} and a cup of mint tea. / {He} took the traveller to the inn, and Nils gave {her} a bowl of soup. / {pet} the {kind} came closer and {psound} in a friendly way.
"Thank you," said the traveller. "I have walked for {days} days." / "How kind you are," said the traveller. "I come from the other side of the lake." / The traveller smiled. "I am looking for a place to rest," {she} said.
{hero} showed {her} {place} and {place2}. / Together they walked to {place}, and {hero} told {her} everything about the village. / {evening}, {hero} and {friend} asked {her} about the world.
The traveller told them about high mountains and wide seas. / Then the traveller opened {herarm} bag and took out a {thing}. / Then {she} sang a song that nobody had heard before.
The people came out of their houses and listened. / Even {third} came out to listen. / {friend} forgot that {fhe} had been afraid.
The next morning the traveller had to go on. / After {days} days the traveller said goodbye.
"This is for you," {she} said, and gave {hero} a {item}. / {hero} gave {her} bread and cheese for the way. / "Come back soon," called {hero}, and waved for a long time.
{lessons}

# a day | work, daily life, village | a good day is made of small things; work is lighter with a song; every day is a gift
{opened}
{hero} gets up early. {He} puts on {wears} and goes to work. / Rusty crows, and {hero} opens {his} eyes. A new {day} begins. / When {hero} the {role} wakes up, the village is still dark.
{sightnow}
?{detail}
First {he} [drinks some mint tea|eats a slice of bread|says hello to {pet} the {kind}|opens the window]. Then {he} takes {his} {tool}. / {He} never forgets {his} {tool}.
All morning {he} is {atwork}, where {he} {duty}. / {He} {duty}, and {he} likes it very much.
At ten o'clock {friend} comes by. "How are you today?" asks {friend}. "I am fine," says {hero}. / {friend} the {frole} comes for a visit, and they talk about the weather.
At noon {he} eats {hfood}, because that is what {he} likes best. / For lunch {he} has {hfood}. {hero} gives a little bit of {his} bread to {pet} the {kind}.
In the afternoon {he} walks to {place} and meets {third}. / Later {he} goes to {place}, because {third} needs help. / In the afternoon {pet} the {kind} gets into trouble, and everybody must laugh.
"Thank you for your help," says {third}. / "It is good to have you here," says {third}.
When the work is done, {he} likes {hobby}. / In the evening {he} has time for {hobby}.
Then the stars come out over Larkmere, and {hero} falls asleep. / The lamps go on, and the clock tower strikes nine. "What a good day," thinks {hero}. / {hero} closes {his} eyes and dreams of {place}.
?{moralnow}

# rescue on the lake | lake, water, danger, helping, courage | a cool head saves lives; one must never go out alone; help comes when you call
{open}, {hero} took a small boat and rowed out on the lake. / {open}, {hero} the {role} was on the lake with {pet} the {kind}. / {open}, {hero} wanted to cross Lark Lake alone.
{view}
At first everything was fine. The water was as smooth as glass. / {He} sang and looked at the clouds. / The village grew smaller and smaller behind {him}.
?{detail}
But then a fog came, so thick that {he} could not see {his} own hand. / But suddenly the wind turned, and the waves grew high. / Then {he} heard a crack. Water came into the boat!
"Help!" called {hero}, but nobody heard {him}. / {hero} did not know where the shore was. / {pet} {psound} in fear.
{hero} stayed calm. "I must think," {he} said. / {brave}
{He} took {his} {tool} and beat on the side of the boat. / {He} waved a white cloth and called again. / {He} began to sing as loudly as {he} could.
On the shore, {friend} heard it and ran to the jetty. / {friend} the {frole} was standing on the jetty and heard the sound. / Luna the owl heard it and flew to {friend}.
"Somebody is out there!" cried {friend}, and rang the bell of the ferry. / {friend} and Sam jumped into the ferry and rowed as fast as they could. / {friend} lit a big fire on the shore to show the way.
Soon {hero} saw a light, and the light came closer. / Then a rope flew through the fog, and {hero} caught it.
"Hold on," called Sam. "We have got you!" / "I am so glad to see you," said {hero}.
On the shore there was {food} and a warm blanket for {him}. / {rest}
{moral}
"""


def _read(text: str) -> tuple[tuple[Plot, ...], dict[str, tuple[str, ...]]]:
    """The plots of the text above, and the lessons of each."""
    plots, lessons = [], {}
    for block in text.strip().split("\n\n"):
        head, *lines = block.splitlines()
        name, themes, morals = (part.strip() for part in head.removeprefix("#").split("|"))
        beats = tuple(
            (*line.lstrip("?").split(" / "), "") if line[0] == "?" else tuple(line.split(" / ")) for line in lines
        )
        plots.append(Plot(name, tuple(themes.split(", ")), beats))
        lessons[name] = tuple(morals.split("; "))
    return tuple(plots), lessons


PLOTS, LESSONS = _read(_PLOTS)
THEMES = tuple(sorted({theme for plot in PLOTS for theme in plot.themes}))
