"""Run a trained model over rows."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import Tensor
from transformers import PreTrainedModel

from distill import capture
from distill.adapted_model import transformer
from distill.data.collate import collate
from distill.data.module import VOCABULARY_ROWS
from distill.data.table import TokenTable
from distill.errors import DataError, ModelError
from distill.losses.choices import answer_scores
from distill.metrics import TargetMetrics
from distill.protocols import Teacher
from distill.token_metrics import at, labelled_places, told
from distill.types import Batch, Needs, Outputs
from distill.virtual import answering_at_last, learned
from teachers.in_step import in_step

Inputs = Mapping[str, Tensor]
"""input_ids, attention_mask and perhaps token_type_ids: each [B T] int64; other keys are not looked at."""
Indices = npt.NDArray[np.int64]

MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "decoder_input_ids")
BATCH = 64


@dataclass(frozen=True)
class EncodedRows:
    """Tokenised rows: how to pad some of them into a batch, how long they are, and their labels."""

    collate: Callable[[Indices], Inputs]
    lengths: npt.NDArray[np.integer]
    """[N] tokens"""
    labels: Tensor
    """[N] int64 class or float32 score; see `distill.types.Batch`. Where something is to be said at many positions of a
    row, [N W] int64, IGNORED behind the last"""
    at_once: int = BATCH
    """Rows of a batch."""

    @classmethod
    def of(cls, table: TokenTable, pad_id: int, *, ranked: bool = False) -> "EncodedRows":
        """Take the rows of a token table; `ranked` ones are scored by the likeliest of their answers. Raise DataError
        where such a row has one answer alone.
        """

        def pad(rows: Indices) -> Inputs:
            inputs = dict(collate(table, rows, pad_id))
            inputs.pop("hidden", None)  # what belongs to which row is to be seen
            return cast(Inputs, inputs)

        if ranked:
            counts = np.zeros(len(table), np.int64) if table.wrong_rows is None else np.diff(table.wrong_rows)
            if not counts.all():
                raise DataError(f"row {int(counts.argmin()) + 1} has no answers to choose from")
            most = torch.tensor(counts.max())
            labels = torch.full((len(table),), int(most))
            return cls(lambda rows: {**pad(rows), "answers": most}, table.lengths, labels, VOCABULARY_ROWS)
        if table.target_lengths is None or table.targets is not None:
            return cls(pad, table.lengths, torch.from_numpy(table.labels))
        width = int(table.target_lengths.max(initial=1))

        def pad_and_place(rows: Indices) -> Inputs:
            batch = pad(rows)
            places, wanted = labelled_places(batch["labels"], width)
            return {**batch, "places": places} | ({} if table.masking is None else {"wanted": wanted})

        every = [pad(np.arange(i, min(i + BATCH, len(table)))) for i in range(0, len(table), BATCH)]
        labels = torch.cat([labelled_places(batch["labels"], width)[1] for batch in every])
        return cls(pad_and_place, table.lengths, labels, BATCH if table.masking is None else VOCABULARY_ROWS)

    def __len__(self) -> int:
        return len(self.lengths)

    def spread(self, count: int) -> Indices:
        """Return up to `count` rows spread evenly over the lengths, shortest first."""
        order = np.argsort(self.lengths, kind="stable")
        return order[np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(np.int64)]

    def batches(self, rows: Indices, size: int | None = None) -> Iterator[Inputs]:
        """Pad the rows, in the order given, into batches of `size`."""
        size = size or self.at_once
        for start in range(0, len(rows), size):
            yield self.collate(rows[start : start + size])


def predict(
    model: PreTrainedModel, batches: Iterable[Inputs], advance: Callable[[int], object] | None = None
) -> Tensor:
    """Return the logits [N V] of a model, fp32 on the CPU; `advance` is told of the rows as they are done. Where
    something is to be said at many positions [N W V], of hidden tokens what `distill.token_metrics.told` keeps.

    Raises `ModelError` where a logit is not finite: an argmax would hide it.
    """
    parts = []
    with evaluating(model):
        for batch in batches:
            parts.append(_scored(answer(model, batch), batch).float().cpu())
            if advance is not None:
                advance(len(parts[-1]))
    return _finite(torch.cat(parts), str(model.name_or_path))


def predict_in_step(
    teacher: Teacher, rows: EncodedRows, device: torch.device, advance: Callable[[int], object] | None = None
) -> Tensor:
    """Return what `predict_rows` does, on every rank, of a teacher that all of them ask at the same time; its outputs
    are in the order of the run. Raise `ModelError` as `predict` does.
    """

    def said(places: Indices) -> dict[str, Tensor]:
        batch = cast(Batch, move_data_to_device(dict(rows.collate(places)), device))
        outputs = teacher(batch, Needs(logits=True, choices="answers" in batch))
        return {"logits": _scored(_taken(outputs, batch), batch).float()}

    order, parts = np.argsort(rows.lengths, kind="stable"), []
    batches = [order[start : start + rows.at_once] for start in range(0, len(order), rows.at_once)]
    for found in in_step(said, batches):
        parts.append(found["logits"])
        if advance is not None:
            advance(len(parts[-1]))
    return _put_back(_finite(torch.cat(parts), teacher.describe()), order)


def _finite(logits: Tensor, who: str) -> Tensor:
    if not logits.isfinite().all():
        bad = int((~logits.isfinite()).flatten(1).any(-1).sum())
        raise ModelError(f"{who}: {bad} of {len(logits)} rows get logits that are not finite numbers")
    return logits


def answer(model: PreTrainedModel, batch: Inputs) -> Tensor:
    """Return what is scored: the scores of answers [B K], or what `head_output` returns."""
    if "answers" not in batch:
        return head_output(model, batch)
    moved = cast(Batch, move_data_to_device(dict(batch), model.device))
    return _taken(capture.forward(model, moved, Needs(logits=True, choices=True)), moved)


def _taken(outputs: Outputs, batch: Mapping[str, Any]) -> Tensor:
    """Return the scores of answers [B K] where rows are ranked by them, elsewhere the logits."""
    if "answers" in batch:
        return answer_scores(outputs, batch["labels"], batch.get("choices"), int(batch["answers"]))
    assert outputs.logits is not None
    return outputs.logits


def _scored(output: Tensor, batch: Mapping[str, Any]) -> Tensor:
    """Return what is scored of an output: all, or what is said at the batch's places."""
    if "places" not in batch:
        return output
    taken = at(batch["places"].to(output.device), output)
    return taken if "wanted" not in batch else told(taken, batch["wanted"].to(output.device))


def target_scores(model: PreTrainedModel, batches: Iterable[Inputs]) -> dict[str, float]:
    """Return how well a model expects the targets; see `distill.metrics.TargetMetrics`."""
    metrics = TargetMetrics(of_all_ranks=False).to(model.device)  # each process that scores has all rows
    with evaluating(model):
        for batch in batches:
            metrics.update(head_output(model, batch), batch["labels"].to(model.device))
    return metrics.compute()


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Switch dropout and gradients off; put the model back into the mode it was in afterwards."""
    training = model.training
    model.train(False)
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def predict_rows(model: PreTrainedModel, rows: EncodedRows, advance: Callable[[int], object] | None = None) -> Tensor:
    """Return the logits [N V] of all rows in their order; they are batched by length, so that little is padding."""
    order = np.argsort(rows.lengths, kind="stable")
    return _put_back(predict(model, rows.batches(order), advance), order)


def _put_back(logits: Tensor, order: Indices) -> Tensor:
    back = torch.empty_like(logits)
    back[torch.from_numpy(order)] = logits
    return back


def head_output(model: PreTrainedModel, batch: Inputs) -> Tensor:
    """Return the logits [B V] of a model with a head, or the last hidden state [B T D] of a body."""
    inputs = model_inputs(model, batch)
    with answering_at_last(model, inputs.get("attention_mask")):
        output = model(**inputs)
    first: Tensor = output["logits"] if "logits" in output else output["last_hidden_state"]
    if first.ndim == 2 or model.config.is_encoder_decoder:
        return first
    return first[:, learned(model).tokens :]


def model_inputs(model: PreTrainedModel, batch: Inputs) -> dict[str, Tensor]:
    """Pick what the model's forward takes, on its device: a tokenizer may give token types that a model has not."""
    taken = inspect.signature(transformer(model).forward).parameters
    return {name: batch[name].to(model.device) for name in MODEL_INPUTS if name in batch and name in taken}


def permute(logits: Tensor, order: Sequence[int] | None = None) -> Tensor:
    """Put the outputs [… V] of a model into the label order of the run: output `order[i]` becomes output i."""
    return logits if order is None else logits[..., list(order)]
