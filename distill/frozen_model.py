"""The frozen model inside an adapted one: what of it no adapter touches."""

from collections.abc import Iterator

from torch import nn

from distill.adapters import transformer
from distill.without import without

with without("bitsandbytes"):
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper


def untouched(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Yield, with its parent and its name there, each module that no adapter is in or looks into, nor anybody else."""
    inner = transformer(module) if isinstance(module, PeftModel) else module
    for name, child in inner.named_children():
        if isinstance(child, BaseTunerLayer | AuxiliaryTrainingWrapper):
            continue
        if not child._forward_hooks and not child._forward_pre_hooks:
            yield inner, name, child
        yield from untouched(child)
