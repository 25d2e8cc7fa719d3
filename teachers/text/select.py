"""Which of a teacher's texts a student learns from."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

Metric = Literal["bleu", "chrf"]
Scorer = Callable[[str, str], float]


def scorer(metric: Metric) -> Scorer:
    """Return what scores a text against a reference, 0 to 100: sentence BLEU+1 (Lin and Och 2004: one is added to the
    counts of n-grams longer than a word), or chrF (Popović 2015), as sacreBLEU computes them.
    """
    made = BLEU(smooth_method="add-k", smooth_value=1, effective_order=True) if metric == "bleu" else CHRF()

    def score(text: str, reference: str) -> float:
        return float(made.sentence_score(text, [reference]).score)

    return score


def oracle(texts: Sequence[str], reference: str, score: Scorer) -> tuple[int, float]:
    """Return the text most like the reference, and its score; of equals the one the teacher prefers.

    Sequence-level interpolation (Kim and Rush 2016, section 3.3): y* = argmax over the teacher's K-best of
    similarity(y, reference).
    """
    scores = [score(text, reference) for text in texts]
    best = int(np.argmax(scores))
    return best, scores[best]


def weights(scores: Sequence[float], temperature: float = 1.0) -> NDArray[np.float64]:
    """Return softmax(score / T) over a row's hypotheses: the teacher's distribution, cut to its K-best (Kim and Rush
    2016, section 3.2 keeps the first alone). Raises ValueError for a temperature that is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    scaled = np.asarray(scores, dtype=np.float64) / temperature
    raised = np.exp(scaled - scaled.max())
    found: NDArray[np.float64] = raised / raised.sum()
    return found
