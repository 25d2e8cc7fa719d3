"""Which of a teacher's texts are faulty, and why. Nothing is deleted: whoever trains leaves out what has a reason."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from configs.filters import Filters, Repetition
from distill.errors import DataError
from distill.text_units import is_empty
from teachers.text import measures

REASONS = ("empty", "no number", "unended", "length", "repetition", "copy", "duplicate", "script", "worst")
"""Why a text is left out, in the order they are told."""

_LONGEST_SYLLABLE = 4
"""Characters of the units that `characters_in_row` looks for."""


@dataclass(frozen=True)
class Candidate:
    """A text a teacher wrote."""

    source: str
    text: str
    score: float | None
    """The teacher's; none where it does not tell."""
    ended: bool
    """Whether it ended by itself, and not at a limit."""
    reverse: float | None = None
    """Mean log-probability a token of the source given the text, by a model of the reverse direction."""


Check = Callable[[Candidate], bool]


def reasons(candidates: Sequence[Candidate], filters: Filters) -> list[tuple[str, ...]]:
    """Return for each text all the reasons to leave it out, in the order of REASONS; none where it is kept.

    Each check judges all rows, whatever another one finds and in any order of them; an empty text is judged as a row
    only. Raises DataError where `worst` is asked for and no row has a reverse model's score.
    """
    of_rows, of_texts = _row_checks(candidates, filters), _text_checks(candidates, filters)
    every = of_rows | of_texts
    ordered = [(name, every[name]) for name in REASONS if name in every]
    rows_only = [(name, check) for name, check in ordered if name in of_rows]
    checks = (rows_only if is_empty(one.text) else ordered for one in candidates)
    return [tuple(name for name, check in asked if check(one)) for one, asked in zip(candidates, checks, strict=True)]


def counts(found: Sequence[tuple[str, ...]]) -> dict[str, int]:
    """Return how many texts each reason marks, in the order of REASONS; a reason that marks none is left out."""
    times = Counter(name for names in found for name in names)
    return {name: times[name] for name in REASONS if times[name]}


def _row_checks(candidates: Sequence[Candidate], filters: Filters) -> dict[str, Check]:
    checks: dict[str, Check] = {"empty": lambda one: is_empty(one.text), "no number": _has_no_number}
    if filters.unended:
        checks["unended"] = lambda one: not one.ended
    if filters.worst is not None:
        bound = _bound(candidates, filters.worst)
        checks["worst"] = lambda one: one.reverse is not None and -math.inf < one.reverse < bound
    return checks


def _text_checks(candidates: Sequence[Candidate], filters: Filters) -> dict[str, Check]:
    checks: dict[str, Check] = {}
    shortest = filters.shortest_checked
    if (ratio := filters.length_ratio) is not None:
        checks["length"] = lambda one: _strays(one, ratio, shortest)
    if (rule := filters.repetition) is not None:
        checks["repetition"] = lambda one: _repeats(one, rule)
    if (least := filters.copies) is not None:
        checks["copy"] = lambda one: _is_copy(one, least, shortest)
    if (limit := filters.duplicates) is not None:
        repeated = _repeated(candidates, limit, shortest)
        checks["duplicate"] = lambda one: measures.key(one.text) in repeated
    if filters.scripts is not None:
        names, share = frozenset[str](filters.scripts), filters.script_share
        checks["script"] = lambda one: (
            measures.width(one.text) >= shortest and measures.script_share(one.text, names) < share
        )
    return checks


def _has_no_number(one: Candidate) -> bool:
    return any(score is not None and not math.isfinite(score) for score in (one.score, one.reverse))


def _bound(candidates: Sequence[Candidate], worst: float) -> float:
    """Return the score below which the worst lie: at most this part of the rows with a score, equals kept together."""
    scores = sorted(one.reverse for one in candidates if one.reverse is not None and math.isfinite(one.reverse))
    if candidates and not scores:
        raise DataError(f"filters.worst: no row has a reverse model's score to find the worst {worst:g} by")
    # the fraction as it is written: 0.29 of 100 rows are 29, not the 28 of 28.999999999999996
    return scores[int(Fraction(str(worst)) * len(scores))] if scores else -math.inf


def _strays(one: Candidate, ratio: tuple[float, float], shortest: int) -> bool:
    source, text = measures.width(one.source), measures.width(one.text)
    return max(source, text) >= shortest and not ratio[0] * source <= text <= ratio[1] * source


def _repeats(one: Candidate, rule: Repetition) -> bool:
    """Whether a text goes round in circles and its source does not."""
    most = measures.most_frequent(one.text, rule.ngram)
    if most > rule.more and most - measures.most_frequent(one.source, rule.ngram) >= rule.more:
        return True
    return _loops(one.text, rule) and not _loops(one.source, rule)


def _loops(text: str, rule: Repetition) -> bool:
    return measures.words_loop(text, rule.ngram - 1, rule.in_row) or measures.characters_loop(
        text, _LONGEST_SYLLABLE, rule.characters_in_row
    )


def _is_copy(one: Candidate, least: float, shortest: int) -> bool:
    alike = measures.likeness(measures.key(one.source), measures.key(one.text))
    return alike >= least and not measures.may_be_name(one.text, shortest)


def _repeated(candidates: Sequence[Candidate], limit: int, shortest: int) -> set[str]:
    """Return the texts that were written for more than `limit` different sources, but for short ones.

    All rows of such a text are faulty, the best-scored one too: a detached text fits none of its sources, and its score
    tells that it is fluent, not that it is right.
    """
    times = Counter(measures.key(one.text) for one in candidates)
    sources: defaultdict[str, set[str]] = defaultdict(set)
    for one in candidates:
        text = measures.key(one.text)
        if times[text] > limit and measures.width(text) >= shortest:
            sources[text].add(measures.key(one.source))
    return {text for text, found in sources.items() if len(found) > limit}
