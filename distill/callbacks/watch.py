"""Watch the first steps for losses that train nothing."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from distill.errors import DeadLoss
from distill.types import Batch

log = logging.getLogger(__name__)
STEPS = 3


@dataclass(frozen=True)
class Share:
    """What one term does at the first step."""

    term: str
    loss: float
    gradient: float
    """Norm of the gradient it gives to student and projectors."""
    share: float
    """That norm over the sum of all terms' norms."""


class Watch(pl.Callback):
    """Stop a run whose terms are exactly zero, constant, not finite or without gradient at its first steps.

    Before the first step each term's gradient is measured by itself, so that a term that drowns the others is seen.
    A term without gradient there is measured again after a few steps where another term moves the student: a student
    that starts as its teacher (an adapter that changes nothing yet) has nothing to learn from it until it has moved.
    """

    def __init__(self, mode: Literal["error", "warn"], show: Callable[[list[Share]], None]) -> None:
        """Raise, or log a warning; `show` receives the shares of the first step."""
        self.mode = mode
        self.show = show
        self._seen: list[Tensor] = []
        self._still: set[str] = set()

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Measure the shares on the first batch of a fresh training."""
        if trainer.global_step > 0:
            return
        batch = trainer.strategy.batch_to_device(trainer.datamodule.first_batch())  # type: ignore[attr-defined]
        shares = _measured(trainer, pl_module, batch)
        still = {share.term for share in shares if 0.0 in (share.loss, share.gradient)}
        self._still = still if len(still) < len(shares) else set()
        self._check([share for share in shares if share.term not in self._still])
        if trainer.is_global_zero:
            self.show(shares)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Compare the first micro-batches: different rows must not give one and the same loss."""
        if self._still and trainer.global_step == STEPS:
            shares = _measured(trainer, pl_module, batch)
            self._check([share for share in shares if share.term in self._still])
            self._still = set()
        if len(self._seen) == STEPS or trainer.global_step > STEPS * 2:
            return
        terms = {name: loss for name, loss in pl_module.last_losses.items() if name in pl_module.objective.units}
        self._seen.append(torch.stack(list(terms.values())).float())  # a model's own penalty depends on no rows
        if len(self._seen) < STEPS:
            return
        for name, values in zip(terms, torch.stack(self._seen, 1).tolist(), strict=True):
            if len(set(values)) == 1 and name not in self._still:
                self._complain(f"{name}: is {values[0]:.6g} on each of the first {STEPS} batches, a constant")

    def _check(self, shares: list[Share]) -> None:
        for share in shares:
            if share.loss != share.loss or share.loss in (float("inf"), float("-inf")):
                self._complain(f"{share.term}: is {share.loss} at the first step")
            elif share.gradient == 0.0 and share.loss == 0.0:
                self._complain(f"{share.term}: is exactly 0 and gives no gradient")
            elif not share.gradient > 0.0:
                self._complain(f"{share.term}: gives the student no gradient (norm {share.gradient})")

    def _complain(self, problem: str) -> None:
        message = f"objective.{problem}; nothing would be learnt from it (training.watch: warn goes on all the same)"
        if self.mode == "error":
            raise DeadLoss(message)
        log.warning(message)


def _measured(trainer: pl.Trainer, module: Any, batch: Batch) -> list[Share]:
    """Take each term's gradient by itself, over the micro-batches of all ranks.

    Each gets a forward pass of its own: weights that are dealt out are there for one backward pass.
    """
    found = []
    trained = [p for p in module.parameters() if p.requires_grad]
    for name, unit in module.objective.units.items():
        module.on_train_batch_start(batch, 0)
        with trainer.precision_plugin.forward_context():
            teacher = module._teacher(batch, module.objective.teacher_needs)
            student = module.student(batch, module.objective.student_needs)
            loss = module.objective(student, teacher, batch)[name] / batch["window_counts"][unit]
        found.append(torch.stack((loss.detach().float(), _norm(loss, trained))))
    sums = trainer.strategy.reduce(torch.stack(found), reduce_op="sum").tolist()
    whole = sum(norm for _, norm in sums) or 1.0
    named = zip(module.objective.units, sums, strict=True)
    return [Share(name, loss, norm, norm / whole) for name, (loss, norm) in named]


def _norm(loss: Tensor, parameters: list[Tensor]) -> Tensor:
    if not loss.requires_grad:
        return torch.zeros((), device=loss.device)
    gradients = _gradients(loss, parameters)
    squares = [gradient.float().square().sum() for gradient in gradients if gradient is not None]
    return torch.stack(squares).sum().sqrt() if squares else torch.zeros((), device=loss.device)


def _gradients(loss: Tensor, parameters: list[Tensor]) -> Sequence[Tensor | None]:
    """Return the gradient of each parameter; of one that is cut up over the ranks, this rank's part."""
    if not any(isinstance(parameter, DTensor) for parameter in parameters):
        return torch.autograd.grad(loss, parameters, allow_unused=True)
    loss.backward()  # type: ignore[no-untyped-call]
    found = [parameter.grad.to_local() if isinstance(parameter.grad, DTensor) else None for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    return found
