"""Train as `tests.helpers.training` does; write down what each process holds of a checkpoint, and of the model after.

python -m tests.helpers.held RUN.yaml OUTPUT [KEY=VALUE]…     writes rank-N.json there
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_leaves
from transformers.generation.utils import is_fsdp_managed_module

from tests.helpers import warm
from tests.helpers.training import stage


def held_by(run: Path, output: Path, *overrides: str, processes: int) -> list[dict[str, int]]:
    """Return, for each process, elements of `weights` and `moments` for a checkpoint, and of the `model` in the end;
    and how many parts of that ask all ranks (`asks_others`).
    """
    given = [str(run), str(output), *overrides, f"machine.devices={processes}"]
    done = warm.run("tests.helpers.held", *given, processes=processes)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((output / f"rank-{rank}.json").read_text(encoding="utf-8")) for rank in range(processes)]


class _Held(pl.Callback):
    """Counts what is held."""

    def __init__(self) -> None:
        self.found: dict[str, int] = {}
        self._module: pl.LightningModule | None = None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put a checkpoint together; the step counter of each weight is no moment."""
        strategy, self._module = trainer.strategy, pl_module
        moments = strategy.optimizer_state(strategy.optimizers[0])["state"]
        self.found["weights"] = _count(tree_leaves(strategy.lightning_module_state_dict()))
        self.found["moments"] = _count(leaf for leaf in tree_leaves(moments) if leaf.ndim)

    def after(self) -> dict[str, int]:
        """Count the model too, once the training is over; and its parts that would ask all ranks as they write."""
        assert self._module is not None
        asks = sum(is_fsdp_managed_module(part) for part in self._module.modules())
        return self.found | {"model": _count(self._module.parameters()), "asks_others": asks}


def _count(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def main() -> None:
    """Train, write."""
    path, output, *overrides = sys.argv[1:]
    Path(output).mkdir(parents=True, exist_ok=True)
    held, original = _Held(), pl.Trainer.__init__

    def with_held(self: pl.Trainer, *args: Any, callbacks: list[pl.Callback], **kwargs: Any) -> None:
        original(self, *args, callbacks=[*callbacks, held], **kwargs)

    pl.Trainer.__init__ = with_held  # type: ignore[method-assign]
    try:
        stage(path, "student", tuple(overrides)).run(Path(output))
    finally:
        pl.Trainer.__init__ = original  # type: ignore[method-assign]
    (Path(output) / f"rank-{dist.get_rank()}.json").write_text(json.dumps(held.after()), encoding="utf-8")


if __name__ == "__main__":
    main()
