"""The model that learns."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distill import adapted_model, adapters, capture
from distill.errors import ModelError
from distill.few_shapes import use_few_shapes
from distill.protocols import TrainedModel
from distill.types import Batch, Needs, Outputs, Shape
from students.adapters.ranks import RankSchedule
from students.frozen import weights_of


class Student(TrainedModel):
    """A transformers model, or one in an adapter, behind one call: `student(batch, needs)`."""

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        *,
        has_head: bool,
        rates: dict[str, float] | None = None,
        frozen_head: bool = False,
        ranks: RankSchedule | None = None,
    ) -> None:
        """Take a model whose trained weights are in fp32; `has_head` says whether it has outputs for a task.

        `rates` are factors on the learning rate of the parameters whose names contain a text (LoRA+);
        `frozen_head` says whether the frozen model inside an adapter had outputs that were trained;
        `ranks` is what AdaLoRA's training needs besides.
        """
        super().__init__()
        self.model: PreTrainedModel = cast(PreTrainedModel, model)  # an adapted model passes on what it is asked
        capture.prepare(self.model)
        use_few_shapes(self.model)
        computed = {f"model.{name}" for name in adapted_model.transformer(self.model)._keys_to_ignore_on_save or ()}
        self._learning = [n for n, p in self.named_parameters() if p.requires_grad and n not in computed]
        self.kept: set[str] = set()
        """Names of weights that stay as they are."""
        self._rates = rates or {}
        self.frozen_head = frozen_head
        self._ranks = ranks
        self.shape: Shape = capture.shape_of(self.model, trained_head=has_head)
        self.offers: Needs = capture.offers_of(self.model, self.shape)

    def forward(self, batch: Batch, needs: Needs) -> Outputs:
        """Run on a batch and return what is needed."""
        if self.training:
            adapted_model.begin_pass(self.model)
        return capture.forward(self.model, batch, needs)

    @torch.no_grad()
    def frozen(self, batch: Batch, needs: Needs) -> Outputs:
        """Run the frozen model inside an adapter, in eval mode for as long as it takes."""
        training = self.training
        self.train(False)
        try:
            with adapted_model.switched_off(cast(PeftModel, self.model)) as model:
                return capture.forward(model, batch, needs)
        finally:
            self.train(training)

    def penalty(self) -> Tensor | None:
        """Return what its adapter adds to the loss by itself."""
        return adapted_model.penalty(self.model) if self._ranks is None else self._ranks.penalty()

    def callbacks(self) -> list[pl.Callback]:
        """Return what has to happen around its training steps, before anything is saved."""
        return [] if self._ranks is None else [self._ranks]

    def parameter_groups(self, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Return the trained parameters for an optimiser: biases and norms (one dimension) are not decayed."""
        groups: dict[tuple[float, float], list[nn.Parameter]] = {(1.0, weight_decay): [], (1.0, 0.0): []}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                rate = next((factor for mark, factor in self._rates.items() if mark in name), 1.0)
                groups.setdefault((rate, weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
        return [
            {"params": found, "lr": rate * learning_rate, "weight_decay": decay}
            for (rate, decay), found in groups.items()
        ]

    def keep(self, parts: Sequence[str], where: str) -> None:
        """Let parts of the model stay as they are. Raise ModelError as `frozen.weights_of` does."""
        self.kept = {f"model.{name}" for name in weights_of(self.model, parts, where)}

    def freeze_unused(self, batch: Batch, needs: Needs) -> list[str]:
        """Freeze what no output in `needs` depends on (a head where hidden states are matched) and return its names.

        Data-parallel training stops at parameters without gradient, and an optimiser would decay them for nothing.
        What a model computes and does not save, as Marian's positions, is frozen too: it would not be in the folder.
        So is what was to be kept, whose names are not returned. Raise ModelError where no output is left to change.
        """
        named = dict(self.named_parameters())
        learning = [name for name in self._learning if name not in self.kept]
        for name, parameter in named.items():
            parameter.requires_grad_(name in learning)
            parameter.grad = None
        training = self.training
        outputs = self.train(False)(batch, needs)  # nothing is dropped by chance
        total = torch.stack([tensor.float().sum() for tensor in _tensors(outputs)]).sum()
        if not total.requires_grad:
            raise ModelError("student: nothing that the objective looks at depends on weights that may be trained")
        total.backward()  # type: ignore[no-untyped-call]
        self.train(training)
        unused = [name for name in learning if named[name].grad is None]
        for name in learning:
            named[name].requires_grad_(name not in unused)
            named[name].grad = None
        return unused

    def save(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write a folder that transformers loads; of an adapted model one that peft loads, without what is frozen."""
        if isinstance(self.model, PeftModel):
            adapters.save(self.model, folder)
        else:
            self.model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _tensors(outputs: Outputs) -> list[torch.Tensor]:
    found = [logits for logits in (outputs.logits, outputs.choices) if logits is not None]
    for side in (outputs.on("encoder"), outputs.decoder, outputs.cross):
        heads = [tensor for layer in side.relations.values() for tensor in (layer.query, layer.key, layer.value)]
        found += [*side.hidden_states.values(), *side.attentions.values(), *heads]
    return found
