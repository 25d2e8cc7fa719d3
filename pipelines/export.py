"""Write the student for use elsewhere; each form is loaded back and compared before it is put in place."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from configs.data import Task
from distill import adapted_model, adapters, merging
from distill.errors import ModelError
from distill.files import whole_folder, write_json, write_text
from distill.metrics import agreement
from distill.models import Loaded, ModelSource, load, set_labels
from distill.types import IGNORED
from pipelines import latency, onnx
from pipelines.score import EncodedRows, Inputs, head_output

Format = Literal["adapter", "transformers", "onnx", "onnx_int8"]
Answer = Callable[[Inputs], Tensor]

ROWS_IN_BATCHES = 4
"""Batches of rows the forms are compared on, spread over the lengths."""
BATCH = 16
NAMES: dict[Format, str] = {
    "adapter": "the adapter’s folder",
    "transformers": "the transformers folder",
    "onnx": "ONNX",
    "onnx_int8": "ONNX int8",
}


@dataclass(frozen=True)
class Trained:
    """The student to export, and what it is for."""

    source: ModelSource
    rows: EncodedRows
    """Rows to compare the forms on."""
    task: Task
    labels: tuple[str, ...]
    card: str
    """The model card: README.md of the transformers folder."""


@dataclass(frozen=True)
class Parity:
    """How near a form comes to the trained student, and how near it must."""

    measure: str
    value: float
    limit: float
    at_most: bool

    @property
    def holds(self) -> bool:
        """Whether it is near enough; what is not a number is not."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit


@dataclass(frozen=True)
class Reference:
    """The trained student, and what it says to the rows."""

    trained: Trained
    loaded: Loaded
    batches: list[Inputs]
    outputs: Tensor
    scratch: Path
    """For files that several forms are made from."""
    whole: PreTrainedModel
    """The student with its adapter in its weights, where it has one that can be; else the student."""


def export(trained: Trained, formats: Sequence[Format], output: Path, *, seconds: float = 1.0) -> dict[str, Any]:
    """Write each form into a folder of its own under `output`, time them in turns, write `output/results.json`.

    Each form is timed for about `seconds` per batch size.
    Raises `ModelError` where a form differs from the trained student; that form is not left behind.
    """
    if any(form != "transformers" for form in formats):
        onnx.require("export.formats")
    with TemporaryDirectory() as scratch:
        reference = _reference(trained, Path(scratch))
        made = {form: _make(form, reference, output / form) for form in formats}
    answers = {form: _answer(form, trained, output / form) for form in formats}
    times = latency.measure(answers, trained.rows, seconds=seconds)
    results = {
        "student": trained.source.path,
        "rows": len(trained.rows.spread(ROWS_IN_BATCHES * trained.rows.at_once)),
        "latency": latency.setting(trained.rows, "cpu"),
        "formats": {form: {**facts, "latency": times[form]} for form, facts in made.items()},
    }
    write_json(output / "results.json", results)
    return results


def parity(form: Format, task: Task, ours: Tensor, theirs: Tensor) -> Parity:
    """Compare a form's outputs [N V] with the trained student's: digit by digit in fp32, by what they say in int8."""
    if form != "onnx_int8":
        difference = float((ours.double() - theirs.double()).abs().max())
        return Parity("largest difference of an output", difference, 1e-4 if form == "onnx" else 1e-5, True)
    if task.has_classes or task.kind == "masked_lm":
        same = float((ours.argmax(-1) == theirs.argmax(-1)).double().mean())
        return Parity("share of equal predictions", same, 0.97, False)
    correlation = agreement("regression", ours.reshape(-1, 1), theirs.reshape(-1, 1))["agreement"]
    return Parity("correlation of the outputs", correlation, 0.99 if task.kind == "regression" else 0.98, False)


def _make(form: Format, reference: Reference, target: Path) -> dict[str, Any]:
    with whole_folder(target) as folder:
        _write(form, reference, folder)
        found = _compared(form, reference, folder)
    return {"path": target.name, "megabytes": _megabytes(target), "parity": asdict(found)}


def _reference(trained: Trained, scratch: Path) -> Reference:
    loaded = load(trained.source, trained.task, trained.labels, "export.student")
    if trained.task.kind != "text":
        set_labels(loaded.model.config, trained.task, trained.labels)
    batches = _batches(trained.rows)
    outputs = _outputs(_torch_answer(loaded.model), batches, trained.task)
    return Reference(trained, loaded, batches, outputs, scratch, merging.whole(loaded.model, "export.formats"))


def _batches(rows: EncodedRows) -> list[Inputs]:
    """Pad the rows into batches that mix lengths, then a few rows alone."""
    spread = rows.spread(ROWS_IN_BATCHES * rows.at_once)
    mixed = np.random.default_rng(0).permutation(spread)
    return [*rows.batches(mixed, BATCH), *rows.batches(rows.spread(4), 1)]


def _write(form: Format, reference: Reference, folder: Path) -> None:
    model = reference.whole
    reference.loaded.tokenizer.save_pretrained(folder)
    match form:
        case "adapter":
            adapted = adapted_model.adapted(reference.loaded.model, "export.formats")
            adapted_model.settle(adapted)
            adapters.save(adapted, folder)
            write_text(folder / "README.md", reference.trained.card)
        case "transformers":
            merging.plain(reference.loaded.model, "export.formats").save_pretrained(folder)
            write_text(folder / "README.md", reference.trained.card)
        case "onnx":
            model.config.save_pretrained(folder)
            shutil.copytree(_graph(reference).parent, folder, dirs_exist_ok=True)
        case "onnx_int8":
            model.config.save_pretrained(folder)
            onnx.quantise(_graph(reference), folder / onnx.FILE)


def _graph(reference: Reference) -> Path:
    """Return the ONNX file in fp32, traced at the first call."""
    path = reference.scratch / onnx.FILE
    if not path.exists():
        onnx.write(reference.whole, _example(reference), path)
    return path


def _example(reference: Reference) -> Inputs:
    """Return a batch with every input the tokenizer gives, so that what it gives can be fed to the graph as it is."""
    batch = reference.batches[0]
    if "token_type_ids" in batch or "token_type_ids" not in reference.loaded.tokenizer.model_input_names:
        return batch
    return {**batch, "token_type_ids": torch.zeros_like(batch["input_ids"])}


def _compared(form: Format, reference: Reference, folder: Path) -> Parity:
    """Load a form back and compare it. Raise `ModelError` with the number where it is too far from the student."""
    trained = reference.trained
    outputs = _outputs(_answer(form, trained, folder), reference.batches, trained.task)
    found = parity(form, trained.task, outputs, reference.outputs)
    if not found.holds:
        raise ModelError(
            f"export.formats: {NAMES[form]} is not the trained student: {found.measure} is {found.value:.4g} on "
            f"{len(outputs)} rows, {'at most' if found.at_most else 'at least'} {found.limit:g} is required"
        )
    return found


def _answer(form: Format, trained: Trained, folder: Path) -> Answer:
    """Load a form that was written and return what runs it."""
    if form in ("adapter", "transformers"):
        return _torch_answer(load(ModelSource(str(folder)), trained.task, trained.labels, f"export: {folder}").model)
    return onnx.runner(folder / onnx.FILE)


def _torch_answer(model: PreTrainedModel) -> Answer:
    model.train(False)

    def run(batch: Inputs) -> Tensor:
        with torch.inference_mode():
            return head_output(model, batch)

    return run


def _outputs(answer: Answer, batches: Sequence[Inputs], task: Task) -> Tensor:
    """Return the logits [N V] to all batches, of words and of hidden tokens where there are such; of a body the hidden
    states [positions D], padding left out.
    """
    if task.by_token:
        return torch.cat([answer(batch)[batch["labels"] != IGNORED] for batch in batches])
    if task.kind != "text":
        return torch.cat([answer(batch) for batch in batches])
    return torch.cat([answer(batch)[batch["attention_mask"].bool()] for batch in batches])


def _megabytes(folder: Path) -> float:
    """Return the MB (10⁶ bytes) of the weights in a folder."""
    weights = [path for path in folder.iterdir() if path.suffix in (".safetensors", ".onnx", ".data")]
    return sum(path.stat().st_size for path in weights) / 1e6
