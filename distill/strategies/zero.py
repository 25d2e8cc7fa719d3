"""DeepSpeed's ZeRO under Lightning: on GPUs and on CPU processes, with checkpoints like those of any other strategy."""

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from deepspeed import DeepSpeedEngine
from deepspeed.runtime import torch_autocast
from deepspeed.runtime.zero.partition_parameters import Init
from lightning.pytorch.strategies import DeepSpeedStrategy, Strategy
from lightning.pytorch.trainer.states import TrainerStatus
from torch import Tensor, nn
from torch.optim import Optimizer

from distill.strategies.meet import meet, placed, wait_alike
from distill.strategies.precision import ZeroPrecision
from distill.strategies.zero_state import ZeroState, gathered, make_whole


class ZeroStrategy(DeepSpeedStrategy):
    """ZeRO-1, 2 or 3 for the student; the teacher is no part of it.

    Lightning's own refuses CPUs, and its checkpoints are DeepSpeed's: folders of pickles that fit one number of
    processes and one stage. Ours hold what a checkpoint without DeepSpeed holds (gathered weights, the state of AdamW
    by parameter), so a training goes on under any strategy and any number of processes, and nothing is unpickled.
    """

    def __init__(self, config: dict[str, Any], precision: ZeroPrecision, *, timeout: timedelta) -> None:
        """Take a complete configuration of DeepSpeed, but for what Lightning fills in."""
        super().__init__(config=config, precision_plugin=precision, timeout=timeout, logging_level=logging.ERROR)
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
        """Join the others, in torch's group first; Lightning would leave variables behind that say torchrun is here."""
        super(DeepSpeedStrategy, self).setup_distributed()
        with self._placed():
            meet(self._get_process_group_backend())

    def _setup_model_and_optimizer(self, model: nn.Module, optimizer: Any, lr_scheduler: Any = None) -> tuple[Any, Any]:
        """Let DeepSpeed cut everything up, and remember which parameter lies where in the optimiser."""
        self._begin_disk()
        order = [list(group["params"]) for group in optimizer.param_groups]
        torch_autocast.TORCH_AUTOCAST_INITIALIZED = False  # of the process: an earlier engine's would hold for this one
        with self._placed(), _in_their_type() if self.root_device.type == "cpu" else nullcontext():
            engine, made = super()._setup_model_and_optimizer(model, optimizer, lr_scheduler)
        wait_alike()
        assert isinstance(self.precision_plugin, ZeroPrecision)
        self.precision_plugin.partitioned = engine.module if engine.zero_optimization_partition_weights() else None
        self._state = ZeroState(engine.optimizer, order)
        return engine, made

    def backward(self, closure_loss: Tensor, optimizer: Optimizer | None, *args: Any, **kwargs: Any) -> Tensor:
        """Let DeepSpeed go backward; Lightning has divided by the micro-batches already, which DeepSpeed does again."""
        return super().backward(closure_loss, optimizer, *args, scale_wrt_gas=False, **kwargs)

    def _placed(self) -> AbstractContextManager[None]:
        return placed(self.global_rank, self.world_size, self.local_rank)

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Weights are restored before they are cut up."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Restore the optimiser as everywhere: from the checkpoint, through `load_optimizer_state_dict`."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return what learns, whole, on rank 0."""
        assert self.lightning_module is not None
        return gathered(self.deepspeed_engine, self.lightning_module, keep=self.is_global_zero)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the state of AdamW as one device would have it, on rank 0."""
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

    def teardown(self) -> None:
        """Make the model whole again on rank 0, which scores and saves it: in the host's memory, where Lightning puts
        it next. A training that had no step left has come here too; one that failed has lost the others.
        """
        module = self.lightning_module
        if module is not None and isinstance(self.model, DeepSpeedEngine):
            if module.trainer.state.status is not TrainerStatus.INTERRUPTED:
                make_whole(self.model, module, keep=self.is_global_zero)
            self.model = module
            self._clear_disk()
        super().teardown()

    def _begin_disk(self) -> None:
        """Remove what a killed training left on this host's disk, of however many ranks."""
        if self._disk is None:
            return
        if self.local_rank == 0:
            shutil.rmtree(self._disk, ignore_errors=True)
        self.barrier()

    def _clear_disk(self) -> None:
        """Leave nothing on the disk; DeepSpeed would leave all of it. Checkpoints have what counts."""
        if self._disk is None:
            return
        for files in self._disk.glob(f"*/*/rank{self.global_rank}"):
            shutil.rmtree(files, ignore_errors=True)
        for folder in (*self._disk.glob("*/*"), *self._disk.glob("*"), self._disk):
            with suppress(OSError):  # others' files are there still, or they were faster
                folder.rmdir()

    @property
    def _disk(self) -> Path | None:
        """The run's own folder on a disk, where what is dealt out lies, if not in memory."""
        assert isinstance(self.config, dict)
        path = self.config["zero_optimization"].get("offload_optimizer", {}).get("nvme_path")
        return None if path is None else Path(path)


@contextmanager
def _in_their_type() -> Iterator[None]:
    """Let DeepSpeed keep weights on a disk in the type it is told: on CPUs it takes bf16 whatever that is (0.19, by the
    order in which Python reads an expression of its own), and they would be rounded at the start of each training.
    """
    original = Init._set_dtype
    Init._set_dtype = lambda self, ds_config, dtype: setattr(self, "dtype", dtype or torch.float32)
    try:
        yield
    finally:
        Init._set_dtype = original
