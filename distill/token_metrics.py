"""Scores of what is said at many positions of a row: classes of words, hidden tokens.

Each score is made of counts that are added up over rows, so that parts of an epoch, ranks and resampled rows are added
in the same way.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from distill.entities import entity_counts, is_iob2
from distill.errors import DataError
from distill.types import IGNORED

TokenKind = Literal["tagging", "masked_lm"]


class TokenMetrics(Metric):
    """Every score of a task over all rows of an epoch, on all ranks."""

    full_state_update = False

    def __init__(self, kind: TokenKind, outputs: int, classes: Sequence[str] = ()) -> None:
        """Take the task's kind, the model's outputs and their names."""
        super().__init__()
        self.kind: TokenKind = kind
        self.classes = tuple(classes)
        sizes = {"accuracy": 2, "f1_macro": 3 * outputs, "entity_f1": 3, "masked_accuracy": 2, "log_prob": 2}
        for name in _counted(kind, classes):
            zeros = torch.zeros(sizes[name], dtype=torch.float64)
            self.add_state(name, default=zeros, dist_reduce_fx="sum", persistent=True)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Take the logits [B T V] and labels [B T] of a batch."""
        places, gold = labelled_places(labels, int((labels != IGNORED).sum(1).max()))
        taken = at(places, logits.detach())
        said = told(taken, gold) if self.kind == "masked_lm" else taken
        for name in _counted(self.kind, self.classes):
            found = row_counts(name, said, gold, self.classes).sum(0)
            setattr(self, name, getattr(self, name) + found)

    def compute(self) -> dict[str, float]:
        """Return the scores of all rows."""
        found = {name: float(from_counts(name, getattr(self, name))) for name in _counted(self.kind, self.classes)}
        return _with_perplexity(found)


def labelled_places(labels: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return the positions of labels [B T] that are not IGNORED, in order, and these labels, both [B W] int64: behind
    the last of a row stand any positions, with IGNORED.
    """
    free = labels == IGNORED
    places = free.to(torch.int8).argsort(dim=1, stable=True)[:, :width]
    places = F.pad(places, (0, width - places.shape[1]))
    behind = torch.arange(width, device=labels.device) >= (~free).sum(1, keepdim=True)
    return places, labels.gather(1, places).masked_fill(behind, IGNORED)


def at(places: Tensor, logits: Tensor) -> Tensor:
    """Return logits [B T V] at places [B W]."""
    return logits.gather(1, places[..., None].expand(-1, -1, logits.shape[-1]))


def told(logits: Tensor, labels: Tensor) -> Tensor:
    """Return [B W 2] fp32 of logits [B W V]: the most likely token, and log p of the label (0 where there is none).

    All that is kept of a vocabulary's logits; token numbers are exact up to 2²⁴.
    """
    log_probs = logits.float().log_softmax(-1)
    wanted = log_probs.gather(-1, labels.clamp_min(0)[..., None]).squeeze(-1)
    return torch.stack([logits.argmax(-1).float(), wanted.masked_fill(labels == IGNORED, 0.0)], -1)


def names(kind: TokenKind, classes: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the scores of a task."""
    return (*_counted(kind, classes), "perplexity") if kind == "masked_lm" else _counted(kind, classes)


def score(kind: TokenKind, said: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """Score what is said [N W …] against labels [N W]: of words their logits, of hidden tokens what `told` gives.

    tagging: accuracy, f1_macro (over the classes that occur), and entity_f1 where the classes are IOB2 tags.
    masked_lm: masked_accuracy, log_prob (mean of log p over hidden tokens), perplexity.

    Raises `DataError` where there is no label.
    """
    found = {name: value(name, said, labels, classes) for name in _counted(kind, classes)}
    return _with_perplexity(found)


def value(name: str, said: Tensor, labels: Tensor, classes: Sequence[str]) -> float:
    """Return one score, to seven digits."""
    if not (labels != IGNORED).any():
        raise DataError("metrics: none of the rows to score on has a label")
    return round(float(from_counts(name, row_counts(name, said, labels, classes).sum(0))), 7)


def row_counts(name: str, said: Tensor, labels: Tensor, classes: Sequence[str]) -> Tensor:
    """Return what a score counts in each row, [N S] fp64."""
    here = labels != IGNORED
    if name == "log_prob":
        return torch.stack([(said[..., 1].double() * here).sum(1), here.sum(1).double()], 1)
    best = said[..., 0].long() if name == "masked_accuracy" else said.argmax(-1)
    match name:
        case "entity_f1":
            return entity_counts(best, labels, classes)
        case "f1_macro":
            own, gold = (_one_hot(numbers, here, said.shape[-1]) for numbers in (best, labels))
            return torch.cat([(own * gold).sum(1), own.sum(1), gold.sum(1)], 1).double()
        case _:
            return torch.stack([((best == labels) & here).sum(1), here.sum(1)], 1).double()


def from_counts(name: str, counts: Tensor) -> Tensor:
    """Return a score from counts [… S] that were added up."""
    match name:
        case "entity_f1":
            right, found, there = counts.unbind(-1)
            return 2 * right / (found + there).clamp_min(1)
        case "f1_macro":
            right, found, there = counts.chunk(3, -1)
            occurring = (found + there > 0).sum(-1).clamp_min(1)
            return (2 * right / (found + there).clamp_min(1)).sum(-1).div(occurring)
        case _:
            return counts[..., 0] / counts[..., 1].clamp_min(1)


def _counted(kind: TokenKind, classes: Sequence[str]) -> tuple[str, ...]:
    if kind == "masked_lm":
        return ("masked_accuracy", "log_prob")
    return ("accuracy", "f1_macro", *(("entity_f1",) if is_iob2(classes) else ()))


def _one_hot(numbers: Tensor, here: Tensor, size: int) -> Tensor:
    return F.one_hot(numbers.masked_fill(~here, 0), size) * here[..., None]


def _with_perplexity(found: dict[str, float]) -> dict[str, float]:
    return found | {"perplexity": math.exp(-found["log_prob"])} if "log_prob" in found else found
