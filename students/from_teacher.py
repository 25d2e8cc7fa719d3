"""A student that keeps some layers of the teacher."""

import copy

from torch import nn

from configs.data import Task
from configs.students import LayersStudent
from distill.errors import ModelError
from distill.models import Loaded
from students.student import Student


def build(choice: LayersStudent, task: Task, teacher: Loaded) -> Student:
    """Copy the teacher with the chosen layers. Raise ModelError for layers it does not have."""
    total = teacher.model.config.num_hidden_layers
    kept = spread(choice.layers, total) if isinstance(choice.layers, int) else choice.layers
    wrong = [layer for layer in kept if layer >= total]
    if wrong or len(set(kept)) != len(kept) or list(kept) != sorted(kept):
        raise ModelError(
            f"student.layers: {list(kept)} must rise and stay below {total}, the number of layers of {teacher.source}"
        )
    model = copy.deepcopy(teacher.model)
    parent, name, blocks = _blocks(model, total)
    setattr(parent, name, nn.ModuleList(blocks[layer] for layer in kept))
    model.config.num_hidden_layers = len(kept)
    _renumber(getattr(parent, name))
    return Student(model, has_head=task.kind != "text")


def spread(count: int, total: int) -> tuple[int, ...]:
    """Return `count` of `total` layers, evenly spread, the last among them. Raise ModelError if there are fewer.

    Six of twelve are 1, 3, 5, 7, 9, 11: student layer m starts as the teacher layer that the uniform map gives it.
    """
    if count > total:
        raise ModelError(f"student.layers: {count} layers of a teacher that has {total}")
    return tuple(round((position + 1) * total / count) - 1 for position in range(count))


def _blocks(model: nn.Module, total: int) -> tuple[nn.Module, str, nn.ModuleList]:
    """Find the list of layers: the one module list as long as the model is deep."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == total:
                return parent, name, child
    raise ModelError("student: this teacher's layers are no list to choose from (shared layers?); build from sizes")


def _renumber(blocks: nn.ModuleList) -> None:
    """Give the layers that know their position the new one."""
    for position, block in enumerate(blocks):
        for module in block.modules():
            if isinstance(getattr(module, "layer_idx", None), int):
                module.layer_idx = position  # type: ignore[assignment]
