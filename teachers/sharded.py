"""A teacher that no device holds whole."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import HfDeepSpeedConfig

from configs.data import Task
from configs.teachers import ShardedTeacher as Choice
from distill import capture
from distill.errors import ModelError
from distill.loading import loading
from distill.memory import given_back
from distill.models import Loaded, ModelSource, auto_class
from distill.protocols import Teacher
from distill.types import Batch, Needs, Outputs
from teachers.order import in_order

_LOWER = {torch.bfloat16: "bf16", torch.float16: "fp16"}


@dataclass(frozen=True)
class Weights:
    """What is to be loaded, and how it is dealt out."""

    source: ModelSource
    choice: Choice
    dtype: torch.dtype


class ShardedTeacher(Teacher):
    """A frozen transformers model in a ZeRO-3 engine of its own, loaded straight into its parts.

    A layer is put together by all ranks.
    """

    in_step = True

    def __init__(
        self, shell: Loaded, weights: Weights, task: Task, fingerprint: str, order: list[int] | None = None
    ) -> None:
        """Take the facts of a model (`distill.shells`); nothing is loaded before the ranks have met.

        `order` lists, for each of the run's classes, the teacher's output that means it.
        """
        capture.prepare(shell.model)
        self.shape = capture.shape_of(shell.model, trained_head=shell.trained_head)
        self.offers = capture.offers_of(shell.model, self.shape)
        self._family = auto_class(task, shell.model.config)
        self._weights = weights
        self.fingerprint = fingerprint
        self._order = None if order is None else torch.tensor(order)
        self._engine: Any = None

    @property
    def model(self) -> PreTrainedModel:
        """The model, its weights dealt out. Raise RuntimeError before it is loaded."""
        if self._engine is None:
            raise RuntimeError(f"{self.describe()} is not loaded yet")
        found: PreTrainedModel = self._engine.module
        return found

    @torch.no_grad()
    def __call__(self, batch: Batch, needs: Needs) -> Outputs:
        """Run on a batch, together with all other ranks; nothing it returns carries a gradient."""
        return in_order(capture.forward(self.model, batch, needs), self._order)

    def to(self, device: torch.device) -> None:
        """Load each rank's part, on its device or beside it."""
        if self._engine is None:
            self._engine = _load(self._family, self._weights, device)
            capture.prepare(self.model)
        if self._order is not None:
            self._order = self._order.to(device)

    def describe(self) -> str:
        """Say where it came from."""
        return f"the sharded teacher {self._weights.source.path}"


def _load(family: Any, weights: Weights, device: torch.device) -> Any:
    """Return an engine around the model. transformers reads the files on rank 0, a weight at a time, and deals it out;
    for that it looks for a configuration of DeepSpeed that is alive, as this one is in here.
    """
    from distill.strategies.meet import placed  # DeepSpeed takes seconds to import

    if not dist.is_initialized():  # a rank that is alone makes a group of one
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    with placed(dist.get_rank(), dist.get_world_size(), _local(device)):
        return _dealt_out(family, weights, device)


def _dealt_out(family: Any, weights: Weights, device: torch.device) -> Any:
    import deepspeed

    from distill.strategies.meet import meet, wait_alike

    meet(dist.get_backend())
    config = _config(weights, device)
    with _announced(config), given_back(), loading(weights.source.path, "teacher.model"):
        model, report = family.from_pretrained(
            weights.source.folder or weights.source.path,
            revision=weights.source.revision,
            dtype=weights.dtype,
            use_safetensors=True,
            output_loading_info=True,
        )
    wanting = sorted(key for key in report["missing_keys"] if "position_ids" not in key and "pooler" not in key)
    if wanting:
        raise ModelError(f"teacher.model: {weights.source.path} lacks weights: {', '.join(wanting[:5])}")
    model.eval().requires_grad_(False)
    engine = deepspeed.initialize(model=model, config=config, dist_init_required=False)[0]
    engine.module.eval()
    wait_alike()
    return engine


def _config(weights: Weights, device: torch.device) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": 3, "stage3_param_persistence_threshold": weights.choice.whole_below}
    if weights.choice.offload == "cpu":
        zero["offload_param"] = {"device": "cpu", "pin_memory": device.type == "cuda"}
    lower = {_LOWER[weights.dtype]: {"enabled": True}} if weights.dtype in _LOWER else {}
    return {"train_micro_batch_size_per_gpu": 1, "zero_optimization": zero, **lower}


@contextmanager
def _announced(config: dict[str, Any]) -> Iterator[None]:
    """Let transformers load into parts, here and nowhere else: the announcement ends with the object."""
    held = HfDeepSpeedConfig(config)
    try:
        yield
    finally:
        del held
        gc.collect()


def _local(device: torch.device) -> int:
    """Return this process's number on its host: of CPUs, as its launcher tells."""
    told = (os.environ.get(name) for name in ("LOCAL_RANK", "SLURM_LOCALID"))
    return device.index if device.index is not None else int(next(filter(None, told), 0))
