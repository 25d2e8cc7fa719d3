"""Adapters that teach from one frozen model say what each says as a model of its own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import KasaConfig, LoraConfig, get_peft_model
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file

from configs.adapters import Adapter
from configs.data import Task
from distill import adapters
from distill.adapter_folder import WEIGHTS
from distill.errors import DataError, ModelError
from distill.frozen_model import in_adapter, twin
from distill.models import Loaded
from distill.types import Needs
from students.adapters.build import build
from students.student import Student
from teachers.adapters import AdapterTeacher, Member
from teachers.live import LiveTeacher
from teachers.messages import tensors_of
from tests.helpers import families, tiny
from tests.helpers.adapted import full_batch

CPU = torch.device("cpu")
LABELS = ("no", "yes")
KINDS: dict[str, dict[str, Any]] = {
    "lora": {"kind": "lora", "rank": 2, "targets": "all"},
    "houlsby": {"kind": "bottleneck", "size": 4},
    "parallel": {"kind": "bottleneck", "place": "parallel", "size": 4},
    "prefix": {"kind": "prefix", "tokens": 2, "width": None},
    "prompt": {"kind": "prompt", "tokens": 3},
    "top": {"kind": "top_layers", "layers": 1},
}
MASKED = Task(kind="masked_lm")


def _task(kind: str) -> Task:
    return MASKED if kind == "roberta" else families.task_of(kind)


def _made(kind: str, adapter: dict[str, Any]) -> Any:
    """A tiny model in an adapter with weights that matter."""
    model = build(TypeAdapter(Adapter).validate_python(adapter), families.loaded(kind, task=_task(kind)), _task(kind))
    for weight in model.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.3)
    return model


def _saved(folder: Path, kind: str, adapter: dict[str, Any], seed: int = 0) -> str:
    torch.manual_seed(seed)
    model = _made(kind, adapter)
    adapters.save(model, folder)
    for place in (folder, folder / "base"):
        tiny.tokenizer().save_pretrained(place)
    return str(folder)


def _batch(kind: str, sources: list[int]) -> Any:
    """Three rows, of sources; of a masked language model with hidden tokens, of one that writes with wrong answers."""
    batch: dict[str, Any] = {**full_batch(kind), "sources": torch.tensor(sources)}
    if kind == "roberta":
        batch["hidden"] = torch.tensor([1, 4, 15, 17, 18])
    if kind in ("gpt2", "t5"):
        picked = torch.tensor([0, 2, 2])
        given = ("input_ids", "attention_mask", "labels", "decoder_input_ids")
        choices = {name: batch[name][picked].flip(0) for name in given if name in batch}
        batch["choices"] = {**choices, "rows": picked}
    return batch


def _teacher(kind: str, base: Loaded, folders: list[str], **more: Any) -> AdapterTeacher:
    task = _task(kind)
    labels = LABELS if task.has_classes else ()
    members = {folder: Member(in_adapter(base, folder, task, labels, "test")) for folder in folders}
    return AdapterTeacher(members, folders, task, "", **more)


def _apart(kind: str, folder: str) -> LiveTeacher:
    base = families.loaded(kind, task=_task(kind))
    return LiveTeacher(replace(base, model=adapters.attach(base.model, Path(folder), "test")), _task(kind), "")


def _needs(kind: str, teacher: AdapterTeacher) -> Needs:
    layers = frozenset({0, 2})
    asked = Needs(True, layers, frozenset({1}), frozenset({2}), choices=kind in ("gpt2", "t5"))
    assert not (asked - teacher.offers).logits and layers <= teacher.offers.hidden_states
    return asked


@pytest.mark.parametrize("sources", [[2, 0, 2], [1, 1, 1]], ids=str)
@pytest.mark.parametrize("kind", ["bert", "roberta", "t5", "gpt2"])
def test_each_row_is_taught_by_the_adapter_of_its_source(tmp_path, kind, sources):
    names = ["lora", "parallel", "houlsby"] if kind == "t5" else ["lora", "houlsby", "prefix"]
    folders = [_saved(tmp_path / name, kind, KINDS[name], seed) for seed, name in enumerate(names)]
    teacher = _teacher(kind, families.loaded(kind, task=_task(kind)), folders)
    teacher.to(CPU)
    batch = _batch(kind, sources)
    needs = _needs(kind, teacher)
    said = tensors_of(teacher(batch, needs))
    apart = [tensors_of(_apart(kind, folder)(batch, needs)) for folder in folders]
    rows = {"choices": torch.tensor([sources[row] for row in (0, 2, 2)])}
    for name, found in said.items():
        who, dimension = rows.get(name, torch.tensor(sources)), 0
        if name == "logits" and "hidden" in batch:
            who, dimension = torch.tensor(sources)[batch["hidden"] // 7], 1
        wanted = torch.stack([apart[n][name].select(dimension, i) for i, n in enumerate(who.tolist())], dimension)
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)  # other sizes of batches


@pytest.mark.parametrize("name", KINDS)
def test_a_twin_says_what_the_frozen_model_says_and_is_not_changed_with_the_student(name):
    before = Student(families.loaded("bert").model, has_head=True).eval()
    student = Student(_made("bert", KINDS[name]), has_head=True)
    alone = twin(student.model, "test")
    own = {id(weight) for weight in student.parameters()}
    assert {id(weight) for weight in alone.parameters()} <= own
    teacher = LiveTeacher(replace(families.loaded("bert"), model=alone), families.task_of("bert"), "")
    batch = full_batch("bert")
    needs = Needs(True, frozenset({2}))
    said = teacher(batch, needs)
    torch.testing.assert_close(said.logits, before(batch, needs).logits, atol=1e-6, rtol=0.0)
    torch.testing.assert_close(said.hidden_states[2], before(batch, needs).hidden_states[2], atol=1e-6, rtol=0.0)


def _storages(model: torch.nn.Module) -> set[int]:
    tensors = [*model.parameters(), *model.buffers()]
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_the_frozen_model_is_held_once_before_and_after_it_is_made_ready(tmp_path, autocast):
    names = ["houlsby", "prompt", "top"]  # others stand around this layer
    folders = [_saved(tmp_path / name, "bert", KINDS[name], seed) for seed, name in enumerate(names)]
    base = families.loaded("bert")
    teacher = _teacher("bert", base, folders, autocast=autocast)
    weights = [weight for model in teacher.models for weight in model.parameters()]
    extra = sum(weight.numel() for weight in {id(weight): weight for weight in weights}.values())
    extra -= sum(weight.numel() for weight in base.model.parameters())
    own = sum(weight.numel() for folder in folders for weight in load_file(Path(folder) / WEIGHTS).values())
    assert 0 < extra <= own
    teacher.to(CPU)
    queries = [model.get_base_model().bert.encoder.layer[0].attention.self.query for model in teacher.models]
    assert len({id(query) for query in queries}) == 1  # one layer, packed once
    words = [model.get_base_model().bert.embeddings.word_embeddings for model in teacher.models]
    assert len({_storages(embedding).pop() for embedding in words}) == 1


def test_a_student_in_an_adapter_lends_its_frozen_model_and_learns_on(tmp_path):
    folders = [_saved(tmp_path / name, "bert", KINDS[name], seed) for seed, name in enumerate(("lora", "houlsby"))]
    student = Student(_made("bert", {"kind": "lora", "rank": 2}), has_head=True, frozen_head=True)
    learning = {name for name, weight in student.named_parameters() if weight.requires_grad}
    base = replace(families.loaded("bert"), model=twin(student.model, "test"))
    teacher = _teacher("bert", base, folders, borrowed=True)
    teacher.to(CPU)
    assert {name for name, weight in student.named_parameters() if weight.requires_grad} == learning
    batch, needs = _batch("bert", [0, 1, 0]), Needs(logits=True)
    before, own = teacher(batch, needs).logits, student(batch, needs).logits
    optimiser = torch.optim.SGD([weight for weight in student.parameters() if weight.requires_grad], lr=0.5)
    (own - before).square().sum().backward()
    optimiser.step()
    assert torch.equal(teacher(batch, needs).logits, before)
    assert not torch.allclose(student(batch, needs).logits, own)
    adapters.save(student.model, tmp_path / "student")
    assert not any("houlsby" in path.name or "below" in path.name for path in (tmp_path / "student").iterdir())
    wanted = torch.stack(
        [_apart("bert", folders[source])(batch, needs).logits[row] for row, source in enumerate([0, 1, 0])]
    )
    torch.testing.assert_close(before, wanted, atol=1e-6, rtol=0.0)


def test_it_offers_what_all_of_its_adapters_do(tmp_path):
    folder = _saved(tmp_path / "lora", "bert", KINDS["lora"])
    base = families.loaded("bert")
    made = in_adapter(base, folder, _task("bert"), LABELS, "test")
    headless = replace(made, trained_head=False)
    teacher = AdapterTeacher({"a": Member(made), "b": Member(headless)}, ["a", "b"], _task("bert"), "")
    whole = LiveTeacher(base, _task("bert"), "").offers
    assert teacher.shape.outputs == 0 and teacher.offers == whole - Needs(logits=True) != whole


def test_outputs_are_brought_into_the_order_of_the_runs_classes(tmp_path):
    folder = _saved(tmp_path / "lora", "bert", KINDS["lora"])
    made = in_adapter(families.loaded("bert"), folder, _task("bert"), ("yes", "no"), "test")
    plain, turned = (AdapterTeacher({"a": Member(made, o)}, ["a"], _task("bert"), "") for o in (None, [1, 0]))
    batch, needs = full_batch("bert"), Needs(logits=True)
    assert torch.equal(plain(batch, needs).logits.flip(1), turned(batch, needs).logits)


def test_an_adapter_of_another_model_or_of_other_classes_is_refused(tmp_path):
    folder = _saved(tmp_path / "lora", "bert", KINDS["lora"])
    task = _task("bert")
    with pytest.raises(ModelError, match=r"test: .*lora belongs to .*base, whose .* is not that of the model it is to"):
        in_adapter(families.loaded("bert", seed=1), folder, task, LABELS, "test")
    with pytest.raises(DataError, match=r"test: .*lora: .*the run has perhaps, which the model does not know"):
        in_adapter(families.loaded("bert"), folder, task, ("no", "perhaps"), "test")
    with pytest.raises(ModelError, match=r"test: .*nowhere holds no adapter_config.json"):
        in_adapter(families.loaded("bert"), str(tmp_path / "nowhere"), task, LABELS, "test")


def test_an_adapter_of_another_body_is_refused(tmp_path):
    """A body is saved without the name it has in a model with a head."""
    folder = _saved(tmp_path / "lora", "bert", KINDS["lora"])
    body = families.loaded("bert").model.base_model

    def place(other: torch.nn.Module, seed: int) -> Loaded:
        for file in (tmp_path / "lora" / "base").glob("*.safetensors"):
            save_file(other.state_dict(), file)
        return in_adapter(families.loaded("bert", seed=seed), folder, _task("bert"), LABELS, "test")

    with pytest.raises(ModelError, match=r"test: .*lora belongs to .*base, whose embeddings\.\S+ is not that of the"):
        place(body, seed=1)
    with pytest.raises(ModelError, match=r"test: .*lora belongs to .*base, which has no weight in common with the"):
        place(torch.nn.Linear(2, 2), seed=0)
    assert place(body, seed=0).source == folder


@pytest.mark.parametrize("ours", [True, False])
def test_an_adapter_that_changes_the_weights_it_would_share_is_refused(tmp_path, ours):
    """Ours is kept as plain LoRA beside the weights it left; peft's own asks for the same change again."""
    folder = tmp_path / "pissa"
    _saved(folder, "bert", {"kind": "lora", "rank": 2, "init": "pissa"})
    if not ours:
        _made("bert", {"kind": "lora", "rank": 2, "init": "pissa"}).save_pretrained(folder)
    base = families.loaded("bert")
    before = {name: weight.clone() for name, weight in base.model.named_parameters()}
    said = r"pissa belongs to .*base, whose .* is not that of" if ours else "pissa changes the frozen weights"
    with pytest.raises(ModelError, match=said):
        in_adapter(base, str(folder), _task("bert"), LABELS, "test")
    assert all(torch.equal(weight, before[name]) for name, weight in base.model.named_parameters())


CHANGING: dict[str, dict[str, Any]] = {
    "quick PiSSA": {"init_lora_weights": "pissa_niter_4"},
    "OLoRA": {"init_lora_weights": "OLoRA"},
    "KaSA": {"kasa_config": KasaConfig()},
    "biases": {"bias": "lora_only"},
}


@pytest.mark.parametrize("name", CHANGING)
def test_whatever_of_peft_changes_the_weights_it_would_share_is_refused(tmp_path, name):
    _saved(tmp_path, "bert", KINDS["lora"])
    base = families.loaded("bert")
    model = get_peft_model(families.loaded("bert").model, _lora(**CHANGING[name]))
    families.draw(model, std=0.3)
    model.save_pretrained(tmp_path)
    put = adapters.attach(families.loaded("bert").model, tmp_path, "test").get_base_model()
    own, given = (model.bert.encoder.layer[0].attention.self.query for model in (put, base.model))
    assert not (torch.equal(own.base_layer.weight, given.weight) and torch.equal(own.base_layer.bias, given.bias))
    before = {key: weight.clone() for key, weight in base.model.named_parameters()}
    with pytest.raises(ModelError, match="changes the frozen weights"):
        in_adapter(base, str(tmp_path), _task("bert"), LABELS, "test")
    assert all(torch.equal(weight, before[key]) for key, weight in base.model.named_parameters())


@pytest.mark.parametrize("init", [True, False, "gaussian", "Gaussian", "orthogonal", "MiCA"])
def test_a_beginning_that_leaves_the_shared_weights_alone_is_taken(tmp_path, init):
    _saved(tmp_path, "bert", KINDS["lora"])
    get_peft_model(families.loaded("bert").model, _lora(init_lora_weights=init)).save_pretrained(tmp_path)
    base = families.loaded("bert")
    before = {key: weight.clone() for key, weight in base.model.named_parameters()}
    in_adapter(base, str(tmp_path), _task("bert"), LABELS, "test")
    assert all(torch.equal(weight, before[key]) for key, weight in base.model.named_parameters())


def _lora(**given: Any) -> LoraConfig:
    return LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS", **given)


def test_no_adapter_is_put_around_an_adapter(tmp_path):
    base = families.loaded("bert")
    given = replace(base, model=adapters.attach(base.model, Path(_saved(tmp_path, "bert", KINDS["lora"])), "test"))
    with pytest.raises(ModelError, match=r"student.adapter: a tiny bert is itself an adapter, .*\(stages.….adapters\)"):
        build(TypeAdapter(Adapter).validate_python(KINDS["houlsby"]), given, _task("bert"))
