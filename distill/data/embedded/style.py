"""How people write: greetings, remarks beside the point, haste."""

from collections.abc import Sequence
from random import Random

_OPENED, _REMARKED, _CLOSED = 0.3, 0.05, 0.35
_LOWER, _UPPER, _BARE, _SLIP = 0.25, 0.03, 0.15, 0.15
"""How often a message is lower-case, upper-case, without its last full stop, has a slip of the finger."""
_ASKING = frozenset(["am", "can", "could", "do", "does", "how", "is", "what", "when", "where", "which", "why", "would"])
"""First words of a question."""
_SLIPPED_WORD = 5
"""Letters a word has at least for a slip to leave it readable."""


def pick(random: Random, choices: Sequence[str]) -> str:
    """Choose one, by `Random.random` alone: the only method whose numbers Python promises never to change."""
    return choices[int(random.random() * len(choices))]


def frame(
    random: Random, openers: Sequence[str], remarks: Sequence[str], closers: Sequence[str]
) -> tuple[str, list[str]]:
    """Choose how a message opens, and the sentences around it; an empty sentence is the place of the message."""
    opener = pick(random, openers) if random.random() < _OPENED else ""
    remark = [pick(random, remarks)] if random.random() < _REMARKED else []
    closer = [pick(random, closers)] if random.random() < _CLOSED else []
    return opener, ["", *remark, *closer] if random.random() < 0.5 else [*remark, "", *closer]


def join(opener: str, sentences: Sequence[str]) -> str:
    """Write an opener and sentences as one text, each with its capital and its stop."""
    if not opener:
        return " ".join(map(_sentence, sentences))
    first, *others = sentences
    return " ".join([_capital(opener), _stopped(_plain(first)), *map(_sentence, others)])


def hurry(random: Random, text: str) -> str:
    """Write it as somebody in a hurry might: case, last full stop, one slip of the finger."""
    if random.random() < _SLIP:
        text = _slip(random, text)
    if random.random() < _BARE:
        text = text.rstrip(".?!")
    case = random.random()
    if case < _LOWER:
        return text.lower()
    return text.upper() if case > 1 - _UPPER else text


def _sentence(text: str) -> str:
    return _stopped(_capital(text))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _plain(text: str) -> str:
    """Write the first word small, unless it is `I`, or capital throughout."""
    word = text.split()[0]
    proper = word == "I" or word.startswith("I'") or (len(word) > 1 and word.isupper())
    return text if proper else text[0].lower() + text[1:]


def _stopped(text: str) -> str:
    if text[-1] in ".?!":
        return text
    return text + ("?" if text.split()[0].lower() in _ASKING else ".")


def _slip(random: Random, text: str) -> str:
    """Swap two letters inside a word, leave one out, or type one twice."""
    words = text.split(" ")
    places = [place for place, word in enumerate(words) if len(word) >= _SLIPPED_WORD and word.isalpha()]
    if not places:
        return text
    place = places[int(random.random() * len(places))]
    word = words[place]
    at = 1 + int(random.random() * (len(word) - 3))
    words[place] = pick(
        random,
        [
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
        ],
    )
    return " ".join(words)
