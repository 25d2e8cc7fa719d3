"""A student that keeps some layers of the teacher."""

import copy
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from configs.students import LayersStudent
from distill.errors import ModelError
from distill.models import Loaded


@dataclass(frozen=True)
class _Stack:
    """Layers one after the other: those of a model, or of the encoder or the decoder of one that has both."""

    part: nn.Module
    sizes: tuple[str, ...]
    """Keys of the configuration that count the layers."""
    where: str


def build(choice: LayersStudent, teacher: Loaded) -> PreTrainedModel:
    """Copy the teacher with the chosen layers. Raise ModelError for layers it does not have."""
    model = copy.deepcopy(teacher.model)
    model.name_or_path = ""  # with these layers it lies nowhere
    if not model.config.is_encoder_decoder:
        if choice.decoder_layers is not None:
            raise ModelError(
                f"student.decoder_layers: {teacher.source} has no decoder beside its encoder; leave it out"
            )
        _keep(_Stack(model, ("num_hidden_layers",), "student.layers"), choice.layers, model, teacher.source)
        return model
    _keep(
        _Stack(model.get_encoder(), ("encoder_layers", "num_layers"), "student.layers"),
        choice.layers,
        model,
        teacher.source,
    )
    if choice.decoder_layers is not None:
        decoder = _Stack(model.get_decoder(), ("decoder_layers", "num_decoder_layers"), "student.decoder_layers")
        _keep(decoder, choice.decoder_layers, model, teacher.source)
    return model


def _keep(stack: _Stack, choice: int | tuple[int, ...], model: Any, source: str) -> None:
    """Keep the chosen layers of a stack."""
    known = model.config.to_dict().keys() | model.config.attribute_map.keys()
    key = next(key for key in stack.sizes if key in known)
    total = getattr(model.config, key)
    kept = spread(choice, total, stack.where) if isinstance(choice, int) else choice
    wrong = [layer for layer in kept if layer >= total]
    if wrong or len(set(kept)) != len(kept) or list(kept) != sorted(kept):
        raise ModelError(
            f"{stack.where}: {list(kept)} must rise and stay below {total}, the number of layers of {source}"
        )
    parent, name, blocks = _blocks(stack.part, total)
    _hand_on_positions(blocks[0], blocks[kept[0]])
    setattr(parent, name, nn.ModuleList(blocks[layer] for layer in kept))
    setattr(model.config, key, len(kept))
    _renumber(getattr(parent, name))


def spread(count: int, total: int, where: str = "student.layers") -> tuple[int, ...]:
    """Return `count` of `total` layers, evenly spread, the last among them. Raise ModelError if there are fewer.

    Six of twelve are 1, 3, 5, 7, 9, 11: student layer m starts as the teacher layer that the uniform map gives it.
    """
    if count > total:
        raise ModelError(f"{where}: {count} layers of a teacher that has {total}")
    return tuple(round((position + 1) * total / count) - 1 for position in range(count))


def _blocks(model: nn.Module, total: int) -> tuple[nn.Module, str, nn.ModuleList]:
    """Find the list of layers: the one module list as long as the model is deep."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == total:
                return parent, name, child
    raise ModelError("student: this teacher's layers are no list to choose from (shared layers?); build from sizes")


def _hand_on_positions(first: nn.Module, kept: nn.Module) -> None:
    """Give the layer that becomes the first what T5 and its kind keep in their first alone, and share: the biases of
    relative positions.
    """
    flag = "has_relative_attention_bias"
    biased = [(name, module) for name, module in first.named_modules() if getattr(module, flag, False)]
    for name, module in biased:
        twin = kept.get_submodule(name)
        if not getattr(twin, flag):
            setattr(twin, flag, True)
            for child, biases in module.named_children():
                if child.endswith("relative_attention_bias"):
                    setattr(twin, child, biases)


def _renumber(blocks: nn.ModuleList) -> None:
    """Give the layers that know their position the new one."""
    for position, block in enumerate(blocks):
        for module in block.modules():
            if isinstance(getattr(module, "layer_idx", None), int):
                module.layer_idx = position  # type: ignore[assignment]
