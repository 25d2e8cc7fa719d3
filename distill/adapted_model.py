"""What is inside an adapted model, and what can be done with the adapter that is active there."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

from torch import Tensor
from transformers import PreTrainedModel

from distill.adapter_folder import is_norm
from distill.errors import ModelError
from distill.without import without

with without("bitsandbytes"):  # it imports torch's compiler, 2 s of each start; no layer of its is adapted here
    from peft import PeftModel
    from peft.tuners.adaption_prompt import AdaptionPromptModel

ACTIVE = "default"
"""Name of the adapter that is trained or used; others lie below it or are attended over."""

Model = PreTrainedModel | PeftModel


def transformer(model: Model) -> PreTrainedModel:
    """Return the transformers model itself, which an adapted one wraps."""
    return cast(PreTrainedModel, model.get_base_model()) if isinstance(model, PeftModel) else model


def trained_names(model: PeftModel) -> frozenset[str]:
    """Return the names, in the model without adapters, of the weights that its active adapter holds copies of."""
    mark = f".modules_to_save.{ACTIVE}."
    names = [name.removeprefix(inside(model)) for name, _ in model.named_parameters()]
    return frozenset(name.replace(mark, ".") for name in names if mark in name)


def drawn(new: Sequence[str]) -> tuple[str, ...]:
    """Return which weights, of those that came with no checkpoint, are random. A bias begins as zeros and may stay so:
    with that of a vocabulary, peft would train a copy of the weights beside it, which are the embeddings.
    """
    return tuple(name for name in new if not name.endswith(("position_ids", "bias")))


def unlearnt(model: PeftModel, new: Sequence[str]) -> tuple[str, ...]:
    """Return which random weights, of those that came with no checkpoint, the active adapter holds no copies of."""
    return tuple(name for name in drawn(new) if name not in trained_names(model))


def begin_pass(model: Model) -> None:
    """Draw what an adapter draws for every batch: which layers go without it (AdapterDrop)."""
    if isinstance(model, PeftModel) and isinstance(model.base_model, Tuner):
        model.base_model.begin_pass()


def penalty(model: Model) -> Tensor | None:
    """Return what an adapter adds to the loss by itself: λ‖V − I‖² of a fusion."""
    if isinstance(model, PeftModel) and isinstance(model.base_model, Tuner):
        return model.base_model.penalty()
    return None


def settle(model: Model) -> None:
    """Bring an adapter into the form it is passed on in, with the same outputs: what was for training alone goes."""
    if isinstance(model, PeftModel) and isinstance(model.base_model, Tuner):
        model.base_model.settle()


class Tuner(ABC):
    """What a tuner of our own can do beside what peft asks of all."""

    @abstractmethod
    def begin_pass(self) -> None:
        """Draw what is drawn for every batch."""

    @abstractmethod
    def penalty(self) -> Tensor | None:
        """Return what the active adapter adds to the loss, if anything."""

    @abstractmethod
    def settle(self) -> None:
        """Leave out what was for training alone."""


@contextmanager
def switched_off(model: PeftModel) -> Iterator[PreTrainedModel]:
    """Give the model as it was before it was adapted, its own head and normalisations included.

    What learns stays marked as learning: peft's own way changes the marks (and lets all learn that it switches on
    again), which strategies that cut up weights read at the first pass.
    """
    marked: list[Any] = [part for part in model.modules() if getattr(part, "_disable_adapters", None) is False]
    swaps = isinstance(model.base_model, AdaptionPromptModel)  # changes modules, no marks
    try:
        for part in marked:
            part._disable_adapters = True
        with model.disable_adapter() if swaps else nullcontext():
            yield transformer(model)
    finally:
        for part in marked:
            part._disable_adapters = False


def adapted(model: Model, where: str) -> PeftModel:
    """Return a model that has an adapter. Raise ModelError for one that has none."""
    if not isinstance(model, PeftModel):
        raise ModelError(f"{where}: `adapter` writes an adapter, and the student has none (student.adapter)")
    return model


def leaves_out(model: Model) -> bool:
    """Whether parts of an adapter are left out of some passes, so that not all that learns has a gradient in each."""
    return isinstance(model, PeftModel) and bool(getattr(model.active_peft_config, "drop", 0))


def roles(model: PeftModel) -> dict[str, int]:
    """Return how many parameters there are of each role: the adapter's own, normalisations, the head, other modules
    trained whole (layers, embeddings), and what stays frozen.
    """
    counts = dict.fromkeys(("method", "norms", "head", "whole modules", "frozen"), 0)
    before, beside = inside(model), heads(transformer(model))
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            counts["frozen"] += parameter.numel() if ".modules_to_save." not in name else 0
        elif ".modules_to_save." not in name:
            counts["method"] += parameter.numel()
        elif name.removeprefix(before).split(".")[0] in beside:
            counts["head"] += parameter.numel()
        else:
            counts["norms" if is_norm(name) else "whole modules"] += parameter.numel()
    return counts


def heads(model: PreTrainedModel) -> set[str]:
    """Return the names of what stands beside a model's body; T5's body has no name of its own."""
    children = dict(model.named_children())
    if model.base_model_prefix in children:
        return children.keys() - {model.base_model_prefix}
    return {name for name, child in children.items() if child is model.get_output_embeddings()}


def inside(model: PeftModel) -> str:
    """Return what stands before the names of the model without adapters."""
    return "base_model." if model.active_peft_config.is_prompt_learning else "base_model.model."
