"""Adapters of several domains on one frozen model, each trained by a run of its own, teach one student."""

import json
import random
from itertools import islice
from pathlib import Path

import pytest
import torch

from configs.data import Task
from configs.students import FolderStudent
from distill.models import ModelSource, load, load_config
from distill.types import Needs, Outputs
from students.build import build_alone
from teachers.live import LiveTeacher
from tests.helpers import tiny
from tests.helpers.training import stage

TASK = Task(max_length=24, labels=tiny.LABELS)
TRAINING = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-2, "log_every": 8}
DOMAINS = {"first": {"kind": "lora", "rank": 4, "targets": "all"}, "second": {"kind": "bottleneck", "size": 8}}


def _rows(path: Path, count: int, domain: str, seed: int) -> Path:
    """Write sentences of early words or of late ones: each domain has its own, and the second the opposite rule."""
    own = [word for word in tiny.WORDS if (word[-1] in "aei") == (domain == "first")]
    draw, lines = random.Random(seed), ["text,label"]
    for _ in range(count):
        late = draw.random() < 0.5
        words = draw.choices([word for word in own if (word[0] in "mnprst") == late], k=draw.randint(3, 9))
        lines.append(f"{' '.join(words)},{tiny.LABELS[int(late == (domain == 'first'))]}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _read(rows: Path) -> tuple[list[str], torch.Tensor]:
    lines = [line.split(",") for line in rows.read_text(encoding="utf-8").splitlines()[1:]]
    return [text for text, _ in lines], torch.tensor([tiny.LABELS.index(label) for _, label in lines])


def _trained(base: Path, adapter: dict, rows: Path, folder: Path) -> None:
    """Train an adapter on rows, all in each step, and save it as a stage does."""
    config = FolderStudent.model_validate({"kind": "folder", "model": str(base), "adapter": adapter})
    student = build_alone(config, TASK, tiny.LABELS, load_config(ModelSource(str(base)), "test"), 0)
    texts, labels = _read(rows)
    inputs = tiny.tokenizer()(texts, padding=True, return_tensors="pt")
    optimiser = torch.optim.AdamW([weight for weight in student.parameters() if weight.requires_grad], lr=1e-2)
    for _ in range(60):
        logits = student(inputs, Needs(logits=True)).logits
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(logits, labels).backward()
        optimiser.step()
    student.save(folder, tiny.tokenizer())


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, and for each domain its rows and an adapter that was trained on them."""
    folder = tmp_path_factory.mktemp("domains")
    base = tiny.model_folder(folder / "base", head=False, seed=2, initializer_range=0.2)
    for seed, (domain, adapter) in enumerate(DOMAINS.items()):
        place = folder / domain
        place.mkdir()
        train = _rows(place / "train.csv", 64, domain, seed)
        _rows(place / "validation.csv", 40, domain, 10 + seed)
        _trained(base, adapter, train, place / "model")
    return folder


def _adapter(domains: Path, domain: str) -> str:
    return str(domains / domain / "model")


def _run(folder: Path, domains: Path, teacher: str, student: dict, **more) -> Path:
    """Write a run whose student learns both domains from their adapters, without a label."""
    data = {name: {"path": str(domains / name / "train.csv"), "columns": {"label": None}} for name in DOMAINS}
    data |= {f"{name}-test": {"path": str(domains / name / "validation.csv")} for name in DOMAINS}
    train = {
        "kind": "train",
        "teacher": teacher,
        "adapters": {name: _adapter(domains, name) for name in DOMAINS},
        "data": list(DOMAINS),
        "objective": [{"kind": "logits", "weight": 10}, {"kind": "hidden"}],
        "training": TRAINING,
    }
    tests = {
        f"{name}-test": {"kind": "evaluate", "data": f"{name}-test", "student": "student", "latency": False}
        for name in DOMAINS
    }
    stages = {"student": {**train, **more}, **tests}
    return tiny.run_file(folder, stages, teacher={"model": str(domains / "base")}, student=student, data=data)


STUDENTS = {
    "base": {"kind": "sizes", "layers": 2, "hidden_size": 16, "intermediate_size": 32, "heads": 4},
    "student": {"kind": "teacher", "adapter": {"kind": "lora", "rank": 8, "targets": "all"}},
}


def _separate(domains: Path, domain: str) -> LiveTeacher:
    return LiveTeacher(load(ModelSource(_adapter(domains, domain)), TASK, tiny.LABELS, "test"), TASK, "")


@pytest.mark.parametrize("teacher", STUDENTS)
def test_a_run_learns_from_adapters_and_scores_its_student_on_the_rows_of_each(tmp_path, call, domains, teacher):
    code, out, err = call("run", str(_run(tmp_path, domains, teacher, STUDENTS[teacher])))
    assert code == 0, err
    assert f"adapters in {'the student' if teacher == 'student' else 'one frozen model'}" in out
    for name in DOMAINS:
        results = json.loads((tmp_path / "run" / f"{name}-test" / "results.json").read_text(encoding="utf-8"))
        assert set(results["models"]) == {"student"}  # the base itself does no task


@pytest.mark.parametrize("teacher", STUDENTS)
def test_one_student_learns_what_two_adapters_teach(tmp_path, domains, teacher):
    module, data = stage(str(_run(tmp_path, domains, teacher, STUDENTS[teacher])), "student").assemble()
    module.teacher.to(torch.device("cpu"))
    optimiser = torch.optim.AdamW([weight for weight in module.parameters() if weight.requires_grad], lr=1e-2)
    batches = list(data.train_dataloader())
    for batch in batches * 16:
        optimiser.zero_grad()
        torch.stack([*module.losses(batch).values()]).sum().backward()
        optimiser.step()
    student = module.student.eval()
    for name in DOMAINS:
        texts, _ = _read(domains / name / "train.csv")
        inputs = tiny.tokenizer()(texts, padding=True, return_tensors="pt")
        said, learnt = (
            model(inputs, Needs(logits=True)).logits.argmax(-1) for model in (_separate(domains, name), student)
        )
        assert said.unique().tolist() == [0, 1]
        assert said.eq(learnt).float().mean() > 0.8  # a half by chance


@pytest.mark.parametrize("teacher", STUDENTS)
def test_its_losses_are_those_under_the_adapters_as_models_of_their_own(tmp_path, domains, teacher):
    module, data = stage(str(_run(tmp_path, domains, teacher, STUDENTS[teacher])), "student").assemble()
    module.eval()  # without dropout
    module.teacher.to(torch.device("cpu"))
    apart = [_separate(domains, name) for name in DOMAINS]
    batches = list(islice(data.train_dataloader(), 3))
    assert all(len(batch["sources"].unique()) == 2 for batch in batches)
    for batch in batches:
        found = module.losses(batch)
        said = [one(batch, module.objective.teacher_needs) for one in apart]
        together = Outputs(
            logits=_own(batch, [outputs.logits for outputs in said]),
            hidden_states={
                layer: _own(batch, [outputs.hidden_states[layer] for outputs in said])
                for layer in said[0].hidden_states
            },
        )
        totals = module.objective(module.student(batch, module.objective.student_needs), together, batch)
        for name, total in totals.items():
            wanted = total / batch["window_counts"][module.objective.units[name]]
            torch.testing.assert_close(found[name], wanted, atol=1e-6, rtol=1e-6)


def _own(batch, said: list[torch.Tensor]) -> torch.Tensor:
    """Return of each row what the model of its source said."""
    return torch.stack([said[source][row] for row, source in enumerate(batch["sources"].tolist())])
