"""The gate before any speed: on one batch, with dropout off, both sides must compute the same losses and gradients."""

from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from benchmarks.brewer import Brewer
from benchmarks.ours import Trained, projectors
from benchmarks.workload import LAYERWISE, TERMS, Workload
from distill.types import Batch
from pipelines.machine import Device

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
STEP = 0


@dataclass(frozen=True)
class Verdict:
    """The largest differences found, relative to the other side's value."""

    precision: str
    losses: dict[str, float]
    """By TextBrewer's names of the terms."""
    gradient: float
    """Norm of the difference of the whole gradient, student and projectors, over its norm."""
    recipe: float
    """Difference between the recipe that is timed and the same one with a term for each layer."""
    limit: float

    @property
    def holds(self) -> bool:
        """Whether speeds may be compared."""
        return max(*self.losses.values(), self.gradient, self.recipe) <= self.limit

    def said(self) -> str:
        """Return a line for the terminal."""
        state = "equal" if self.holds else "NOT EQUAL"
        return (
            f"{self.precision}: {state}; largest relative differences: losses {max(self.losses.values()):.1e}, "
            f"gradient {self.gradient:.1e} (limit {self.limit:g})"
        )


@dataclass(frozen=True)
class Seen:
    """What one step computed."""

    losses: list[float]
    gradient: Tensor


class Look(pl.Callback):
    """Keeps losses and gradients of the first step as they are before clipping, then stops."""

    def __init__(self) -> None:
        self.seen: Seen | None = None
        self.batch: Batch | None = None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        """Keep the batch."""
        self.batch = batch

    def on_after_backward(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Copy, and leave the training."""
        losses = [float(loss) for loss in pl_module.last_losses.values()]
        own = [pl_module.student.model, *projectors(pl_module.objective)]
        self.seen = Seen(losses, flat_gradient(own))
        trainer.should_stop = True


def check(work: Workload, device: Device, precision: str, limit: float) -> Verdict:
    """Compare a real first step with TextBrewer's on the same batch, weights and projectors.

    The batch is drawn without sorting, so that two thirds of it are padding.
    """
    folder = work.folder / "equality"
    changes = {"options": NO_DROPOUT, "training": {"precision": precision, "bucket_window": 1}}
    layerwise = Trained(work.stage(device, f"layerwise-{precision}", objective=LAYERWISE, **changes), folder)
    brewer = Brewer(work.folder / "teacher", layerwise, folder)
    look = Look()
    layerwise.fit(STEP, look)
    if look.seen is None or look.batch is None:
        raise RuntimeError("the training ended before its first step")
    theirs, names = _theirs(brewer, look.batch)
    timed = _whole(work, device, f"equality-{precision}", changes)
    return Verdict(
        precision,
        {
            name: abs(own - its) / abs(its)
            for name, own, its in zip(names, look.seen.losses, theirs.losses, strict=True)
        },
        _distance(look.seen.gradient, theirs.gradient),
        _distance(timed.gradient, look.seen.gradient),
        limit,
    )


def flat_gradient(modules: list[Any]) -> Tensor:
    """Return the gradients of all parameters, one after the other; those without count as 0."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten().clone() for p in parameters])


def _whole(work: Workload, device: Device, name: str, changes: dict[str, Any]) -> Seen:
    """Take the first step of the recipe as it is timed."""
    look = Look()
    Trained(work.stage(device, name, objective=TERMS, **changes), work.folder / "equality").fit(STEP, look)
    if look.seen is None:
        raise RuntimeError("the training ended before its first step")
    return look.seen


def _theirs(brewer: Brewer, batch: Batch) -> tuple[Seen, list[str]]:
    """Take TextBrewer's losses in our order: hidden, attention, logits, task."""
    with brewer.distiller:
        total, terms = brewer.losses(batch)
        total.backward()  # type: ignore[no-untyped-call]
    order = sorted(terms, key=lambda name: ("_hidden_" not in name, "_attention_" not in name, "kd_loss" not in name))
    gradient = flat_gradient([brewer.student, *(proj for proj in brewer.distiller.projs if proj is not None)])
    return Seen([float(terms[name].detach()) for name in order], gradient), order


def _distance(own: Tensor, other: Tensor) -> float:
    return float((own - other).norm() / other.norm())
