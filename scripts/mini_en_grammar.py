"""An endless supply of plain English sentences for training speech (`make_mini_en.py --hours`)."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

__all__ = ["sentences"]

_SLOTS: dict[str, str] = {
    "person": "the teacher|my uncle|her brother|our neighbor|the young doctor|a tall sailor|the shy clerk|"
    "an old farmer|the judge|his cousin|the tired nurse|their boss|a cheerful waiter|the painter|my father|"
    "the younger girl|a stranger|the captain|the new pilot|your sister",
    "people": "the children|my parents|both brothers|the students|two soldiers|her friends|the players|our guests|"
    "some tourists|the workers|those boys|the twins|few visitors|the judges|ten sailors",
    "thing": "a wooden box|the yellow chair|an orange jug|the heavy bag|a silver spoon|the old radio|a pair of shoes|"
    "the broken watch|a thick rope|the blue jacket|a fresh loaf|the small mirror|a leather belt|the green bottle|"
    "an empty jar|the long letter|a huge map|the sharp knife|a cup of tea|the gray blanket|a bunch of roses",
    "place": "in the garage|near the river|behind the church|on the porch|under the bridge|at the market|"
    "in the village|by the window|outside the bank|on the roof|beside the fountain|in the kitchen|at the harbor|"
    "above the valley|along the shore|in the yard|at the station|inside the tower",
    "time": "yesterday|this morning|last Thursday|every evening|before lunch|after the storm|at noon|in early March|"
    "during the winter|just before dawn|on Friday night|a week ago|once a year|after the game",
    "past": "found|carried|bought|measured|washed|dropped|painted|lost|chose|borrowed|hid|noticed|pushed|threw|sold|"
    "repaired|covered|ignored|recognized|watched",
    "will": "find|carry|buy|measure|wash|paint|choose|borrow|hide|bring|push|throw|sell|repair|cover|fetch|enjoy",
    "went": "waited|laughed|walked slowly|sang loudly|slept|shouted|argued|worked|stood quietly|played chess|"
    "looked around|sat down|rested|read a book",
    "adjective": "strange|beautiful|narrow|loud|frozen|cheap|dangerous|smooth|bright|noisy|cozy|dusty|unusual|warm|"
    "useless|enormous|quiet|shiny",
    "noun": "path|boat|house|voice|garden|engine|bridge|room|journey|church|tower|river|village|picture|story|song|"
    "machine|island|choice|lake",
    "number": "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty",
    "many": "birds|boxes|horses|oranges|chairs|jars|letters|candles|bridges|ships|pages|sheep|windows|coins|bushes",
    "why": "because it was raining|although nobody asked|while the music played|before anyone noticed|"
    "when the bell rang|after a long pause|as soon as it grew dark|since the road was closed|until the sun rose",
    "said": "said|thought|knew|explained|hoped|believed|told us",
    "how": "carefully|quickly|with great joy|without a word|rather slowly|on purpose|as usual|with both hands",
}
_PATTERNS = (
    "{person} {past} {thing} {place}.",
    "{people} {past} {thing} {time}.",
    "{person} will {will} {thing} {time}.",
    "{person} {went} {place} {why}.",
    "{people} {went} {time} {place}.",
    "did {person} {will} {thing} {place}?",
    "could {people} {will} {thing} {time}?",
    "{person} {said} the {noun} was {adjective}.",
    "the {noun} {place} was more {adjective} than the {noun}.",
    "we counted {number} {many} {place} {time}.",
    "there were {number} {adjective} {many} {place}.",
    "please {will} {thing} {how}, {said} {person}.",
    "{thing} was {adjective}, but {person} {past} it {how}.",
    "such {adjective} {many} are never {place}.",
    "{person} {went} {how}, and {people} {went} too.",
    "if you {will} {thing}, {people} will {will} it {how}.",
    "what a {adjective} {noun} {person} {past} {time}!",
    "neither {person} nor {person} {past} {thing}.",
    "{time}, {person} {past} {number} {many}.",
    "you should {will} {thing} {how} {place}.",
)


def sentences(seed: int) -> Iterator[str]:
    """Different sentences in an order that the seed decides, without end until the grammar runs dry of new ones."""
    generator = random.Random(seed)
    seen: set[str] = set()
    while True:
        pattern = generator.choice(_PATTERNS)
        text = re.sub(r"\{(\w+)\}", lambda slot: generator.choice(_SLOTS[slot[1]].split("|")), pattern)
        text = re.sub(r"\ba (?=[aeiou])", "an ", text)
        if text not in seen:
            seen.add(text)
            yield text[0].upper() + text[1:]
