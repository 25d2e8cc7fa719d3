"""Which of a teacher's texts a student does not learn from."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from configs.section import Section

Script = Literal[
    "Arabic", "Armenian", "Bengali", "Cyrillic", "Devanagari", "Ethiopic", "Georgian", "Greek", "Gujarati", "Gurmukhi",
    "Han", "Hangul", "Hebrew", "Hiragana", "Kannada", "Katakana", "Khmer", "Lao", "Latin", "Malayalam", "Myanmar",
    "Oriya", "Sinhala", "Tamil", "Telugu", "Thai", "Tibetan",
]  # fmt: skip
"""Scripts by their Unicode names; Japanese is Han, Hiragana and Katakana."""


class Repetition(Section):
    """When a text goes round in circles and its source does not. Where words are not written apart, two characters
    of Chinese or Japanese, or four of Thai, Lao, Khmer or Burmese, count as a word."""

    ngram: Annotated[int, Field(ge=2)] = 4
    """Words of the phrases that are counted wherever they stand in the text."""
    more: PositiveInt = 2
    """The most frequent of them comes at least this many times more than the source's most frequent one (oscillatory
    hallucination: Raunak et al. 2021). Made for sentences; paragraphs of 100 words and more take 4."""
    in_row: PositiveInt = 3
    """A shorter phrase comes more than this many times in a row, as in `ein ein ein ein Haus`."""
    characters_in_row: PositiveInt = 8
    """One to four characters come more than this many times in a row, white space aside."""


class Filters(Section):
    """What is wrong with a text is written down beside it: nothing is deleted, training leaves it out. `null` switches
    a check off. Empty texts and scores that are no finite numbers are always marked.

    Of 170,000 sentence pairs that people wrote (Tatoeba) the defaults mark 0.06 % into German, 0.11 % into English.
    """

    length_ratio: tuple[PositiveFloat, PositiveFloat] | None = (0.4, 2.5)
    """Least and greatest length of the text over that of the source, in characters, a wide one of East Asia counting
    two. Not in words: not every script writes them apart, and a German compound is one word for three."""
    shortest_checked: NonNegativeInt = 20
    """Length from which on texts are judged by `length_ratio` (the longer of source and text), `duplicates` and
    `scripts`, and by `copies` where case cannot tell a name: on less, one word decides."""
    repetition: Repetition | None = Repetition()
    copies: Annotated[float, Field(gt=0.0, le=1.0)] | None = 0.9
    """Least likeness to the source that makes a text its copy: Dice's coefficient of the sets of character trigrams,
    case and punctuation aside; 1: the same ones. Numbers, single words and what may be a name are never copies."""
    duplicates: PositiveInt | None = 20
    """Most different sources one text may be written for; beyond it all of them are marked (detached hallucination:
    Raunak et al. 2021)."""
    unended: bool = True
    """Whether texts that ran into their length limit are marked."""
    scripts: Annotated[tuple[Script, ...], Field(min_length=1)] | None = None
    """Scripts the texts are to be in, as `[Cyrillic]`."""
    script_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Least part of a text's letters in `scripts`; names in other letters are no fault."""
    worst: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    """Part of the texts to mark: those from which a model of the reverse direction gets the source worst, by its mean
    log-probability a token. Of texts with a score; never more of them, so equals at the bound stay."""

    @model_validator(mode="after")
    def _low_is_lower(self) -> "Filters":
        if self.length_ratio is not None and self.length_ratio[0] >= self.length_ratio[1]:
            low, high = self.length_ratio
            raise ValueError(f"`length_ratio` goes from the least to the greatest, not from {low:g} to {high:g}")
        return self
