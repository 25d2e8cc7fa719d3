"""Watch for losses that train nothing: at the first steps, and later for those that are no number any more."""

import logging
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from distill import schedules
from distill.callbacks.log import Report
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
    """Stop a run whose terms are exactly zero, constant or without gradient at its first steps, or not finite at any.

    Before the first step each term's gradient is measured by itself, so that a term that drowns the others is seen.
    What is zero there is judged after the first windows that have something for it: their micro-batches need not (rows
    with labels may be few), a weight may rise from zero, and a student that starts as its teacher (an adapter that
    changes nothing yet) has nothing to learn from it until another term has moved it. All ranks judge the same sums, at
    the same step. What is still to be judged is in every checkpoint.

    After the first windows only what the log reads anyway is looked at: no step waits for a number on our account.
    """

    def __init__(self, mode: Literal["error", "warn"], show: Callable[[list[Share]], None]) -> None:
        """Raise, or log a warning; `show` receives the shares of the first step."""
        self.mode = mode
        self.show = show
        self._still: set[str] = set()
        """Terms that were zero, or had no gradient, before the first step."""
        self._windows: dict[str, list[Tensor]] = {}
        """Sums over each of the first windows, and all ranks, of each term that is still to be judged."""
        self._without: set[str] = set()
        """Terms that were still and then moved, whose gradient was not seen yet."""
        self._sums: dict[str, Tensor] = {}
        self._infinite: set[str] = set()
        """Terms whose means were not finite, once it was said."""

    @property
    def state_key(self) -> str:
        """The key of this callback in a checkpoint."""
        return "Watch"

    def state_dict(self) -> dict[str, Any]:
        """Remember what is still to be judged, at the end of a window."""
        windows = {name: [float(total) for total in seen] for name, seen in self._windows.items()}
        return {"still": sorted(self._still), "windows": windows, "without": sorted(self._without)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Recall it."""
        self._still, self._without = set(state_dict["still"]), set(state_dict["without"])
        self._windows = {name: [torch.tensor(total) for total in seen] for name, seen in state_dict["windows"].items()}

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Measure the shares on the first batch of a fresh training."""
        if trainer.global_step > 0:
            return
        batch = _first_batch(trainer, 0)
        shares = _measured(trainer, pl_module, batch, pl_module.objective.units)
        self._still = {share.term for share in shares if 0.0 in (share.loss, share.gradient)}
        self._windows = {share.term: [] for share in shares}
        whole = trainer.accumulate_grad_batches == 1 and all(_counted(pl_module, batch, term) for term in self._still)
        nothing_moves = whole and len(self._still) == len(shares)
        self._check([share for share in shares if nothing_moves or share.term not in self._still])
        if trainer.is_global_zero:
            self.show(shares)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Compare the first windows: different rows must not give one and the same loss."""
        if not self._windows and not self._without:
            return
        for name in self._windows:
            self._sums[name] = pl_module.last_losses[name].float() + self._sums.get(name, 0.0)
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        for name, seen in self._windows.items():
            if _counted(pl_module, batch, name):
                mean = self._sums[name] / _weight(pl_module, batch, name)
                seen.append(trainer.strategy.reduce(mean, reduce_op="sum"))  # type: ignore[arg-type]
        self._sums = {}
        self._judge(trainer, pl_module, batch)

    def hear(self, report: Report) -> None:
        """Judge the means of the last windows. Raise DeadLoss for one that is not finite, unless only to warn of it."""
        for name, mean in report.losses.items():
            if not math.isfinite(mean) and name not in self._infinite:
                self._infinite.add(name)
                self._complain(f"{name}: is {mean} at step {report.step}; a lower training.learning_rate may help")

    def _judge(self, trainer: pl.Trainer, module: Any, batch: Batch) -> None:
        """Judge the terms that enough windows were seen of."""
        for name in [name for name, seen in self._windows.items() if len(seen) == STEPS]:
            values = [float(total) for total in self._windows.pop(name)]
            if not all(map(math.isfinite, values)):
                self._complain(f"{name}: is {sum(values)} in the first {STEPS} windows")
            elif len(set(values)) == 1:
                self._complain(f"{name}: {_constant(values[0])}")
            elif name in self._still:
                self._without.add(name)
        counted = {name for name in self._without if _counted(module, batch, name)}
        if counted:
            first = _first_batch(trainer, batch["step"])
            shares = [share for share in _measured(trainer, module, first, counted) if share.loss != 0.0]
            self._without -= {share.term for share in shares}  # the others have no row in this micro-batch
            self._check(shares)

    def _check(self, shares: list[Share]) -> None:
        for share in shares:
            if not math.isfinite(share.loss):
                self._complain(f"{share.term}: is {share.loss} at the first step")
            elif share.gradient == share.loss == 0.0:
                self._complain(f"{share.term}: is exactly 0 and gives no gradient")
            elif not share.gradient > 0.0:
                self._complain(f"{share.term}: gives the student no gradient (norm {share.gradient})")

    def _complain(self, problem: str) -> None:
        message = f"objective.{problem}; nothing would be learnt from it (training.watch: warn goes on all the same)"
        if self.mode == "error":
            raise DeadLoss(message)
        log.warning(message)


def _first_batch(trainer: pl.Trainer, step: int) -> Batch:
    batch: Batch = trainer.strategy.batch_to_device(trainer.datamodule.first_batch(step))  # type: ignore[attr-defined]
    return batch


def _counted(module: Any, batch: Batch, term: str) -> bool:
    """Whether the window has something for a term; none counts as 1, so that it is divided by."""
    return batch["window_counts"][module.objective.units[term]] > 1 and _weight(module, batch, term) > 0.0


def _weight(module: Any, batch: Batch, term: str) -> float:
    return schedules.value(module.objective.weights[term], batch["progress"])


def _constant(value: float) -> str:
    if value == 0.0:
        return f"is exactly 0 in the first {STEPS} windows"
    return f"is {value:.6g} in each of the first {STEPS} windows, a constant"


def _measured(trainer: pl.Trainer, module: Any, batch: Batch, terms: Collection[str]) -> list[Share]:
    """Take the gradient of each of some terms by itself, over the micro-batches of all ranks.

    Each gets a forward pass of its own: weights that are dealt out are there for one backward pass.
    """
    found = []
    trained = [p for p in module.parameters() if p.requires_grad]
    units = {name: unit for name, unit in module.objective.units.items() if name in terms}
    for name, unit in units.items():
        module.on_train_batch_start(batch, 0)
        with trainer.precision_plugin.forward_context():
            teacher = module._teacher(batch, module.objective.teacher_needs)
            student = module.student(batch, module.objective.student_needs)
            loss = module.objective(student, teacher, batch)[name] / batch["window_counts"][unit]
        found.append(torch.stack((loss.detach().float(), _norm(loss, trained))))
    sums = trainer.strategy.reduce(torch.stack(found), reduce_op="sum").tolist()
    whole = sum(norm for _, norm in sums) or 1.0
    named = zip(units, sums, strict=True)
    return [Share(name, loss, norm, norm / whole) for name, (loss, norm) in named]


def _norm(loss: Tensor, parameters: list[Tensor]) -> Tensor:
    return norm(_gradients(loss, parameters) if loss.requires_grad else (), loss.device)


def norm(gradients: Sequence[Tensor | None], device: torch.device) -> Tensor:
    """Return the norm of all gradients together, on the device of the loss; offloaded ones lie in the host's memory."""
    squares = [gradient.float().square().sum().to(device) for gradient in gradients if gradient is not None]
    return torch.stack(squares).sum().sqrt() if squares else torch.zeros((), device=device)


def _gradients(loss: Tensor, parameters: list[Tensor]) -> Sequence[Tensor | None]:
    """Return the gradient of each parameter; of one that is cut up over the ranks, this rank's part."""
    if not any(isinstance(parameter, DTensor) for parameter in parameters):
        return torch.autograd.grad(loss, parameters, allow_unused=True)
    loss.backward()  # type: ignore[no-untyped-call]
    found = [parameter.grad.to_local() if isinstance(parameter.grad, DTensor) else None for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    return found
