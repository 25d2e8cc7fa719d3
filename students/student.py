"""The model that learns."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distill import capture
from distill.errors import ModelError
from distill.protocols import TrainedModel
from distill.types import Batch, Needs, Outputs, Shape
from students.frozen import weights_of


class Student(TrainedModel):
    """A transformers model behind one call: `student(batch, needs)`."""

    def __init__(self, model: PreTrainedModel, *, has_head: bool) -> None:
        """Take a model in fp32; `has_head` says whether it has outputs for a task."""
        super().__init__()
        capture.prepare(model)
        self.model = model
        self.kept: set[str] = set()
        """Names of weights that stay as they are."""
        self._computed = {f"model.{name}" for name in model._keys_to_ignore_on_save or ()}
        self.shape: Shape = capture.shape_of(model, trained_head=has_head)
        self.offers: Needs = capture.offers_of(model, self.shape)

    def forward(self, batch: Batch, needs: Needs) -> Outputs:
        """Run on a batch and return what is needed."""
        return capture.forward(self.model, batch, needs)

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Return the trained parameters for an optimiser: biases and norms (one dimension) are not decayed."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
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
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name not in self._computed | self.kept)
        total = torch.stack([tensor.float().sum() for tensor in _tensors(self(batch, needs))]).sum()
        if not total.requires_grad:
            raise ModelError("student: nothing that the objective looks at depends on weights that may be trained")
        total.backward()  # type: ignore[no-untyped-call]
        unused = [name for name, parameter in self.named_parameters() if parameter.grad is None]
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name not in unused)
            parameter.grad = None
        return [name for name in unused if name not in self.kept]

    def save(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write a folder that transformers loads."""
        self.model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _tensors(outputs: Outputs) -> list[torch.Tensor]:
    found = [] if outputs.logits is None else [outputs.logits]
    for side in (outputs.on("encoder"), outputs.decoder, outputs.cross):
        heads = [tensor for layer in side.relations.values() for tensor in (layer.query, layer.key, layer.value)]
        found += [*side.hidden_states.values(), *side.attentions.values(), *heads]
    return found
