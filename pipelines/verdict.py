"""Was distillation worth it? The answer to the question every run asks, from numbers to a sentence."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from distill.metrics import labelled, value
from distill.token_metrics import from_counts, row_counts
from pipelines import numbers
from pipelines.numbers import percent, points, short

Role = str
"""`teacher`, `student`, `baseline`, or the name of another train stage."""
Outcome = Literal["won", "likely", "unclear", "lost", "no_baseline"]

ANSWERS: dict[Outcome, str] = {
    "won": "Yes",
    "likely": "Probably",
    "unclear": "Not clearly",
    "lost": "No",
    "no_baseline": "Not known",
}
RESAMPLES = 1000
GREEDY = "_greedy"
"""What the names of metrics end with whose texts were written greedily."""
TITLES = {
    "accuracy": "accuracy",
    "f1": "F1",
    "f1_macro": "macro F1",
    "mcc": "MCC",
    "ece": "ECE",
    "pearson": "Pearson’s r",
    "spearman": "Spearman’s ρ",
    "mse": "MSE",
    "entity_f1": "F1 of names",
    "masked_accuracy": "hidden tokens found",
    "bleu": "BLEU",
    "bleu_greedy": "BLEU, greedy",
    "chrf": "chrF",
    "chrf_greedy": "chrF, greedy",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "length_ratio": "length",
    "repetition": "repeats",
    "copies": "copies",
    "hallucinated": "hallucinates",
    "empty": "empty",
    "log_prob": "log p a token",
    "perplexity": "perplexity",
    "token_accuracy": "next token",
    "sentences_per_second": "sentences/s",
    "sentences_per_second_greedy": "sentences/s, greedy",
}
"""What metrics are called in text."""
PLAIN = frozenset(
    {
        "agreement_kl",
        "mse",
        "length_ratio",
        "log_prob",
        "perplexity",
        "sentences_per_second",
        "sentences_per_second_greedy",
    }
)
"""Metrics that are no parts of a whole, and not written in hundredths."""


@dataclass(frozen=True)
class Spread:
    """Scores over seeds: mean, and sample standard deviation where there are two or more."""

    mean: float
    sd: float | None

    @classmethod
    def of(cls, scores: Sequence[float]) -> "Spread":
        """Take scores, one a seed."""
        return cls(float(np.mean(scores)), float(np.std(scores, ddof=1)) if len(scores) > 1 else None)


@dataclass(frozen=True)
class Gain:
    """What the student has over the baseline."""

    per_seed: dict[str, float]
    """Student minus baseline, by seed."""
    mean: float
    sd: float | None
    interval: tuple[float, float]
    """95 % interval of the mean over resampled rows; the models stay as they are."""

    @property
    def wins(self) -> int:
        """Seeds on which the student is ahead."""
        return sum(difference > 0 for difference in self.per_seed.values())

    @property
    def outcome(self) -> Outcome:
        """Say who won: for a plain yes, two seeds or more, all of them, and the interval have to agree."""
        if self.mean <= 0:
            return "lost"
        if self.wins < len(self.per_seed):
            return "unclear"
        return "won" if self.interval[0] > 0 and len(self.per_seed) > 1 else "likely"


def bootstrap(
    metric: str,
    pairs: Sequence[tuple[Tensor, Tensor]],
    labels: Tensor,
    *,
    classes: Sequence[str] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean difference between paired predictions, over resampled rows.

    pairs: logits (ours [N V], theirs [N V]) of one seed each; every resample takes the same rows of all of them
    (paired bootstrap; Koehn 2004).
    """
    rows = labelled(labels) if labels.ndim == 1 else labelled(labels).any(1)
    labels = labels[rows]
    scorers = [tuple(_scorer(metric, side[rows], labels, classes) for side in pair) for pair in pairs]
    random = torch.Generator().manual_seed(seed)
    differences = []
    for _ in range(resamples):
        pick = torch.randint(len(labels), (len(labels),), generator=random)
        differences.append(np.mean([ours(pick) - theirs(pick) for ours, theirs in scorers]))
    low, high = np.percentile(differences, (2.5, 97.5))
    return float(low), float(high)


def _scorer(metric: str, logits: Tensor, labels: Tensor, classes: Sequence[str]) -> Callable[[Tensor], float]:
    """Return what scores some of the rows; of counts that are added up, each row's are made once."""
    if labels.ndim == 1:
        return lambda pick: value(metric, logits[pick], labels[pick])
    counts = row_counts(metric, logits, labels, classes)
    return lambda pick: float(from_counts(metric, counts[pick].sum(0)))


def gain(
    metric: str,
    ours: Mapping[int, Tensor],
    theirs: Mapping[int, Tensor],
    labels: Tensor,
    classes: Sequence[str] = (),
) -> Gain | None:
    """Pair the logits [N V] of student and baseline seed by seed; None where no seed has both."""
    pairs = {seed: (ours[seed], theirs[seed]) for seed in ours if seed in theirs}
    if not pairs:
        return None
    scores = {seed: [value(metric, side, labels, classes) for side in pair] for seed, pair in pairs.items()}
    per_seed = {str(seed): own - other for seed, (own, other) in scores.items()}
    spread = Spread.of(list(per_seed.values()))
    interval = bootstrap(metric, list(pairs.values()), labels, classes=classes)
    return Gain(per_seed, spread.mean, spread.sd, interval)


def verdict(models: Mapping[Role, Mapping[str, Any]], metric: str, gained: Gain | None) -> dict[str, Any]:
    """Sum up results of `pipelines.evaluate`: spreads over seeds, the gain, what is kept, how much smaller and faster.

    `answer` and `reason` say it in words; `sentence` is both.
    """
    spreads = {role: Spread.of([seed[metric] for seed in model["seeds"].values()]) for role, model in models.items()}
    facts: dict[str, Any] = {str(role): asdict(spread) for role, spread in spreads.items()}
    facts |= {"retained": _retained(spreads), **_ratios(models)}
    if gained is not None:
        facts["gain"] = {
            **asdict(gained),
            "interval": list(gained.interval),
            "wins": gained.wins,
            "seeds": len(gained.per_seed),
        }
    facts["outcome"] = outcome = gained.outcome if gained is not None else "no_baseline"
    facts["answer"] = ANSWERS[outcome]
    facts["reason"] = f"{_reason(gained, metric)} {_cost(facts, metric)}".strip()
    return facts | {"sentence": f"{facts['answer']}: {facts['reason']}"}


def _reason(gained: Gain | None, metric: str) -> str:
    """Say in plain words what the answer rests on, doubts included."""
    if gained is None:
        return "nothing was trained without a teacher to compare with."
    seeds, size = len(gained.per_seed), f"{percent(abs(gained.mean))} points of {TITLES[metric]}"
    low, high = map(points, gained.interval)
    average = " on average" if seeds > 1 else ""
    by = f"by {size}{average} (95 % interval over rows {low} to {high})"
    same = "the same model trained without a teacher"
    match gained.outcome:
        case "won":
            return f"on each of {seeds} seeds the student beats {same}, {by}."
        case "likely":
            where = f"on each of {seeds} seeds" if seeds > 1 else "on the one seed that was run"
            few = "one seed cannot tell it from luck" if gained.interval[0] > 0 else "these rows are too few to be sure"
            return f"{where} the student beats {same}, {by}; {few}."
        case "unclear":
            return f"the student beats {same} on {gained.wins} of {seeds} seeds only, {by}."
        case _:
            ahead = f", and ahead on {gained.wins or 'none'} of {seeds} seeds" if seeds > 1 else ""
            if percent(gained.mean) == "0.0":
                return f"the student scores the same as {same}{average}{ahead}."
            interval = f"(95 % interval over rows {low} to {high})"
            return f"{average.lstrip()} the student is {size} behind {same} {interval}{ahead}.".lstrip()


def _cost(facts: Mapping[str, Any], metric: str) -> str:
    """Say what the student keeps of the teacher, and at what cost."""
    kept, smaller, faster = facts["retained"], facts["smaller"], facts["faster"]
    said = [f"keeps {100 * kept:.1f} % of the teacher’s {TITLES[metric]}"] if kept is not None else []
    said += [f"is {_times(smaller, 'smaller', 'larger')}"] if smaller is not None else []
    said += [f"is {_times(faster, 'faster', 'slower')} on single rows"] if faster is not None else []
    return f"The student {_join(said)}." if said else ""


def _retained(spreads: Mapping[Role, Spread]) -> float | None:
    """Share of the teacher’s score that the student keeps; without meaning where the teacher’s is not above 0."""
    if "teacher" not in spreads or "student" not in spreads or spreads["teacher"].mean <= 0:
        return None
    return spreads["student"].mean / spreads["teacher"].mean


def _ratios(models: Mapping[Role, Mapping[str, Any]]) -> dict[str, float | None]:
    """Return how many times smaller (parameters) and faster (median for one row) the student is than the teacher."""
    if "teacher" not in models or "student" not in models:
        return {"smaller": None, "faster": None}
    teacher, student = models["teacher"], models["student"]
    timed = "latency" in teacher and "latency" in student
    return {
        "smaller": teacher["parameters"] / student["parameters"],
        "faster": teacher["latency"]["1"]["p50_ms"] / student["latency"]["1"]["p50_ms"] if timed else None,
    }


def _times(ratio: float, more: str, less: str) -> str:
    if 0.95 < ratio < 1.05:
        return f"no {more}"
    return f"{ratio:.1f}× {more}" if ratio > 1 else f"{1 / ratio:.1f}× {less}"


def _join(said: Sequence[str]) -> str:
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"


def over_seeds(model: Mapping[str, Any], metric: str) -> str:
    """Write a metric of a model as its mean and standard deviation over seeds; a dash where it has none."""
    values = [seed[metric] for seed in model["seeds"].values() if seed.get(metric) is not None]
    if not values:
        return "–"
    found = Spread.of(values)
    if metric in PLAIN:
        return short(found.mean) + (f" ± {short(found.sd)}" if found.sd is not None else "")
    return numbers.spread(found.mean, found.sd)


def written(score: float, metric: str) -> str:
    """Write one value of a metric."""
    return short(score) if metric in PLAIN else percent(score)
