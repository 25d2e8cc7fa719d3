"""Modules trained whole, in fp32, within a model in bf16 or fp16."""

from functools import partial
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from distill.adapted_model import ACTIVE, heads, inside, transformer

_HELD = ("modules_to_save", "ln_tuning_layers")
"""Where peft keeps copies of whole modules, by the adapter's name."""


def learn_in_fp32(model: PeftModel) -> None:
    """Have all that learns in fp32. What an adapter adds minds types itself; a module trained whole is given fp32, and
    what it makes of it goes on in the type of the frozen weights, but for that of a head.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # peft leaves copies of heads and norms in the base's type
    frozen = {value.dtype for value in model.parameters() if not value.requires_grad and value.is_floating_point()}
    others = frozen - {torch.float32}
    if not others:
        return
    (computed,), beside = others, heads(transformer(model))
    for name, module in model.named_modules():
        is_head = name.removeprefix(inside(model)).split(".")[0] in beside
        for copies in (getattr(module, held, None) for held in _HELD):
            if isinstance(copies, nn.ModuleDict) and ACTIVE in copies:
                copies[ACTIVE].register_forward_pre_hook(_given, with_kwargs=True)
                if not is_head:
                    copies[ACTIVE].register_forward_hook(partial(_gives, computed))


def _given(_: nn.Module, inputs: Any, options: Any) -> tuple[Any, Any]:
    return _in(torch.float32, inputs), _in(torch.float32, options)


def _gives(dtype: torch.dtype, _: nn.Module, __: Any, output: Any) -> Any:
    return _in(dtype, output)


def _in(dtype: torch.dtype, tree: Any) -> Any:
    """Return tensors of numbers with a point in a type, anything else as it is."""
    return tree_map_only(Tensor, lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor, tree)
