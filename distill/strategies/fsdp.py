"""Fully sharded data parallelism (FSDP2): each device holds its part of weights, gradients and moments."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerStatus
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from distill.protocols import TrainedModel

_MARKS = ("_is_fsdp_managed_module", "_fsdp_use_orig_params")
"""What `fully_shard` leaves on each part for others to see: transformers' `generate` asks all ranks after each token
where it finds the first, and rank 0 writes its texts alone once the weights are whole."""
_OWN_TEACHER = "frozen"
"""The other pass through a student, which puts weights together too."""


class FullyShardedStrategy(DDPStrategy):
    """`fully_shard` (Zhao et al. 2023) around each layer of the student, its rest, and the projectors.

    Checkpoints hold what those of one device hold.
    """

    def __init__(self, *, offload: bool, gpu: bool, timeout: timedelta) -> None:
        """`offload` keeps each device's part in the host's memory between its uses."""
        backend = "cpu:gloo,cuda:nccl" if offload and gpu else None  # norms are summed where the parts lie
        super().__init__(timeout=timeout, process_group_backend=backend)
        self._policy = CPUOffloadPolicy(pin_memory=gpu) if offload else OffloadPolicy()

    def configure_ddp(self) -> None:
        """Cut up the weights, where DDP would copy them."""
        module = self.lightning_module
        assert module is not None
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        student, objective = module.student, module.objective
        assert isinstance(student, TrainedModel) and isinstance(objective, nn.Module)
        for block in blocks(student):
            self._shard(block, mesh)
        self._shard(student, mesh)
        register_fsdp_forward_method(student, _OWN_TEACHER)
        if any(True for _ in objective.parameters()):
            self._shard(objective, mesh)

    def _shard(self, module: nn.Module, mesh: DeviceMesh) -> None:
        fully_shard(module, mesh=mesh, offload_policy=self._policy)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return what learns, whole, on rank 0; tied weights stay tied."""
        module = self.lightning_module
        assert module is not None
        state: dict[str, Any] = module.state_dict()  # FSDP cuts up again what a pass left whole
        parameters, whole = dict(module.named_parameters(remove_duplicate=False)), dict[int, Any]()
        for name, value in state.items():
            one = id(parameters.get(name, value))
            state[name] = whole[one] = whole[one] if one in whole else self._whole(value)
        return state if self.is_global_zero else {}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the state of AdamW as one device would have it, on rank 0."""
        found = optimizer.state_dict()
        state = {
            number: {name: self._whole(value) for name, value in moments.items()}
            for number, moments in found["state"].items()
        }
        return {**found, "state": state if self.is_global_zero else {}}

    def _whole(self, value: Any) -> Any:
        return _whole(value, keep=self.is_global_zero)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Deal out the state of AdamW."""
        optimizer, saved = self.optimizers[0], checkpoint["optimizer_states"][0]
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        state = {
            number: {name: _part(value, parameters[number]) for name, value in moments.items()}
            for number, moments in saved["state"].items()
        }
        optimizer.load_state_dict({**saved, "state": state})

    def teardown(self) -> None:
        """Make the model whole again on rank 0, which scores and saves it: in the host's memory, where Lightning puts
        it next. A training that had no step left has come here too; one that failed has lost the others.
        """
        module = self.lightning_module
        if module is not None and module.trainer.state.status is not TrainerStatus.INTERRUPTED:
            make_whole(module, keep=self.is_global_zero)
        super().teardown()


def make_whole(module: nn.Module, *, keep: bool) -> None:
    """Put cut-up weights together for good, in the host's memory of the ranks that `keep` them, one at a time; take
    FSDP's hooks off everywhere.
    """
    sharded = [part for part in module.modules() if isinstance(part, FSDPModule)]
    for cut in sharded:
        cut.reshard()  # the last pass leaves the outermost whole
    whole: dict[int, nn.Parameter] = {}  # tied weights stay tied
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            if isinstance(parameter, DTensor):
                value = _whole(parameter.detach(), keep=keep)
                one = whole.setdefault(id(parameter), nn.Parameter(value, requires_grad=parameter.requires_grad))
                setattr(part, name, one)
    for cut in sharded:
        _release(cut)
    for part in module.modules():
        for mark in _MARKS:
            part.__dict__.pop(mark, None)


def _release(part: Any) -> None:
    """Undo what `fully_shard` did to a module but for its weights: a class that was put before its own, and hooks."""
    state = part._get_fsdp_state()
    for group in state._fsdp_param_groups:
        saving, loading = (
            group._module_to_pre_save_state_dict_hook_handle,
            group._module_to_pre_load_state_dict_hook_handle,
        )
        for handle in (*saving.values(), *loading.values()):
            handle.remove()
    for hooks in (part._forward_pre_hooks, part._forward_hooks):
        for key in [key for key, hook in hooks.items() if getattr(hook, "__self__", None) is state]:
            del hooks[key]
    part.__dict__.pop(_OWN_TEACHER, None)
    part.__class__ = type(part).__bases__[1]


def blocks(model: nn.Module) -> list[nn.Module]:
    """Return the layers of a transformer: the members of its longest lists, innermost lists not."""
    lists = [part for part in model.modules() if isinstance(part, nn.ModuleList) and len(part) > 1]
    return [block for part in lists for block in part if not any(inner in lists for inner in block.modules())]


def _whole(value: Any, *, keep: bool) -> Any:
    """Return a tensor that was cut up, whole and on the CPU; nothing of it where it is not kept. All ranks take part.
    Return anything else as it is.
    """
    if not isinstance(value, DTensor):
        return value
    whole = value.full_tensor()
    return whole.cpu() if keep else torch.empty(0)


def _part(value: Tensor, parameter: Tensor) -> Tensor:
    """Return this rank's part of a tensor that belongs to a parameter; counters belong to all."""
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
