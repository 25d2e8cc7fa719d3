"""AdaLoRA's schedule: ranks are taken from the matrices that need them least (Zhang et al. 2023, section 3)."""

from typing import Any

import lightning.pytorch as pl
import torch
from peft import PeftModel
from torch import Tensor

from configs.adapters import AdaLora

_MEMORY = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""What peft's allocator remembers of every parameter: importance, its mean and its uncertainty."""


class RankSchedule(pl.Callback):
    """Shares the ranks out anew after every optimiser step, while the step's gradients are still there.

    Its memory is in every checkpoint, so that a training that was cut goes on as it would have.
    """

    def __init__(self, model: PeftModel, section: AdaLora) -> None:
        """Take the adapted model and the numbers of its section."""
        self._model = model
        self._section = section

    @property
    def _tuner(self) -> Any:
        return self._model.base_model

    @property
    def _config(self) -> Any:
        return self._model.active_peft_config

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Spread the schedule over the training."""
        steps = int(trainer.max_steps)
        self._config.total_step = steps
        self._config.tinit = round(self._section.warmup * steps)
        self._config.tfinal = round(self._section.settled * steps)
        self._tuner.rankallocator.set_total_step(steps)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Share out the ranks at the end of a window."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._tuner.update_and_allocate(trainer.global_step)

    @property
    def state_key(self) -> str:
        """The key of this callback in a checkpoint."""
        return "RankSchedule"

    def state_dict(self) -> dict[str, Any]:
        """Return what the allocator remembers."""
        allocator = self._tuner.rankallocator
        return {**{name: getattr(allocator, name) for name in _MEMORY}, "rank_pattern": self._config.rank_pattern}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Recall it."""
        for name in _MEMORY:
            setattr(self._tuner.rankallocator, name, state_dict[name])
        self._config.rank_pattern = state_dict["rank_pattern"]

    def penalty(self) -> Tensor:
        """Return λ times the mean of ‖PᵀP − I‖ and ‖QQᵀ − I‖ over all factors (equation 4): peft adds it to a loss that
        the model computes itself, and here it computes none.
        """
        gaps = []
        for name, factor in self._model.named_parameters():
            if factor.requires_grad and ("lora_A" in name or "lora_B" in name):
                product = factor @ factor.T if "lora_A" in name else factor.T @ factor
                gaps.append(torch.linalg.matrix_norm(product - torch.eye(len(product), device=product.device)))
        return self._section.orthogonality * torch.stack(gaps).mean()
