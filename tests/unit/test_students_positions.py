"""Students that say something at every position: taggers and masked language models, whole and in adapters."""

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from configs.adapters import Adapter
from configs.data import Task
from configs.students import FolderStudent, SizedStudent
from distill.data.collate import collate
from distill.data.table import TokenTable
from distill.models import Loaded, ModelSource, load
from distill.types import IGNORED, Batch, Needs
from students.build import build
from tests.helpers import sentences

ADAPTERS = {
    "lora": {"kind": "lora"},
    "ia3": {"kind": "ia3"},
    "prompt": {"kind": "prompt", "tokens": 3},
    "prefix": {"kind": "prefix", "tokens": 3, "width": None},
    "invertible": {"kind": "bottleneck", "place": "pfeiffer", "size": 4, "invertible": 2},
}
TASKS = {"tagging": (Task(kind="tagging"), sentences.PARTS), "masked_lm": (Task(kind="masked_lm"), ())}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(sentences.masked_model(tmp_path_factory.mktemp("models") / "base"))


def _loaded(folder: str, kind: str) -> Loaded:
    task, labels = TASKS[kind]
    return load(ModelSource(folder), task, labels, "teacher.model")


def _batch() -> Batch:
    table = TokenTable.of([[2, 7, 8, 9, 3], [2, 10, 3]], np.full(2, IGNORED), np.arange(2))
    return Batch(**collate(table, np.arange(2), 0), window_counts={}, progress=0.0, step=0)


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_adapted_student_has_logits_at_the_real_positions(folder, kind, adapter):
    task, labels = TASKS[kind]
    section = TypeAdapter(Adapter).validate_python(ADAPTERS[adapter])
    config = FolderStudent(kind="folder", model=folder, adapter=section)
    student = build(config, task, labels, _loaded(folder, kind), 0)
    needs = Needs(logits=True, hidden_states=frozenset({0, 2}))
    student.freeze_unused(_batch(), needs)
    outputs = student(_batch(), needs)
    size = len(sentences.PARTS) if kind == "tagging" else student.model.config.vocab_size
    assert outputs.logits.shape == (2, 5, size) and student.shape.outputs == size
    assert outputs.hidden_states[2].shape == (2, 5, 32)
    trained = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    assert any("classifier" in name for name in trained) == (kind == "tagging")


@pytest.mark.parametrize("kind", TASKS)
def test_a_head_is_known_by_its_weights(folder, kind):
    loaded = _loaded(folder, kind)
    assert loaded.trained_head == (kind == "masked_lm")
    assert loaded.model.config.id2label == dict(enumerate(sentences.PARTS)) or kind == "masked_lm"


def test_a_student_of_given_sizes_has_the_vocabulary_of_its_teacher(folder):
    sizes = SizedStudent(kind="sizes", layers=1, hidden_size=16, intermediate_size=32, heads=2)
    student = build(sizes, TASKS["masked_lm"][0], (), _loaded(folder, "masked_lm"), 0)
    logits = student(_batch(), Needs(logits=True)).logits
    assert logits.shape[-1] == _loaded(folder, "masked_lm").model.config.vocab_size
    assert torch.isfinite(logits).all()
