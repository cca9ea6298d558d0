"""Workers that lie, each beside an honest one, before the checks that the product itself makes.

siblings   files of other models that a liar may serve: fewer bits, fewer layers, other adapters
liar       what such a worker computes, in real engines, and what it signs
court      what comes of it: `haif receipt verify`, then `haif receipt replay`, which is a validator's judgement too
arena      the engines and models of one run
contest    an attack as it is run, with its honest control
served     attacks on what is computed: model, numbers, adapter, prompt, layers, sampling
forged     attacks on what is said of it: other tokens, other answers, other texts, ends and counts
written    attacks on bytes: signatures, encodings, trees, tickets
drawn      attacks on the lot of validators
colluding  attacks of validators on panels
honest     no attack: honest answers of every kind
matrix     the numbered rows of the attack matrix, and those that nothing here can answer yet
mesh       a mesh on loopback some of whose workers lie; demo: how each is caught, to be watched
tally      what was counted, with intervals; report: how people and machines read it
"""
