"""A student learns from a teacher in fewer bits: live, recorded, scored as it teaches, planned as it is held."""

import json

import pytest
import torch

from tests.helpers import footprint, tiny
from tests.helpers.training import weights

pytest.importorskip("bitsandbytes", reason="the extra `quantised` is not installed")

STUDENT = {
    "kind": "train",
    "teacher": "base",
    "data": ["train"],
    "validation": "validation",
    "objective": [{"kind": "logits"}, {"kind": "hidden", "layers": "last"}, {"kind": "attention", "layers": "last"}],
    "training": {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3, "watch": "off"},
}
LOGITS = {**STUDENT, "objective": [{"kind": "logits"}]}
STAGES = {
    "student": STUDENT,
    "live": LOGITS,
    "answers": {"kind": "record", "teacher": "base", "data": ["train"]},
    "cached": {**LOGITS, "cache": "answers"},
    "evaluate": {"kind": "evaluate", "data": "validation", "student": "student"},
}


@pytest.mark.parametrize("bits", ["int8", "nf4"])
def test_a_run_with_it(call, tmp_path, bits):
    run = tiny.run_file(tmp_path, STAGES)
    code, out, err = call("run", str(run), f"teacher.quantise={bits}")
    assert code == 0, out + err
    assert f"float32, layers in {bits}" in out
    assert "will be cast" not in out + err  # bitsandbytes says so at every product
    live, cached = (weights(tmp_path / f"run/seed-0/{stage}") for stage in ("live", "cached"))
    if bits == "nf4":  # 8 bits answer a little otherwise in other company
        assert all(torch.allclose(live[name], cached[name], atol=1e-5) for name in live)
    scored = json.loads((tmp_path / "run/evaluate/results.json").read_text(encoding="utf-8"))["models"]
    code, out, err = call("run", str(run), f"output={tmp_path / 'plain'}")
    assert code == 0, out + err
    plain = json.loads((tmp_path / "plain/evaluate/results.json").read_text(encoding="utf-8"))["models"]
    assert scored["teacher"]["parameters"] == plain["teacher"]["parameters"]
    students = [weights(tmp_path / f"{folder}/seed-0/student") for folder in ("run", "plain")]
    assert any(not torch.equal(students[0][name], students[1][name]) for name in students[0])


def test_a_record_of_it_is_not_one_of_the_whole_teacher(call, tmp_path):
    run = tiny.run_file(tmp_path, {name: STAGES[name] for name in ("answers", "cached")})
    done = []
    for bits in ("none", "nf4"):
        code, out, err = call("run", str(run), f"teacher.quantise={bits}")
        assert code == 0, out + err
        stage = json.loads((tmp_path / "run/answers/stage.json").read_text(encoding="utf-8"))
        done.append(stage["fingerprint"])
    assert done[0] != done[1]


@pytest.mark.slow
@pytest.mark.parametrize("bits", ["int8", "nf4"])
def test_it_takes_what_was_planned(tmp_path, bits):
    found = footprint.compare(footprint.write(tmp_path, quantise=bits), tmp_path / "out")
    assert found["planned"] == pytest.approx(found["measured"], rel=0.15), found
