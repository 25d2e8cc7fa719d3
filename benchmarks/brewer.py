"""TextBrewer 0.2.1.post1 on the same work: its GeneralDistiller, its losses, its loop, as its examples use them.

What is ours around it: an attention function that hands out the scores where transformers hands out probabilities
(TextBrewer's attention losses are written for scores, which transformers 5 no longer returns), no checkpoint at the end
of a lap, and a clock that starts when its loop asks for the second batch.
"""

import copy
import gc
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, get_linear_schedule_with_warmup
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from benchmarks.clock import Lap, Stopwatch
from benchmarks.ours import WARM, Trained, projectors
from benchmarks.peak import stock_products
from benchmarks.workload import LAYERS, TEMPERATURE
from distill.types import Batch

SCORES = "eager_scores"
Inputs = dict[str, Tensor]


def installed() -> str | None:
    """Return the version of TextBrewer; none where it is not installed."""
    try:
        return version("textbrewer")
    except PackageNotFoundError:
        return None


def eager_scores(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """Attend as transformers' eager function does, and return the scores before mask and softmax."""
    scores = torch.matmul(query, key.transpose(2, 3)) * options["scaling"]
    masked = scores if attention_mask is None else scores + attention_mask
    weights = nn.functional.dropout(masked.softmax(-1), p=options["dropout"], training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), scores


class Brewer:
    """TextBrewer's distiller with the weights of one of our runs."""

    def __init__(self, teacher: Path, trained: Trained, folder: Path) -> None:
        """Load the teacher from its folder and copy student and projectors."""
        import textbrewer

        ALL_ATTENTION_FUNCTIONS.register(SCORES, eager_scores)
        ALL_MASK_ATTENTION_FUNCTIONS.register(SCORES, eager_mask)
        self.teacher = AutoModelForSequenceClassification.from_pretrained(teacher).eval()
        self.student: PreTrainedModel = copy.deepcopy(trained.module.student.model)  # type: ignore[assignment]
        for model in (self.teacher, self.student):
            model.set_attn_implementation(SCORES)
        config = textbrewer.TrainingConfig(device="cpu", output_dir=str(folder), ckpt_steps=10**9)
        self.distiller = _quiet(textbrewer.GeneralDistiller)(
            config, self._losses(textbrewer), self.teacher, self.student, _features, _features
        )
        matched = [proj for proj in self.distiller.projs if proj is not None]
        for own, theirs in zip(projectors(trained.module.objective), matched, strict=True):
            theirs.load_state_dict(own.state_dict())

    def lap(self, batches: Sequence[Batch]) -> Lap:
        """Train on batches; the first comes before the clock."""
        fed = _Fed([_inputs(batch) for batch in batches])
        steps = len(batches)
        optimiser = torch.optim.AdamW(self.student.parameters(), lr=5e-5, weight_decay=0.01)
        with self.distiller, stock_products():
            self.distiller.train(
                optimiser,
                fed,
                num_steps=steps,
                scheduler_class=get_linear_schedule_with_warmup,
                scheduler_args={"num_warmup_steps": steps // 10, "num_training_steps": steps},
                max_grad_norm=1.0,
                output_attentions=True,
                output_hidden_states=True,
            )
        lap = fed.watch.lap(batches[WARM:])
        gc.collect()
        return lap

    def losses(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the total of a batch and its terms."""
        options = {"output_attentions": True, "output_hidden_states": True}
        with stock_products():
            total, terms = self.distiller.train_on_batch(_inputs(batch), options)
        return total, terms

    def _losses(self, textbrewer: Any) -> Any:
        own, taught = self.student.config.hidden_size, self.teacher.config.hidden_size
        hidden = [
            {
                "layer_T": t,
                "layer_S": s,
                "feature": "hidden",
                "loss": "hidden_mse",
                "weight": 1,
                "proj": ["linear", own, taught],
            }
            for s, t in LAYERS.items()
        ]
        attention = [
            {"layer_T": t - 1, "layer_S": s - 1, "feature": "attention", "loss": "attention_mse", "weight": 1}
            for s, t in LAYERS.items()
            if s
        ]
        return textbrewer.DistillationConfig(
            temperature=TEMPERATURE, kd_loss_weight=1, hard_label_weight=1, intermediate_matches=hidden + attention
        )


class _Fed:
    """Batches for its loop, and a clock that starts when the first of them is done."""

    def __init__(self, batches: Sequence[Inputs]) -> None:
        self._batches = batches
        self.watch = Stopwatch()

    def __iter__(self) -> Iterator[Inputs]:
        for number, batch in enumerate(self._batches):
            if number == WARM:
                self.watch = Stopwatch()
            yield batch


def _quiet(distiller: Any) -> Any:
    """Return the distiller without the checkpoint it writes at the end of a training."""

    def save_and_callback(self: Any, *_: Any) -> None:
        return None

    return type("Distiller", (distiller,), {"save_and_callback": save_and_callback})


def _features(batch: Mapping[str, Tensor], outputs: Any) -> dict[str, Any]:
    """Tell TextBrewer where logits, features, mask and loss are."""
    return {
        "logits": outputs.logits,
        "hidden": outputs.hidden_states,
        "attention": outputs.attentions,
        "inputs_mask": batch["attention_mask"],
        "losses": outputs.loss,
    }


def _inputs(batch: Batch) -> Inputs:
    return {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
