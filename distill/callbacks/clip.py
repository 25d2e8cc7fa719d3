"""Cut the norm of the gradient."""

import lightning.pytorch as pl
from torch import nn
from torch.optim import Optimizer


class Clip(pl.Callback):
    """Cut the norm over student and projectors together, once a window, after the gradients of all ranks are summed.

    Lightning's own way refuses a fused optimiser under autocast.
    """

    def __init__(self, norm: float) -> None:
        """Cut to this norm."""
        self.norm = norm

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Cut; gradients are unscaled here."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        nn.utils.clip_grad_norm_(parameters, self.norm)
