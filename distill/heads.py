"""The head a model came with: its outputs put into the order of the run's classes, or a new one in its place."""

import copy
from dataclasses import replace

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from configs.data import Task
from distill import adapted_model
from distill.data.labels import permutation, tell_nothing
from distill.errors import DataError, ModelError
from distill.models import Loaded, auto_class, label_names, set_labels
from distill.without import without

with without("bitsandbytes"):
    from peft import PeftModel

_ANEW = (
    "to train the model for another task, give its body alone, as `AutoModel.from_pretrained(…).save_pretrained(…)` "
    "writes it, and its tokenizer"
)


def in_order(loaded: Loaded, task: Task, labels: tuple[str, ...], where: str) -> Loaded:
    """Put a model's outputs into the order of the run's classes, matched by name, and write the run's names into its
    configuration; the model itself is changed. One without a trained head, or without classes, stays as it is.

    Raise DataError where a name has no partner, ModelError where the outputs of an adapter are in another order.
    """
    if not task.has_classes or not loaded.trained_head:
        return loaded
    inner = adapted_model.transformer(loaded.model)
    order = permutation(label_names(inner.config), labels, where)
    if order is not None:
        if isinstance(loaded.model, PeftModel):
            own = ", ".join(label_names(inner.config))
            raise ModelError(f"{where}: the outputs of this adapter stay in their order; `task.labels: [{own}]` is it")
        _move(inner, order, where)
    set_labels(inner.config, task, labels)
    return loaded


def to_train(loaded: Loaded, task: Task, labels: tuple[str, ...], where: str) -> Loaded:
    """Give a model that is to be fine-tuned outputs for the run's task: its own, in the run's order, or those of a new
    head where its own are `unnamed`.

    Raise DataError where its outputs are named, and not as the run's classes are.
    """
    config = loaded.model.config
    if not loaded.trained_head:
        return loaded
    if unnamed(config, task, labels):
        return _with_new_head(loaded, task, labels)
    if task.kind == "regression" and config.num_labels != 1:
        named = ", ".join(label_names(config))
        raise DataError(f"{where}: the outputs are called {named}, and a regression has one score; {_ANEW}")
    try:
        return in_order(loaded, task, labels, where)
    except DataError as error:
        raise DataError(f"{error}; {_ANEW}") from None


def unnamed(config: PretrainedConfig, task: Task, labels: tuple[str, ...]) -> bool:
    """Whether the outputs of a model are called LABEL_0, LABEL_1 …, and there is no telling which of the run's they
    are; the one score of a regression needs no name.
    """
    if task.kind == "regression":
        return config.num_labels != 1 and tell_nothing(label_names(config), ())
    return task.has_classes and tell_nothing(label_names(config), labels)


def head_weights(model: nn.Module) -> tuple[str, ...]:
    """Return the names of weights outside of a model's body."""
    inside = f"{model.base_model_prefix}."
    return tuple(name for name, _ in model.named_parameters() if not name.startswith(inside))


def _move(model: PreTrainedModel, order: list[int], where: str) -> None:
    """Put the rows of the last layer into another order."""
    parts = (part for name, part in model.named_children() if name != model.base_model_prefix)
    layers = [layer for part in parts for layer in part.modules() if isinstance(layer, nn.Linear)]
    if not layers or layers[-1].out_features != len(order):
        raise ModelError(f"{where}: no layer was found that gives its outputs; `task.labels` in its order needs none")
    with torch.no_grad():
        for weight in layers[-1].parameters():
            weight.copy_(weight[order])
    model.name_or_path = ""  # with this head it lies nowhere


def _with_new_head(loaded: Loaded, task: Task, labels: tuple[str, ...]) -> Loaded:
    """Return a model of the same body, with random weights outside of it."""
    old = loaded.model
    config = copy.deepcopy(old.config)
    set_labels(config, task, labels)
    with torch.device(old.device):
        made: PreTrainedModel = auto_class(task, config).from_config(config, dtype=old.dtype)
    made.base_model.load_state_dict(old.base_model.state_dict())
    made.name_or_path = ""  # with this head it lies nowhere
    return replace(loaded, model=made.eval(), trained_head=False, new=head_weights(made))
