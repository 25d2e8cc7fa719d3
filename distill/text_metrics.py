"""How good the texts are that a model writes: how like the references, and how often they go wrong."""

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from torchmetrics import __version__ as torchmetrics_version
from torchmetrics.functional.text import rouge_score

from configs.errors import suggest
from distill.errors import DataError, ModelError
from distill.text_faults import FAULTS, Written, fault_shares

References = Sequence[str | Sequence[str]]
"""One reference a row, or several; rows may have different numbers of them."""

DECIDING = ("bleu", "chrf", "rouge1", "rouge2", "rougeL")
"""The metrics a task may be decided by."""
RESAMPLES = 1000
_ROUGE = ("rouge1", "rouge2", "rougeL")


def score(
    texts: Sequence[str], references: References, sources: Sequence[str], *, rouge: bool = False
) -> dict[str, float]:
    """Score texts against references, by the names of `names`.

    bleu: corpus BLEU of 13a tokens, with case, 0 to 1; length_ratio: its tokens over those of the nearest references
    (sacreBLEU, Post 2018). chrf: chrF2, 0 to 1 (Popović 2016). rouge1, rouge2, rougeL: F-measure, mean over rows, as
    Google's rouge-score has it without stemming: all but a–z and digits is space; of several references the best
    counts (Lin 2004). repetition, copies, hallucinated, empty: shares of rows, see `fault_shares`.

    Raises `DataError` where numbers differ, a row has no reference, or there are no rows.
    """
    listed = _listed(texts, references)
    if len(sources) != len(texts):
        raise DataError(f"metrics: {len(texts)} texts for {len(sources)} sources")
    rows = [Written(*row) for row in zip(texts, sources, listed, strict=True)]
    bleu = _sacrebleu("bleu", listed).corpus_score(texts, None)
    found = {"bleu": _fraction(bleu), "length_ratio": float(bleu.ratio), **fault_shares(rows)}
    return {name: found[name] if name in found else _value(name, texts, listed) for name in names(rouge=rouge)}


def names(*, rouge: bool = False) -> tuple[str, ...]:
    """Return the names of the metrics `score` gives, those that may decide first."""
    return (*(name for name in DECIDING if rouge or name not in _ROUGE), "length_ratio", *FAULTS)


def value(metric: str, texts: Sequence[str], references: References) -> float:
    """Return one of `DECIDING`. Raises `DataError` as `score` does, `ModelError` for another name."""
    return _value(_known(metric), texts, _listed(texts, references))


def signature(metric: str, references: References | None = None) -> str:
    """Return how one of `DECIDING` is computed, as sacreBLEU writes it; without `references`, for one a row.

    Raises `ModelError` for another name.
    """
    numbers = {len(_several(found)) for found in references or ("",)}
    number = numbers.pop() if len(numbers) == 1 else -1
    if _known(metric) in _ROUGE:
        nrefs = "var" if number < 0 else number
        return f"nrefs:{nrefs}|case:lc|stem:no|tok:a-z0-9|mean:f|version:torchmetrics-{torchmetrics_version}"
    made = BLEU() if metric == "bleu" else CHRF()
    made.num_refs = number
    return str(made.get_signature())


def bootstrap(
    metric: str,
    pairs: Sequence[tuple[Sequence[str], Sequence[str]]],
    references: References,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean difference between paired texts, over resampled rows.

    pairs: texts (ours, theirs) of one seed each; every resample takes the same rows of all of them (paired bootstrap;
    Koehn 2004). Rows are counted once, a resample adds up their counts. Raises as `value` does.
    """
    systems = [texts for pair in pairs for texts in pair]
    listed = [_listed(texts, references) for texts in systems]
    counts, total = _counted(_known(metric), systems, listed[0])
    rows, random = len(references), np.random.default_rng(seed)
    differences = []
    for _ in range(resamples):
        times = np.bincount(random.integers(rows, size=rows), minlength=rows).astype(np.float64)
        scores = np.array([total(times @ found) for found in counts])
        differences.append(np.mean(scores[::2] - scores[1::2]))
    low, high = np.percentile(differences, (2.5, 97.5))
    return float(low), float(high)


def _counted(
    metric: str, systems: Sequence[Sequence[str]], references: list[list[str]]
) -> tuple[list[NDArray[np.float64]], Callable[[NDArray[np.float64]], float]]:
    """Return what is counted of each system's rows [N C], and what makes a score of the sums over rows [C]."""
    if metric in _ROUGE:
        means = [[(found, 1.0) for found in _rouge(metric, texts, references)] for texts in systems]
        return [np.array(rows) for rows in means], lambda sums: float(sums[0] / sums[1])
    # no public method gives chrF's counts; sacreBLEU's own significance tests rest on these two, there since its 2.0
    made = _sacrebleu(metric, references)
    counts = [np.array(made._extract_corpus_statistics(texts, None), np.float64) for texts in systems]
    return counts, lambda sums: _fraction(made._compute_score_from_stats(sums.astype(np.int64).tolist()))


def _value(metric: str, texts: Sequence[str], references: list[list[str]]) -> float:
    if metric in _ROUGE:
        return float(np.mean(_rouge(metric, texts, references)))
    return _fraction(_sacrebleu(metric, references).corpus_score(texts, None))


def _sacrebleu(metric: str, references: list[list[str]]) -> BLEU | CHRF:
    # None where a row has fewer: sacreBLEU skips it, but takes an empty text for one more reference
    columns: list[list[Any]] = [list(column) for column in zip_longest(*references)]
    return BLEU(force=True, references=columns) if metric == "bleu" else CHRF(references=columns)


def _fraction(found: Any) -> float:
    return min(float(found.score) / 100, 1.0)  # perfect BLEU is 100.00000000000004


def _rouge(metric: str, texts: Sequence[str], references: list[list[str]]) -> list[float]:
    """Return the F-measure of each row."""
    rows = zip(texts, references, strict=True)
    return [float(rouge_score([text], [found], rouge_keys=metric)[f"{metric}_fmeasure"]) for text, found in rows]


def _listed(texts: Sequence[str], references: References) -> list[list[str]]:
    if len(texts) != len(references):
        raise DataError(f"metrics: {len(texts)} texts for {len(references)} references")
    if not texts:
        raise DataError("metrics: there are no rows to score on")
    listed = [_several(found) for found in references]
    if [] in listed:
        raise DataError(f"metrics: row {listed.index([]) + 1} of {len(listed)} has no reference")
    return listed


def _several(found: str | Sequence[str]) -> list[str]:
    return [found] if isinstance(found, str) else list(found)


def _known(metric: str) -> str:
    if metric not in DECIDING:
        raise ModelError(f"task.metric: `{metric}` is no metric of a generation{suggest(metric, DECIDING)}")
    return metric
