"""AdaLoRA's schedule: ranks are taken from the matrices that need them least (Zhang et al. 2023, section 3)."""

from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import torch
from peft import PeftModel
from torch import Tensor, nn

from configs.adapters import AdaLora

_MEMORY = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""What peft's allocator remembers of every parameter: importance, its mean and its uncertainty."""


class RankSchedule(pl.Callback):
    """Shares the ranks out anew after every optimiser step, while the step's gradients are still there.

    Importance and masks are peft's, which would look at what is frozen too. Its memory is in every checkpoint, so that
    a training that was cut goes on as it would have.
    """

    def __init__(self, model: PeftModel, section: AdaLora) -> None:
        """Take the adapted model and the numbers of its section. One whose ranks another training has shared out keeps
        them: what was taken away is not in its folder.
        """
        self._model = model
        self._section = section
        self._settled = bool(self._config.rank_pattern)

    @property
    def _tuner(self) -> Any:
        return self._model.base_model

    @property
    def _allocator(self) -> Any:
        return self._tuner.rankallocator

    @property
    def _config(self) -> Any:
        return self._model.active_peft_config

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Spread the schedule over the training."""
        self.begin(int(trainer.max_steps))

    def begin(self, steps: int) -> None:
        """Forget what was remembered, and spread the schedule over a training of so many optimiser steps: at least one
        lies between the warm-up and the settled part, at which the ranks become those that were asked for.
        """
        config = self._config
        if self._settled:
            return
        config.total_step, config.rank_pattern = steps, None
        config.tfinal = min(round(self._section.settled * steps), steps - 1)
        config.tinit = min(round(self._section.warmup * steps), steps - config.tfinal - 1)
        self._allocator.reset_ipt()
        self._allocator._set_budget_scheduler(self)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield what peft's allocator looks at: ranks are shared among the matrices that learn."""
        for name, parameter in self._tuner.model.named_parameters():
            if parameter.requires_grad:
                yield name, parameter

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Share out the ranks at the end of a window."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.share_out(trainer.global_step)

    def share_out(self, step: int) -> None:
        """Take the ranks away that have to go by the end of an optimiser step, counted from 1."""
        if self._settled:
            return
        last = self._config.total_step - self._config.tfinal
        if step > last:
            self._allocator.mask_using_rank_pattern(self, self._config.rank_pattern)
            return
        self._join_devices()
        self._allocator.update_ipt(self)
        budget, shrinks = self._allocator.budget_schedule(step)
        if shrinks:
            self._config.rank_pattern = self._allocator.mask_to_budget(self, budget)
        if step == last:
            self._allocator.reset_ipt()

    def _join_devices(self) -> None:
        """Bring what is remembered of each parameter to where it is: what a checkpoint recalls lies on the CPU,
        and comes before the model goes to its device.
        """
        for name, parameter in self.named_parameters():
            for memory in (getattr(self._allocator, kept) for kept in _MEMORY):
                if name in memory:
                    memory[name] = memory[name].to(parameter.device)

    @property
    def state_key(self) -> str:
        """The key of this callback in a checkpoint."""
        return "RankSchedule"

    def state_dict(self) -> dict[str, Any]:
        """Return what the allocator remembers."""
        return {**{name: getattr(self._allocator, name) for name in _MEMORY}, "rank_pattern": self._config.rank_pattern}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Recall it."""
        for name in _MEMORY:
            setattr(self._allocator, name, state_dict[name])
        self._config.rank_pattern = state_dict["rank_pattern"]

    def penalty(self) -> Tensor:
        """Return λ times the mean of ‖PᵀP − I‖ and ‖QQᵀ − I‖ over all factors (equation 4): peft adds it to a loss that
        the model computes itself, and here it computes none.
        """
        gaps = []
        for name, factor in self._model.named_parameters():
            if factor.requires_grad and factor.numel() and ("lora_A" in name or "lora_B" in name):
                product = factor @ factor.T if "lora_A" in name else factor.T @ factor
                gaps.append(torch.linalg.matrix_norm(product - torch.eye(len(product), device=product.device)))
        return self._section.orthogonality * torch.stack(gaps).mean()
