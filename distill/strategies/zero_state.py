"""The state of a training that ZeRO has cut up, as one device would have it."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import deepspeed
import lightning.pytorch as pl
import torch
from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK
from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
from deepspeed.utils import safe_get_full_optimizer_state, safe_set_local_optimizer_state
from torch import Tensor, nn

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW keeps for each weight."""


class ZeroState:
    """The state of AdamW inside a ZeRO optimiser, read and written by parameter.

    DeepSpeed lays the parameters of a group end to end in one flat tensor, deals it out to the ranks and lets AdamW
    work on the pieces: to AdamW there is one parameter per group, or several where stage 3 cuts groups up.
    """

    def __init__(self, zero: Any, order: list[list[nn.Parameter]]) -> None:
        """Take DeepSpeed's optimiser, and the groups of parameters as they were given to it."""
        self._zero = zero
        self._order = order
        self._is_stage_3 = isinstance(zero, DeepSpeedZeroOptimizer_Stage3)

    def read(self, *, keep: bool) -> dict[str, Any]:
        """Return what `AdamW.state_dict` returns on one device. All ranks take part; only those that `keep` hold it."""
        state: dict[int, dict[str, Tensor]] = {}
        step = self._step()
        if step is None:
            return {"state": {}, "param_groups": self._groups()}
        self._link()
        for piece, numbered in self._by_piece():
            with self._in_memory(piece):
                for number, parameter in numbered:
                    moments = {name: safe_get_full_optimizer_state(parameter, name) for name in MOMENTS}
                    if keep:
                        held = {name: value.cpu() for name, value in moments.items()}
                        state[number] = {"step": step.clone(), **held}
        return {"state": dict(sorted(state.items())), "param_groups": self._groups()}

    def write(self, saved: dict[str, Any]) -> None:
        """Deal out what `AdamW.state_dict` returned."""
        if not saved["state"]:
            return
        base = self._zero.optimizer
        for group, given in zip(base.param_groups, saved["param_groups"], strict=True):
            group.update({key: value for key, value in given.items() if key != "params"})
        step = next(iter(saved["state"].values()))["step"]
        for piece, flat in enumerate(self._pieces()):
            with self._in_memory(piece, changes=True):
                zeros = {name: torch.zeros_like(flat) for name in MOMENTS}
                base.state[flat] = {"step": step.clone().to(flat.device), **zeros}
        self._link()
        for piece, numbered in self._by_piece():
            with self._in_memory(piece, changes=True):
                for number, parameter in numbered:
                    for name in MOMENTS:
                        self._set(parameter, saved["state"][number][name], name)

    @contextmanager
    def _in_memory(self, piece: int, *, changes: bool = False) -> Iterator[None]:
        """Bring a piece of the state that lies on a disk into memory, and back if it `changes`: by itself DeepSpeed
        would do so for each parameter in it, a billion weights at a time.
        """
        zero = self._zero
        if not self._is_stage_3 or not zero._swappable_optimizer_subgroup(piece):
            yield
            return
        zero._optimizer_states_and_gradient_swap_in(piece)
        zero.swap_optimizer = False
        try:
            yield
        finally:
            zero.swap_optimizer = True
        if changes:
            zero._optimizer_states_and_gradient_swap_out(piece)
        else:
            zero._release_swap_buffers(piece)

    def _by_piece(self) -> list[tuple[int, list[tuple[int, nn.Parameter]]]]:
        """Return the parameters that lie in each piece, numbered as AdamW numbers them."""
        zero, found = self._zero, defaultdict[int, list[tuple[int, nn.Parameter]]](list)
        for number, parameter in enumerate(self._parameters()):
            piece = zero.grad_position[zero.get_param_id(parameter)][0] if self._is_stage_3 else 0
            found[piece].append((number, parameter))
        return [*found.items()]

    def _link(self) -> None:
        """Let stages 1 and 2 find a parameter's piece of the state; by itself DeepSpeed links all groups after the step
        of the first, when the others have no state yet.
        """
        if not self._is_stage_3 and self._step() is not None:
            self._zero._hp_optimizer_states_linked = False
            self._zero._lazy_init_hp_params_optimizer_state()

    def _set(self, parameter: nn.Parameter, value: Tensor, name: str) -> None:
        if not self._is_stage_3:
            parameter.set_full_hp_param(value, name)  # type: ignore[attr-defined]
            return
        size, rank = parameter.ds_tensor.ds_numel, self._zero._get_param_partition_rank(parameter)  # type: ignore[attr-defined]
        flat = value.flatten()
        padded = nn.functional.pad(flat, (0, max(0, size * (rank + 1) - flat.numel())))
        safe_set_local_optimizer_state(parameter, padded.narrow(0, size * rank, size), name)

    def _parameters(self) -> Iterator[nn.Parameter]:
        """Yield them in the order in which AdamW numbers them."""
        for group in self._order:
            yield from group

    def _pieces(self) -> list[Tensor]:
        """Return the flat tensors AdamW works on."""
        zero = self._zero
        found = zero.fp32_partitioned_groups_flat if self._is_stage_3 else zero.single_partition_of_fp32_groups
        return list(found)

    def _step(self) -> Tensor | None:
        """Return the count of steps as AdamW keeps it; none before the first."""
        held = self._zero.optimizer.state.get(self._pieces()[0])
        return None if not held else held["step"].detach().cpu().clone()

    def _groups(self) -> list[dict[str, Any]]:
        """Return the groups' numbers and options."""
        groups, first = [], 0
        for group, parameters in zip(self._zero.optimizer.param_groups, self._order, strict=True):
            options = {key: value for key, value in group.items() if key != "params"}
            groups.append({**options, "params": list(range(first, first + len(parameters)))})
            first += len(parameters)
        return groups


def gathered(engine: Any, module: pl.LightningModule, *, keep: bool) -> dict[str, Any]:
    """Return the module's state with the weights that stage 3 has dealt out put together. All ranks take part; only
    those that `keep` hold it.
    """
    _settle(engine)
    named = dict(module.named_parameters(remove_duplicate=False))
    whole: dict[int, Tensor] = {}  # tied weights once
    state: dict[str, Any] = module.state_dict()
    for name in state:
        parameter = named.get(name)
        if parameter is None or not is_partitioned(parameter):
            continue
        if id(parameter) not in whole:
            with deepspeed.zero.GatheredParameters([parameter]):
                whole[id(parameter)] = _copied(parameter, keep=keep)
        state[name] = whole[id(parameter)]
    return state if keep else {}


def make_whole(engine: Any, module: nn.Module, *, keep: bool) -> None:
    """Put dealt-out weights together for good, in the host's memory of the ranks that `keep` them, one at a time; take
    DeepSpeed's hooks off everywhere.
    """
    _settle(engine)
    partitioned = [parameter for parameter in module.parameters() if is_partitioned(parameter)]
    whole = []
    for parameter in partitioned:
        with deepspeed.zero.GatheredParameters([parameter]):
            whole.append(_copied(parameter, keep=keep))
    engine.destroy()
    forget(engine.module)
    for parameter, value in zip(partitioned, whole, strict=True):
        parameter.data = value


def _copied(parameter: nn.Parameter, *, keep: bool) -> Tensor:
    """Return a weight that is put together, copied into the host's memory; nothing where it is not kept."""
    return parameter.detach().to("cpu", copy=True) if keep else torch.empty(0)


def _settle(engine: Any) -> None:
    """Let go of the weights that stage 3 holds ready for a next pass: none can be put together for anything else."""
    if engine.zero_optimization_partition_weights():
        engine.empty_partition_cache()


def forget(module: nn.Module) -> None:
    """Let a module go that DeepSpeed has dealt out: a list of its own would hold it, and what hangs on it, for ever."""
    FWD_MODULE_STACK[:] = [held for held in FWD_MODULE_STACK if held is not module]


def is_partitioned(parameter: nn.Parameter) -> bool:
    """Whether stage 3 has dealt this parameter out."""
    return "ds_id" in vars(parameter)
