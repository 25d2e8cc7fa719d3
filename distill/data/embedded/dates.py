"""English sentences about dates, times, numbers and prices with their German: hand-written frames, filled.

A frame is an English sentence with the German ones that are as good. In both, `{slot}` or `{slot.form}` stands for one
of the slot's fillers and `[a|b]` for one of the choices. A source's German is drawn among all its renderings, so that
like questions meet unlike answers. All parts share the frames but not what fills them: no source stands in two parts,
or twice in one.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from itertools import cycle, islice, product
from random import Random
from typing import TYPE_CHECKING, Any

import yaml

from configs.errors import suggest
from distill.data.embedded import style
from distill.data.embedded.grammar import PARTS, Part
from distill.errors import DataError

if TYPE_CHECKING:
    from distill.data.embedded.fillers import Filler, Slots

NAME = "dates-en-de"

_ROWS: Mapping[Part, int] = {"train": 6_000, "validation": 300, "test": 600, "transfer": 12_000}
_TRIES = 4
"""Drawings for each row wanted, before the frames count as used up."""
_PACKAGES = {"babel": "Babel", "num2words": "num2words"}
_PIECE = re.compile(r"(\{[\w.]+\}|\[[^\[\]]*\])")


def load_pairs(part: Part) -> list[tuple[str, str | None]]:
    """Return the English texts of a part with their German; those of `transfer` carry none.

    Raise DataError where there is no such part, or Babel or num2words is not installed.
    """
    return [(row.english, row.german) for row in _part(part)]


def renderings(part: Part) -> list[list[str]]:
    """Return for each row of `load_pairs` every German text that is as good as the one drawn."""
    return [_all(row) for row in _part(part)]


def frames(part: Part) -> list[str]:
    """Return for each row of `load_pairs` the English frame it was drawn from."""
    return [row.frame.english for row in _part(part)]


@dataclass(frozen=True)
class _Frame:
    english: str
    german: tuple[str, ...]


@dataclass(frozen=True)
class _Row:
    english: str
    german: str | None
    frame: _Frame
    fillers: Mapping[str, "Filler"]


def _part(part: str) -> list[_Row]:
    missing = [name for package, name in _PACKAGES.items() if find_spec(package) is None]
    if missing:
        raise DataError(f"{NAME}: {', '.join(missing)} not installed; pip install 'distill-pipeline[demo]'")
    if part not in PARTS:
        raise DataError(f"`{NAME}` has no part `{part}`{suggest(part, PARTS)}")
    return _draw_all()[part]


@cache
def _draw_all() -> Mapping[str, list[_Row]]:
    """Draw all parts together, since no source may stand in two of them."""
    frames, slots, seen = _frames(), _slots(), set[str]()
    return {part: _draw(part, frames, slots, seen) for part in PARTS}


def _draw(part: Part, frames: Sequence[_Frame], slots: "Slots", seen: set[str]) -> list[_Row]:
    """Take one row of each frame in turn until there are enough."""
    random, rows = Random(f"{NAME} {part}"), list[_Row]()
    for frame in islice(cycle(frames), _TRIES * _ROWS[part]):
        if len(rows) == _ROWS[part]:
            return sorted(rows, key=lambda row: hashlib.sha256(row.english.encode()).digest())
        row = _row(random, frame, slots, translated=part != "transfer")
        if row.english not in seen:
            seen.add(row.english)
            rows.append(row)
    raise DataError(f"{NAME}: its frames for {part} give {len(rows)} texts, {_ROWS[part]} are wanted; add some")


def _row(random: Random, frame: _Frame, slots: "Slots", translated: bool) -> _Row:
    names = [piece[1:-1] for piece in _PIECE.split(frame.english) if piece.startswith("{")]
    fillers = {name: slots[name][int(random.random() * len(slots[name]))] for name in names}
    english = _one(random, _options(frame.english, lambda name: [fillers[name].english]))
    german = _one(random, _german(style.pick(random, frame.german), fillers)) if translated else None
    return _Row(english, german, frame, fillers)


def _all(row: _Row) -> list[str]:
    """Write every sentence the German frames allow, each once."""
    sentences = (_sentence(words) for line in row.frame.german for words in product(*_german(line, row.fillers)))
    return list(dict.fromkeys(sentences))


def _german(frame: str, fillers: Mapping[str, "Filler"]) -> list[Sequence[str]]:
    def forms(name: str) -> Sequence[str]:
        slot, _, form = name.partition(".")
        return fillers[slot].german[form]

    return _options(frame, forms)


def _options(frame: str, texts: Callable[[str], Sequence[str]]) -> list[Sequence[str]]:
    """Cut a frame into pieces, each with the texts it may be."""
    kinds: Mapping[str, Callable[[str], Sequence[str]]] = {"{": texts, "[": lambda choices: choices.split("|")}
    return [kinds[piece[0]](piece[1:-1]) if piece[0] in kinds else [piece] for piece in _PIECE.split(frame) if piece]


def _one(random: Random, options: Sequence[Sequence[str]]) -> str:
    return _sentence([style.pick(random, texts) for texts in options])


def _sentence(words: Sequence[str]) -> str:
    """Join a sentence, with one kind of space: CLDR's narrow and no-break spaces change from release to release."""
    text = unicodedata.normalize("NFC", " ".join("".join(words).split()))
    return text[0].upper() + text[1:]


def _frames() -> list[_Frame]:
    """Read the frames of all topics, in the order of the topics' names."""
    folder = files(__package__).joinpath("dates_en_de", "frames")
    topics = [_read("frames", file.name) for file in sorted(folder.iterdir(), key=lambda file: file.name)]
    pairs = [pair for topic in topics for pair in topic.items()]
    return [_Frame(english, tuple(german.splitlines())) for english, german in pairs]


def _slots() -> "Slots":
    # the modules below bring in Babel and num2words, which only this set needs
    from distill.data.embedded import calendar_fillers, clock_fillers, fillers, number_fillers, unit_fillers

    found = _read("words.yaml")
    words = fillers.from_words(found)
    days, numbers = calendar_fillers.slots(words), number_fillers.slots()
    return {**words, **days, **clock_fillers.slots(), **numbers, **unit_fillers.slots(found["goods"])}


def _read(*names: str) -> dict[str, Any]:
    file = files(__package__).joinpath("dates_en_de", *names)
    return dict(yaml.safe_load(file.read_text(encoding="utf-8")))
