"""Merge, copy and take over adapters; what was written is loaded back and compared before it is put in place."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from configs.data import Task, TaskKind
from distill import adapted_model, adapters, merging
from distill.errors import ModelError
from distill.files import whole_folder, write_text
from distill.models import Loaded, ModelSource, describing, has_head, label_names, load, load_config
from pipelines.adapter_card import card
from pipelines.adapter_facts import facts
from pipelines.score import Inputs, head_output
from students.adapters.build import task_type
from students.adapters.hub.build import take_over
from students.adapters.hub.read import is_fusion, read
from students.adapters.modular.tuner import ModularModel
from students.adapters.register import register

NEAR = 1e-4
"""How far outputs may be off, as a part of the largest one: sums in fp32 in another order."""
ROWS, TOKENS = 4, 8
_PEFT_TASKS: dict[str, TaskKind] = {
    "SEQ_CLS": "classification",
    "TOKEN_CLS": "tagging",
    "SEQ_2_SEQ_LM": "generation",
    "CAUSAL_LM": "generation",
}
_HEADED: tuple[TaskKind, ...] = ("classification", "tagging", "generation", "masked_lm")


def merge(folder: Path, output: Path) -> float:
    """Take an adapter into its model's weights in fp32, write a folder that transformers loads, and return the largest
    difference of an output. Raise ModelError where the method's algebra forbids it.
    """
    reason = facts(folder).unmergeable
    if reason is not None:
        raise ModelError(f"{folder}: cannot be merged: {reason}; `distill adapters export` keeps the adapter")
    _check_free(output)
    opened = _open(folder)
    before = _outputs(opened.model)
    plain = merging.merged(adapted_model.adapted(opened.model, str(folder)), str(folder))
    with whole_folder(output) as made:
        plain.save_pretrained(made)
        opened.tokenizer.save_pretrained(made)
        return _near(before, _outputs(_open(made).model), folder)


def export(folder: Path, output: Path, *, drop: int = 0, original: float | None = None) -> float:
    """Write an adapter's folder that stands alone: with those it stands on, configuration, tokenizer and a card; only
    the frozen model stays where it is, unless it lies in the folder. The parts of the lowest `drop` layers are left out
    (AdapterDrop); `original` is how much of the model without its experts is mixed in. Return the largest difference
    of an output.
    """
    facts(folder)
    _check_free(output)
    opened = _open(folder)
    if drop:
        with _changing(opened, folder, "--drop", "parts in layers that could be left out") as tuner:
            tuner.drop_lowest(adapted_model.ACTIVE, drop)
    if original is not None:
        with _changing(opened, folder, "--original", "experts that the original could be mixed with") as tuner:
            tuner.mix_in_original(adapted_model.ACTIVE, original)
    adapted_model.settle(opened.model)
    with whole_folder(output) as made:
        return _written(opened, made, output.name, folder)


def take(folder: Path, output: Path, base: str, *, on: Sequence[Path] = (), head: bool = True) -> float:
    """Take an adapter of AdapterHub's over into a folder of ours, for a base model. Return the largest difference of an
    output.
    """
    _check_free(output)
    path = str(Path(base).expanduser().resolve()) if Path(base).expanduser().is_dir() else base
    source = ModelSource(path)
    config = load_config(source, "--base")
    task = _head_task(folder) if head else None
    task = task or _task(config, None)
    opened = load(source, task, task.labels or (), "--base", as_saved=True)
    made_of = take_over(folder, opened.model, task_type(opened.model, task), on=on, head=head)
    with whole_folder(output) as made:
        return _written(replace(opened, model=cast(PreTrainedModel, made_of)), made, output.name, folder)


@contextmanager
def _changing(opened: Loaded, folder: Path, option: str, what: str) -> Iterator[ModularModel]:
    """Give the tuner of our own adapters. Raise ModelError for other adapters, and for what cannot be changed."""
    tuner = adapted_model.adapted(opened.model, str(folder)).base_model
    if not isinstance(tuner, ModularModel):
        raise ModelError(f"{option}: {folder} has no {what}")
    try:
        yield tuner
    except ValueError as error:
        raise ModelError(f"{option}: {folder}: {error}") from error


def _open(folder: Path) -> Loaded:
    """Load an adapter in its model, or a model, for the task it was saved for."""
    register()
    source, where = ModelSource(str(folder)), str(folder)
    kind = str(adapters.read_config(folder, where).task_type) if adapters.is_adapter(folder) else None
    task = _task(load_config(describing(source, where), where), kind)
    return load(source, task, task.labels or (), where, as_saved=True)


def _task(config: PretrainedConfig, named: str | None) -> Task:
    """Return a model's task: peft's, which has no name for a masked_lm, or that of the head it was saved with."""
    headed: list[TaskKind] = [kind for kind in _HEADED if has_head(config, Task(kind=kind))]
    kind: TaskKind = _PEFT_TASKS[named] if named in _PEFT_TASKS else next(iter(headed), "text")
    task = Task(kind=kind)
    return task.model_copy(update={"labels": label_names(config)}) if task.has_classes else task


def _head_task(folder: Path) -> Task | None:
    """Return the task of the head beside an adapter of AdapterHub's: it knows its labels."""
    head = None if is_fusion(folder) else read(folder).head
    if head is None or not head.labels:
        return None
    tags = has_head(PretrainedConfig(architectures=[head.model_class]), Task(kind="tagging"))
    return Task(kind="tagging" if tags else "classification", labels=head.labels)


def _written(opened: Loaded, made: Path, name: str, folder: Path) -> float:
    """Write an adapter with all that belongs to it, load it back, and return how far its outputs are off."""
    adapters.save(adapted_model.adapted(opened.model, str(folder)), made)
    opened.tokenizer.save_pretrained(made)
    write_text(made / "README.md", card(facts(made), name, type(adapted_model.transformer(opened.model)).__name__))
    return _near(_outputs(opened.model), _outputs(_open(made).model), folder)


def _outputs(model: PreTrainedModel) -> Tensor:
    """Return logits, or the last hidden states of a body, for a few rows of drawn tokens, one of them padded."""
    vocabulary = int(adapted_model.transformer(model).config.vocab_size)
    ids = torch.randint(vocabulary, (ROWS, TOKENS), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[-1, TOKENS // 2 :] = 0
    batch: Inputs = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": ids}
    with torch.inference_mode():
        return head_output(model.eval(), batch)


def _near(before: Tensor, after: Tensor, folder: Path) -> float:
    """Return the largest difference. Raise ModelError where it is more than rounding."""
    difference = float((before - after).abs().max())
    limit = NEAR * max(1.0, float(before.abs().max()))
    if not difference <= limit:
        raise ModelError(f"{folder}: what was written differs by {difference:.3g} in an output; at most {limit:.3g}")
    return difference


def _check_free(output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ModelError(f"{output}: is there already; give a folder that is not, or is empty")
