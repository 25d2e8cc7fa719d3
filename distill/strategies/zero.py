"""DeepSpeed's ZeRO under Lightning: on GPUs and on CPU processes, with checkpoints like those of any other strategy."""

import logging
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import DeepSpeedStrategy, Strategy
from torch import Tensor, nn
from torch.optim import Optimizer

from distill.strategies.zero_state import ZeroState, gathered, make_whole


class ZeroStrategy(DeepSpeedStrategy):
    """ZeRO-1, 2 or 3 for the student; the teacher is no part of it.

    Lightning's own refuses CPUs, and its checkpoints are DeepSpeed's: folders of pickles that fit one number of
    processes and one stage. Ours hold what a checkpoint without DeepSpeed holds (gathered weights, the state of AdamW
    by parameter), so a training goes on under any strategy and any number of processes, and nothing is unpickled.
    """

    def __init__(self, config: dict[str, Any], *, timeout: timedelta) -> None:
        """Take a complete configuration of DeepSpeed, but for what Lightning fills in."""
        super().__init__(config=config, timeout=timeout, logging_level=logging.ERROR)
        self._state: ZeroState | None = None

    @property
    def root_device(self) -> torch.device:
        """The device of this process; a CPU gets a number, by which DeepSpeed tells processes apart."""
        device = super().root_device
        return torch.device("cpu", self.local_rank) if device.type == "cpu" else device

    def setup_environment(self) -> None:
        """Start the processes' group, on CPUs too."""
        super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self) -> None:
        """Join the others."""
        self.set_world_ranks()
        launched = "RANK" in os.environ
        self._init_deepspeed_distributed()
        if not launched:
            del os.environ["RANK"]  # Lightning's: to later stages it would look as if torchrun had started this process

    def _setup_model_and_optimizer(self, model: nn.Module, optimizer: Any, lr_scheduler: Any = None) -> tuple[Any, Any]:
        """Let DeepSpeed cut everything up, and remember which parameter lies where in the optimiser."""
        order = [list(group["params"]) for group in optimizer.param_groups]
        engine, made = super()._setup_model_and_optimizer(model, optimizer, lr_scheduler)
        self._state = ZeroState(engine.optimizer, order)
        return engine, made

    def backward(self, closure_loss: Tensor, optimizer: Optimizer | None, *args: Any, **kwargs: Any) -> Tensor:
        """Let DeepSpeed go backward; Lightning has divided by the micro-batches already, which DeepSpeed does again."""
        return super().backward(closure_loss, optimizer, *args, scale_wrt_gas=False, **kwargs)

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Weights are restored before they are cut up."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Restore the optimiser as everywhere: from the checkpoint, through `load_optimizer_state_dict`."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return what learns, whole, on all ranks."""
        assert self.lightning_module is not None
        return gathered(self.lightning_module)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the state of AdamW as one device would have it."""
        assert self._state is not None
        return self._state.read(keep=self.is_global_zero)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Deal out the state of AdamW."""
        assert self._state is not None
        self._state.write(checkpoint["optimizer_states"][0])

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """Write one file, from rank 0."""
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Read one file, on every rank."""
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Put the weights into the model, which is still whole."""
        Strategy.load_model_state_dict(self, checkpoint, strict)

    def on_train_end(self) -> None:
        """Make the model whole again: what follows scores and saves it."""
        module = self.lightning_module
        assert module is not None
        make_whole(self.deepspeed_engine, module)
        self.model = module
