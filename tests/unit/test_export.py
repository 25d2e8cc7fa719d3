"""Exported forms load, say what the trained student says, and are refused where they do not."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from configs.data import Task
from distill.data.table import TokenTable
from distill.errors import ModelError
from distill.files import whole_folder
from distill.models import ModelSource, load
from pipelines import onnx
from pipelines.export import Parity, Trained, export, parity
from pipelines.score import EncodedRows, predict_rows
from tests.helpers import tiny

Exported = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tiny.model_folder(tmp_path_factory.mktemp("student"), num_hidden_layers=2, initializer_range=0.3)
    draw = np.random.default_rng(0)
    tokens = [[2, *draw.integers(5, 90, draw.integers(1, 30)).tolist(), 3] for _ in range(80)]
    table = TokenTable.of(tokens, draw.integers(0, 2, 80), np.arange(80))
    return Trained(ModelSource(str(folder)), EncodedRows.of(table, 0), Task(), tiny.LABELS, "# A card")


@pytest.fixture(scope="module")
def exported(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    output = tmp_path_factory.mktemp("export")
    return output, export(trained, ("transformers", "onnx", "onnx_int8"), output, seconds=0.1)


def test_every_form_is_near_and_says_how_near(exported: Exported) -> None:
    output, results = exported
    forms = results["formats"]
    assert forms["transformers"]["parity"]["value"] == 0
    assert forms["onnx"]["parity"]["value"] <= 1e-4
    assert forms["onnx_int8"]["parity"]["value"] >= 0.97
    assert forms["onnx_int8"]["megabytes"] < 0.8 * forms["onnx"]["megabytes"]
    assert all(form["latency"][size]["p50_ms"] > 0 for form in forms.values() for size in ("1", "32"))
    assert results["rows"] == 80
    assert sorted(path.name for path in output.iterdir()) == ["onnx", "onnx_int8", "results.json", "transformers"]


def test_the_folder_loads_with_names_tokenizer_and_card(exported: Exported, trained: Trained) -> None:
    folder = exported[0] / "transformers"
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert model.config.id2label == dict(enumerate(tiny.LABELS))
    assert AutoTokenizer.from_pretrained(folder)("ba ban")["input_ids"][0] == 2
    assert (folder / "README.md").read_text() == "# A card"
    original = load(trained.source, trained.task, trained.labels, "student").model
    assert torch.equal(predict_rows(model, trained.rows), predict_rows(original, trained.rows))


def test_onnx_takes_any_batch_and_length_and_what_the_tokenizer_gives(exported: Exported) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(exported[0] / "transformers")
    tokenizer = AutoTokenizer.from_pretrained(exported[0] / "onnx")
    run = onnx.runner(exported[0] / "onnx" / onnx.FILE)
    for texts in (["ba"], ["ba", "ban bel " * 20], [f"{word} da" for word in tiny.WORDS[:33]]):
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        with torch.inference_mode():
            torch.testing.assert_close(run(batch), model(**batch).logits, atol=1e-5, rtol=0)


def test_a_form_that_differs_is_refused_and_not_left_behind(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def untrue(self: PreTrainedModel, folder: Path) -> None:
        with torch.no_grad():
            self.get_parameter("classifier.bias").add_(1)
        save(self, folder)

    family = type(load(trained.source, trained.task, trained.labels, "student").model)
    save: Callable[..., None] = family.save_pretrained
    monkeypatch.setattr(family, "save_pretrained", untrue)
    (tmp_path / "transformers").mkdir()
    (tmp_path / "transformers" / "older").touch()
    with pytest.raises(ModelError, match=r"largest difference of an output is 1 on 84 rows, at most 1e-05 is required"):
        export(trained, ("transformers",), tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["transformers", "older"]


def test_a_missing_package_names_the_extra(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ModelError, match=r"onnxscript not installed; pip install 'distill-pipeline\[onnx\]'"):
        export(trained, ("transformers", "onnx"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_whole_puts_a_folder_in_place_at_once(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "made") as folder:
        (folder / "file").touch()
        assert not (tmp_path / "made").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["made", "file"]


def test_int8_is_judged_by_what_it_says() -> None:
    logits = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    flipped = logits.clone()
    flipped[:4] = flipped[:4].flip(-1)
    found = parity("onnx_int8", Task(), flipped, logits)
    assert found.value == pytest.approx(0.96)
    assert not found.holds
    assert parity("onnx_int8", Task(), 3 * logits, logits).holds


@pytest.mark.parametrize(
    ("kind", "noise", "holds"),
    [("regression", 0.1, True), ("regression", 0.18, False), ("text", 0.18, True), ("text", 0.3, False)],
)
def test_int8_without_classes_is_judged_by_correlation(
    kind: Literal["regression", "text"], noise: float, holds: bool
) -> None:
    outputs = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    near = outputs + noise * torch.randn(100, 4, generator=torch.Generator().manual_seed(1))
    assert parity("onnx_int8", Task(kind=kind), near, outputs).holds is holds


def test_no_number_is_never_parity() -> None:
    assert not Parity("difference", float("nan"), 1e-4, True).holds
    assert not Parity("share", float("nan"), 0.97, False).holds


def test_a_body_without_a_task_is_compared_by_its_hidden_states(trained: Trained, tmp_path: Path) -> None:
    source = ModelSource(str(tiny.model_folder(tmp_path / "body", head=False, num_hidden_layers=1)))
    body = Trained(source, trained.rows, Task(kind="text"), (), "card")
    found = export(body, ("transformers",), tmp_path / "out", seconds=0.1)
    assert found["formats"]["transformers"]["parity"]["value"] == 0
