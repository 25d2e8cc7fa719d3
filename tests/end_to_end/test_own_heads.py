"""Teachers that come with a head of their own, and are fine-tuned in the run."""

import json
from pathlib import Path

import pytest

from tests.helpers import tiny

TRAINING = {"batch_size": 8, "learning_rate": 2e-3}
STAGES = {
    **tiny.teachers(**TRAINING, epochs=4),
    "student": {
        "kind": "train",
        "data": ["train"],
        "objective": [{"kind": "logits"}],
        "training": {**TRAINING, "epochs": 1},
    },
    "evaluate": {"kind": "evaluate", "student": "student", "data": "validation", "latency": False},
}


def _run(folder: Path, names: tuple[str, str]) -> Path:
    """A run whose teacher came with a head for classes of these names."""
    run = tiny.run_file(folder, STAGES)
    path = folder / "teacher/config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}
    path.write_text(json.dumps(config), encoding="utf-8")
    return run


@pytest.mark.parametrize("names", [tiny.LABELS[::-1], ("LABEL_0", "LABEL_1")])
def test_is_fine_tuned_for_the_classes_of_the_run(names, call, tmp_path):
    run = _run(tmp_path, names)
    code, out, err = call("run", str(run))
    assert code == 0, err
    assert ("stages.teacher trains a new head" in out) == (names[0] == "LABEL_0")
    planned = json.loads((tmp_path / "run/run.json").read_text(encoding="utf-8"))["planned"]
    assert planned.keys() == {"teacher", "student"}
    trained = json.loads((tmp_path / "run/teacher/model/config.json").read_text(encoding="utf-8"))
    assert tuple(trained["id2label"].values()) == tiny.LABELS
    marked = json.loads((tmp_path / "run/teacher/stage.json").read_text(encoding="utf-8"))["results"]["validation"]
    compared = json.loads((tmp_path / "run/evaluate/results.json").read_text(encoding="utf-8"))["models"]
    assert compared["teacher"]["seeds"]["0"]["accuracy"] == pytest.approx(marked["accuracy"]) != 0.5


def test_for_other_classes_is_refused(call, tmp_path):
    code, _, err = call("check", str(_run(tmp_path, ("bad", "good"))))
    assert code == 2 and "the model has bad, good, which the run does not know" in err
    assert "to train the model for another task, give its body alone" in err
