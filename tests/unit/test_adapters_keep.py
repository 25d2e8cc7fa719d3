"""Every method on every family: a trained adapter saved, switched off, cut and merged is what it should be."""

import copy
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from configs.adapters import Lora, Peft
from configs.data import Task
from configs.students import FolderStudent, LayersStudent
from distill import adapted_model, adapters, capture, merging
from distill.errors import ModelError
from distill.models import ModelSource, load
from distill.types import Needs
from students.adapters.build import build as build_adapter
from students.build import build as build_student
from students.student import Student
from tests.helpers import families, tiny
from tests.helpers.adapted import (
    CELLS,
    CHANGES_THE_BASE,
    MERGEABLE,
    METHODS,
    STANDS_ON_OTHERS,
    Trained,
    begin,
    full_batch,
    logits,
    section,
)

STEPS = 4
TASK = Task(labels=tiny.LABELS)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")  # the copy that learns is the encoder's own
@pytest.mark.parametrize(("method", "kind"), CELLS)
def test_saved_switched_off_cut_and_merged_it_is_what_it_should_be(method, kind, tmp_path):
    made = begin(method, kind, "logits")
    for _ in range(STEPS - 2):
        made.step()
    _goes_on(made, method, kind)
    said = logits(made.student, made.batch)
    _is_loaded(made, method, kind, said, tmp_path)
    if method not in CHANGES_THE_BASE:
        _is_the_base(made, kind)
    if method in MERGEABLE:
        _is_merged(made, said)
    else:
        _is_not_merged(made, said)


def _goes_on(whole: Trained, method: str, kind: str) -> None:
    """A checkpoint holds what learns, and a training goes on from it bit for bit."""
    learns = {name for name, value in whole.module.named_parameters() if value.requires_grad}
    state = copy.deepcopy(whole.module.state_dict())
    assert learns <= set(state) <= learns | {name for name, _ in whole.module.named_buffers(remove_duplicate=False)}
    again = begin(method, kind, "logits")
    again.module.load_state_dict(state, strict=False)
    again.optimiser.load_state_dict(copy.deepcopy(whole.optimiser.state_dict()))
    again.losses = list(whole.losses)
    for ranks, cut in zip(again.schedules, whole.schedules, strict=True):
        ranks.load_state_dict(copy.deepcopy(cut.state_dict()))
    for made in (whole, again):
        made.step()
        made.step()
    assert again.losses == whole.losses
    for (name, found), right in zip(again.student.named_parameters(), whole.student.parameters(), strict=True):
        assert torch.equal(found, right), name


def _is_loaded(made: Trained, method: str, kind: str, said: Tensor, folder: Path) -> None:
    """What is saved says the same under another name, and holds no frozen weight, which lie elsewhere."""
    adapted_model.transformer(made.student.model).name_or_path = "elsewhere"
    adapters.save(made.student.model, folder)
    plain = families.loaded(kind).model
    stands = method in STANDS_ON_OTHERS  # and is loaded with them
    again = adapters.attach(plain, folder, "here") if stands else adapters.add(plain, folder, "another", "here")
    torch.testing.assert_close(logits(Student(again, has_head=True), made.batch), said, atol=1e-6, rtol=0)
    frozen = adapted_model.roles(made.student.model)["frozen"]
    assert not list(folder.glob("**/model.safetensors"))
    assert sum(value.numel() for value in load_file(folder / adapters.WEIGHTS).values()) < frozen


def _is_the_base(made: Trained, kind: str) -> None:
    base = families.loaded(kind).model.eval()
    capture.prepare(base)
    trains = [name for name, value in made.student.named_parameters() if value.requires_grad]
    with torch.no_grad(), adapted_model.switched_off(made.student.model) as model:
        found = capture.forward(model.eval(), made.batch, Needs(logits=True)).logits
        assert torch.equal(found, capture.forward(base, made.batch, Needs(logits=True)).logits)
    assert trains == [name for name, value in made.student.named_parameters() if value.requires_grad]


def _is_merged(made: Trained, said: Tensor) -> None:
    merged = merging.merged(made.student.model, "here")
    assert not isinstance(merged, PeftModel)
    assert not any("modular" in name or "lora" in name for name, _ in merged.named_parameters())
    torch.testing.assert_close(logits(Student(merged, has_head=True), made.batch), said, atol=1e-5, rtol=0)


def _is_not_merged(made: Trained, said: Tensor) -> None:
    """It says so before anything is changed."""
    with pytest.raises(ModelError, match=r"cannot be merged|no place in the weights"):
        merging.merged(made.student.model, "here")
    assert torch.equal(logits(made.student, made.batch), said)


def test_the_sections_know_which_methods_merge():
    assert {method for method in METHODS if section(method).mergeable} == set(MERGEABLE)


NOWHERE = [section(method) for method in ("LoRA", "PiSSA", "Houlsby", "prompt tuning")]
NOWHERE.append(Lora(kind="lora", rank=4, init="olora"))


@pytest.mark.parametrize("adapter", NOWHERE, ids=["LoRA", "PiSSA", "Houlsby", "prompt tuning", "OLoRA"])
def test_a_model_that_lies_nowhere_is_kept_beside_its_adapter(adapter, tmp_path):
    teacher = load(ModelSource(str(tiny.model_folder(tmp_path / "teacher"))), TASK, tiny.LABELS, "here")
    asked = LayersStudent(kind="teacher_layers", layers=(1, 3), adapter=adapter)
    student = build_student(asked, TASK, tiny.LABELS, teacher, 0)
    for parameter in student.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    student.save(tmp_path / "saved", teacher.tokenizer)
    again = load(ModelSource(str(tmp_path / "saved")), TASK, tiny.LABELS, "here")
    ids = torch.arange(5, 15).reshape(2, 5)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    said = logits(student, batch)
    torch.testing.assert_close(logits(Student(again.model, has_head=True), batch), said, atol=1e-6, rtol=0)
    adapters.save(again.model, tmp_path / "copy")  # as an export does, from what was loaded
    teacher.tokenizer.save_pretrained(tmp_path / "copy")
    copied = load(ModelSource(str(tmp_path / "copy")), TASK, tiny.LABELS, "here")
    torch.testing.assert_close(logits(Student(copied.model, has_head=True), batch), said, atol=1e-6, rtol=0)


def test_an_adapter_is_loaded_from_any_folder(tmp_path, monkeypatch):
    tiny.model_folder(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    base = load(ModelSource("./base"), TASK, tiny.LABELS, "here")
    made = build_student(
        FolderStudent(kind="folder", model="./base", adapter=section("LoRA")), TASK, tiny.LABELS, base, 0
    )
    made.save(tmp_path / "saved", base.tokenizer)
    monkeypatch.chdir("/")
    assert load(ModelSource(str(tmp_path / "saved")), TASK, tiny.LABELS, "here").trained_head


def test_what_was_frozen_stays_so_when_the_adapter_is_switched_on_again(tmp_path):
    low = begin("Pfeiffer", "bert", "logits").student
    adapters.save(low.model, tmp_path)
    task = families.task_of("bert")
    model = build_adapter(
        section("Pfeiffer").model_copy(update={"on": (str(tmp_path),)}), families.loaded("bert"), task
    )
    student, batch = Student(model, has_head=True), full_batch("bert")
    student.freeze_unused(batch, Needs(hidden_states=frozenset({2})))
    learns = [name for name, value in student.named_parameters() if value.requires_grad]
    assert learns and not any("below_0" in name or "classifier" in name for name in learns)
    with adapted_model.switched_off(student.model):
        pass
    assert [name for name, value in student.named_parameters() if value.requires_grad] == learns


def test_a_method_of_pefts_needs_no_table_of_places():
    loaded = families.loaded("gpt2")
    loaded.model.config.model_type = "unheard-of"
    asked = Peft(kind="peft", method="vera", options={"target_modules": ["c_attn"], "r": 4, "fan_in_fan_out": True})
    assert adapted_model.roles(build_adapter(asked, loaded, families.task_of("gpt2")))["method"] > 0
    with pytest.raises(ModelError, match="the places of unheard-of are not known"):
        build_adapter(section("Houlsby"), loaded, families.task_of("gpt2"))


def test_an_export_never_passes_an_adapter_off_as_a_whole_model():
    loaded = families.loaded("bert")
    lily = Peft(kind="peft", method="lily")
    model = build_adapter(lily, loaded, families.task_of("bert"))
    with pytest.raises(ModelError, match="here: "):
        merging.plain(model, "here")
    assert merging.whole(model, "here") is model


@pytest.mark.parametrize("method", ["prefix", "mix and match"])
@pytest.mark.parametrize("kind", ["bert", "t5", "marian", "llama"])
def test_a_prefix_is_passed_on_without_the_network_that_made_it(method, kind, tmp_path):
    """It says the same, holds keys and values alone, and still learns."""
    made = begin(method, kind, "logits")
    made.step()
    said = logits(made.student, made.batch)
    adapted_model.settle(made.student.model)
    assert torch.equal(logits(made.student, made.batch), said)
    adapters.save(made.student.model, tmp_path)
    held = load_file(tmp_path / adapters.WEIGHTS)
    assert any(name.endswith(".prefix") for name in held)
    assert not any(("embeddings" in name and "modular" in name) or ".outer." in name for name in held)
    again = adapters.add(families.loaded(kind).model, tmp_path, "another", "here", trainable=True)
    torch.testing.assert_close(logits(Student(again, has_head=True), made.batch), said, atol=1e-6, rtol=0)
    prefixes = {name for name, value in again.named_parameters() if name.endswith(".prefix") and value.requires_grad}
    assert len(prefixes) == sum(name.endswith(".prefix") for name in held)
