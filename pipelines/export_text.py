"""Write a student that writes for use elsewhere; each form is loaded back, compared and timed."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from configs.data import Task
from configs.decoding import Decoding
from distill import adapted_model, adapters, merging, text_metrics
from distill.errors import ModelError
from distill.files import whole_folder, write_json, write_text
from distill.languages import encode_targets
from distill.models import Loaded, ModelSource, load
from distill.protocols import TextTeacher
from distill.types import IGNORED
from pipelines.export import Parity
from pipelines.score import EncodedRows, evaluating, head_output
from teachers.text.huggingface import HuggingFaceWriter

TextFormat = Literal["adapter", "transformers", "ctranslate2", "ctranslate2_int8"]

ROWS = 64
"""Rows the forms are compared on."""
ROUNDS = 3
GREEDY = Decoding(beams=1)
LOGITS, LOG_PROBS, LIKENESS = 1e-5, 1e-3, 0.85
"""How near a form must come: logits of the same model, log p of a text, BLEU of rounded weights' texts."""


@dataclass(frozen=True)
class Writing:
    """The student to export, and what it is for."""

    source: ModelSource
    sources: Sequence[str]
    """Texts to compare the forms on"""
    rows: EncodedRows
    """The same with targets"""
    task: Task
    card: str
    """The model card: README.md of the transformers folder"""
    threads: int


def export(student: Writing, formats: Sequence[TextFormat], output: Path) -> dict[str, Any]:
    """Write each form into a folder of its own under `output`, time them in turns, write `output/results.json`.

    Raises `ModelError` where a form differs from the trained student; that form is not left behind.
    """
    loaded = load(student.source, student.task, (), "export.student")
    reference = _texts(HuggingFaceWriter([loaded.model], loaded.tokenizer, ""), student.sources)
    needed = any(form != "adapter" for form in formats)
    merged = merging.plain(loaded.model, "export.formats") if needed else loaded.model
    made: dict[TextFormat, dict[str, Any]] = {}
    writers: dict[TextFormat, TextTeacher] = {}
    for form in formats:
        with whole_folder(output / form) as folder:
            loaded.tokenizer.save_pretrained(folder)
            writers[form], parity = _make(form, student, (loaded, merged), folder, reference)
            _require(form, parity, len(reference))
        made[form] = {"path": form, "megabytes": _megabytes(output / form), "parity": asdict(parity)}
    for form, speed in _speeds(writers, student.sources).items():
        made[form]["sentences_per_second"] = speed
    results = {"student": student.source.path, "rows": len(reference), "formats": made}
    write_json(output / "results.json", results)
    return results


def _make(
    form: TextFormat, student: Writing, models: tuple[Loaded, PreTrainedModel], folder: Path, reference: list[str]
) -> tuple[TextTeacher, Parity]:
    """Write a form, load it back, and say how near it comes to the trained student; `models` are that and the same
    with its adapter in its weights.
    """
    loaded, merged = models
    if form in ("adapter", "transformers"):
        if form == "adapter":
            adapters.save(adapted_model.adapted(loaded.model, "export.formats"), folder)
        else:
            merged.save_pretrained(folder)
        write_text(folder / "README.md", student.card)
        again = load(ModelSource(str(folder)), student.task, (), f"export: {folder}")
        gap = float((_logits(again, student.rows) - _logits(loaded, student.rows)).abs().max())
        writer = HuggingFaceWriter([again.model], again.tokenizer, "")
        return writer, Parity("largest difference of an output", gap, LOGITS, True)
    from teachers.text.ctranslate2 import CTranslate2Writer

    int8 = form == "ctranslate2_int8"
    kind, stored = ("int8", "int8") if int8 else ("float32", None)
    converted = CTranslate2Writer(
        merged, loaded.tokenizer, "", folder, compute_type=kind, stored=stored, threads=student.threads
    )
    if int8:
        likeness = text_metrics.value("bleu", _texts(converted, student.sources), reference)
        return converted, Parity("BLEU against the student’s texts", likeness, LIKENESS, False)
    ids: list[list[int]] = loaded.tokenizer(list(student.sources))["input_ids"]
    worst = converted.parity(loaded.model, ids, encode_targets(loaded.tokenizer, reference)).worst
    return converted, Parity("largest difference of a text’s log p", worst, LOG_PROBS, True)


def _require(form: TextFormat, found: Parity, rows: int) -> None:
    """Raise `ModelError` with the number where a form is too far from the student."""
    if not found.holds:
        raise ModelError(
            f"export.formats: {form} is not the trained student: {found.measure} is {found.value:.4g} on {rows} rows, "
            f"{'at most' if found.at_most else 'at least'} {found.limit:g} is required"
        )


def _texts(writer: TextTeacher, sources: Sequence[str]) -> list[str]:
    """Return what is written greedily, in the order of the sources."""
    found = dict(writer.generate(sources, GREEDY))
    return [found[place].texts[0].text for place in range(len(sources))]


def _logits(loaded: Loaded, rows: EncodedRows) -> Tensor:
    """Return the logits [positions V] at all target tokens."""
    with evaluating(loaded.model):
        batches = rows.batches(rows.spread(ROWS), 16)
        return torch.cat([head_output(loaded.model, batch)[batch["labels"] != IGNORED] for batch in batches])


def _speeds(writers: Mapping[TextFormat, TextTeacher], sources: Sequence[str]) -> dict[TextFormat, float]:
    """Return sentences a second, greedily: the median of rounds in which each form writes in turn."""
    seconds: dict[TextFormat, list[float]] = {form: [] for form in writers}
    for _ in range(ROUNDS):
        for form, writer in writers.items():
            began = time.perf_counter()
            _texts(writer, sources)
            seconds[form].append(time.perf_counter() - began)
    return {form: len(sources) / median(found) for form, found in seconds.items()}


def _megabytes(folder: Path) -> float:
    """Return the MB (10⁶ bytes) of the weights in a folder."""
    weights = [path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin")]
    return sum(path.stat().st_size for path in weights) / 1e6
