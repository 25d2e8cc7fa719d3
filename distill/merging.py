"""Take an adapter into the weights of its model, where its algebra allows that."""

import copy
from typing import Any, cast

from peft import PeftModel
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn
from transformers import PreTrainedModel

from distill.adapted_model import Model
from distill.errors import ModelError


def whole(model: Model, where: str) -> PreTrainedModel:
    """Return a model with its adapter in its weights, where it has one that can be taken in; the given one is kept."""
    if not isinstance(model, PeftModel):
        return model
    try:
        return plain(model, where)
    except ModelError:
        return cast(PreTrainedModel, model)


def plain(model: Model, where: str) -> PreTrainedModel:
    """Return a model with its adapter in its weights; the given one is kept. Raise ModelError as `merged` does."""
    return merged(copy.deepcopy(model), where) if isinstance(model, PeftModel) else model


def merged(model: PeftModel, where: str) -> PreTrainedModel:
    """Take the adapter into the weights and return the plain model; the adapted one is used up.

    Raise ModelError for a method whose algebra does not allow it, before anything is changed.
    """
    tuner: Any = model.base_model
    if model.active_peft_config.is_prompt_learning:
        raise ModelError(f"{where}: learned tokens have no place in the weights; `adapter` and `onnx` keep them")
    if not hasattr(type(tuner), "merge_and_unload"):
        raise ModelError(f"{where}: {type(tuner).__name__} cannot be merged")
    tuner._replace_module = _put  # peft's own copies `weight`, which a head of several layers has not
    try:
        return _unwrapped(cast(PreTrainedModel, tuner.merge_and_unload(safe_merge=True)))
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"{where}: {str(error).splitlines()[0]}") from error


def _unwrapped(model: PreTrainedModel) -> PreTrainedModel:
    """Put what was trained whole in its place: peft's merge of normalisations (LN tuning) leaves its wrappers there."""
    for name, module in list(model.named_modules()):
        if isinstance(module, AuxiliaryTrainingWrapper):
            parent, _, child = name.rpartition(".")
            trained: Any = module.unload_and_optionally_merge_module(True, True, None)
            setattr(model.get_submodule(parent), child, trained)
    return model


def _put(parent: nn.Module, name: str, made: nn.Module, old: nn.Module) -> None:
    setattr(parent, name, made)
