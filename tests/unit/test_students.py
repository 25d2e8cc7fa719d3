import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from configs.adapters import Bottleneck
from configs.data import Task
from configs.students import BaseStudent, FolderStudent, LayersStudent, SizedStudent
from distill.errors import DataError, ModelError
from distill.models import Loaded, ModelSource, label_names, load, load_config
from distill.types import Needs
from students.build import build, from_folder
from students.from_teacher import build as keep_layers
from students.from_teacher import spread
from tests.helpers import families, tiny

TASK = Task(labels=tiny.LABELS)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Loaded:
    folder = tiny.model_folder(tmp_path_factory.mktemp("teacher"))
    return load(ModelSource(str(folder)), TASK, tiny.LABELS, "teacher.model")


def _batch(rows: int = 3):
    ids = torch.randint(5, len(tiny.WORDS), (rows, 6), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _sizes(**given) -> SizedStudent:
    sizes = {"kind": "sizes", "layers": 2, "hidden_size": 16, "intermediate_size": 32, "heads": 4}
    return SizedStudent(**{**sizes, **given})


@pytest.mark.parametrize(
    "kind", [None, "roberta", "distilbert", "electra", "albert", "deberta-v2", "modernbert", "gpt2", "llama"]
)
def test_sizes_become_a_model_of_any_architecture(teacher, kind):
    student = build(_sizes(architecture=kind), TASK, tiny.LABELS, teacher, 0)
    shape = student.shape
    assert (shape.layers, shape.hidden_size, shape.heads, shape.outputs) == (2, 16, 4, 2)
    assert student.model.config.vocab_size == teacher.model.config.vocab_size
    outputs = student(_batch(), Needs(logits=True, hidden_states=frozenset({0, 2})))
    assert outputs.logits.shape == (3, 2) and outputs.hidden_states[2].shape == (3, 6, 16)
    assert list(student.model.config.id2label.values()) == list(tiny.LABELS)


def test_weights_depend_on_the_seed_alone(teacher):
    first, again, other = (
        build(_sizes(), TASK, tiny.LABELS, teacher, seed).model.get_input_embeddings().weight for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    state = torch.get_rng_state()
    build(_sizes(), TASK, tiny.LABELS, teacher, 3)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("adapter", [None, Bottleneck(kind="bottleneck", size=4)])
@pytest.mark.parametrize("kind", ["sizes", "teacher_layers", "teacher"])
def test_all_that_learns_is_in_fp32_whatever_the_teacher_is_in(teacher, kind, adapter):
    folder = str(teacher.model.name_or_path)
    halved = load(ModelSource(folder), TASK, tiny.LABELS, "teacher.model", dtype=torch.bfloat16)
    match kind:
        case "sizes":
            asked = _sizes()
        case "teacher_layers":
            asked = LayersStudent(kind="teacher_layers", layers=(1, 3), adapter=adapter)
        case "teacher":
            asked = BaseStudent(kind="teacher", adapter=adapter)
    student = build(asked, TASK, tiny.LABELS, halved, 0)
    learns = {value.dtype for value in student.parameters() if value.requires_grad}
    frozen = {value.dtype for value in student.parameters() if not value.requires_grad}
    assert learns == {torch.float32} and frozen <= {torch.bfloat16}
    assert {value.dtype for value in halved.model.parameters()} == {torch.bfloat16}
    student(_batch(), Needs(logits=True)).logits.float().sum().backward()


def test_options_reach_the_architecture_and_typos_do_not(teacher):
    student = build(_sizes(options={"hidden_dropout_prob": 0.3}), TASK, tiny.LABELS, teacher, 0)
    assert student.model.config.hidden_dropout_prob == 0.3
    with pytest.raises(
        ModelError, match="unknown key `hiden_dropout_prob` of bert; did you mean `hidden_dropout_prob`"
    ):
        build(_sizes(options={"hiden_dropout_prob": 0.3}), TASK, tiny.LABELS, teacher, 0)


@pytest.mark.parametrize(
    ("count", "total", "kept"),
    [(3, 6, (1, 3, 5)), (6, 12, (1, 3, 5, 7, 9, 11)), (1, 4, (3,)), (4, 4, (0, 1, 2, 3)), (5, 12, (1, 4, 6, 9, 11))],
)
def test_layers_are_spread_evenly_and_the_last_is_kept(count, total, kept):
    assert spread(count, total) == kept


def test_chosen_layers_are_copies_of_the_teachers(teacher):
    student = build(LayersStudent(kind="teacher_layers", layers=(0, 3)), TASK, tiny.LABELS, teacher, 0)
    own, taught = student.model.bert.encoder.layer, teacher.model.bert.encoder.layer
    assert student.shape.layers == 2
    for mine, theirs in zip(own, (taught[0], taught[3]), strict=True):
        for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(a, b) and a.data_ptr() != b.data_ptr()
    assert torch.equal(student.model.classifier.weight, teacher.model.classifier.weight)


def test_all_layers_give_the_teachers_answers(teacher):
    student = build(LayersStudent(kind="teacher_layers", layers=4), TASK, tiny.LABELS, teacher, 0).eval()
    expected = teacher.model.eval()(**_batch()).logits
    torch.testing.assert_close(student(_batch(), Needs(logits=True)).logits, expected)


@pytest.mark.parametrize("kind", ["t5", "bart", *families.CAUSAL])
@pytest.mark.parametrize("layers", [1, (1,), 2])
def test_some_layers_of_any_family_come_back_from_a_folder_and_tell_orders_apart(kind, layers, tmp_path):
    taught = families.loaded(kind)
    student = keep_layers(LayersStudent(kind="teacher_layers", layers=layers), taught).eval()
    student.save_pretrained(tmp_path)
    again = type(student).from_pretrained(tmp_path).eval()
    rows = families.batch(kind)
    turned = {**rows, "input_ids": rows["input_ids"].flip(1), "attention_mask": rows["attention_mask"].flip(1)}
    torch.testing.assert_close(again(**rows).logits, student(**rows).logits)
    # T5 knows positions by its first layer's biases alone
    assert not torch.allclose(student(**turned).logits, student(**rows).logits, atol=1e-3)


def test_a_model_that_lacks_weights_of_its_body_is_refused(tmp_path):
    families.loaded("t5").model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    biases = next(name for name in weights if name.endswith("relative_attention_bias.weight"))
    save_file({name: weight for name, weight in weights.items() if name != biases}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=f"lacks weights: {biases}"):
        load(ModelSource(str(tmp_path)), Task(kind="generation"), (), "teacher.model")


def test_a_saved_student_comes_back_the_same(teacher, tmp_path):
    student = build(_sizes(), TASK, tiny.LABELS, teacher, 0).eval()
    student.save(tmp_path, teacher.tokenizer)
    again = build(FolderStudent(kind="folder", model=str(tmp_path)), TASK, tiny.LABELS, teacher, 0).eval()
    expected = student(_batch(), Needs(logits=True)).logits
    assert torch.equal(again(_batch(), Needs(logits=True)).logits, expected)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(plain(**_batch()).logits, expected)


def _turned(folder: Path) -> Loaded:
    """A teacher whose outputs mean the run's classes in the opposite order."""
    tiny.model_folder(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"id2label": {"0": "POSITIVE", "1": "negative"}, "label2id": {"POSITIVE": 0, "negative": 1}}
    path.write_text(json.dumps(config), encoding="utf-8")
    return load(ModelSource(str(folder)), TASK, tiny.LABELS, "teacher.model")


@pytest.mark.parametrize("kind", ["teacher_layers", "folder", "lora"])
def test_what_comes_of_another_model_says_the_classes_in_the_order_of_the_run(kind, tmp_path):
    turned = _turned(tmp_path / "turned")
    match kind:
        case "teacher_layers":
            asked = LayersStudent(kind="teacher_layers", layers=4)
        case "folder":
            asked = FolderStudent(kind="folder", model=str(tmp_path / "turned"))
        case _:
            asked = BaseStudent(kind="teacher", adapter={"kind": "lora"})
    student = build(asked, TASK, tiny.LABELS, turned, 0).eval()
    expected = turned.model.eval()(**_batch()).logits[:, [1, 0]]
    torch.testing.assert_close(student(_batch(), Needs(logits=True)).logits, expected)
    student.save(tmp_path / "saved", turned.tokenizer)
    source = ModelSource(str(tmp_path / "saved"))
    again = from_folder(source, TASK, tiny.LABELS, turned.tokenizer).eval()
    torch.testing.assert_close(again(_batch(), Needs(logits=True)).logits, expected)
    assert label_names(load_config(source, "saved")) == tiny.LABELS
    assert list(turned.model.config.id2label.values()) == ["POSITIVE", "negative"]


@pytest.mark.parametrize("asked", [LayersStudent(kind="teacher_layers", layers=2), BaseStudent(kind="teacher")])
def test_classes_that_are_not_the_runs_are_refused(asked, teacher):
    with pytest.raises(DataError, match=r"teacher.model: .*: labels are matched by name: the model has negative"):
        build(asked, TASK, ("bad", "positive"), teacher, 0)


def test_an_adapter_of_another_order_says_which(tmp_path):
    turned = _turned(tmp_path / "turned")
    own = ("POSITIVE", "negative")
    asked = BaseStudent(kind="teacher", adapter={"kind": "lora"})
    build(asked, Task(labels=own), own, turned, 0).save(tmp_path / "saved", turned.tokenizer)
    with pytest.raises(ModelError, match=r"adapter stay in their order; `task.labels: \[POSITIVE, negative\]` is it"):
        from_folder(ModelSource(str(tmp_path / "saved")), TASK, tiny.LABELS, turned.tokenizer)


def test_another_vocabulary_is_refused(teacher, tmp_path):
    folder = tiny.model_folder(tmp_path)
    text = (folder / "tokenizer.json").read_text(encoding="utf-8").replace('"ba"', '"xx"')
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match="different vocabularies"):
        build(FolderStudent(kind="folder", model=str(folder)), TASK, tiny.LABELS, teacher, 0)


def test_what_no_term_needs_is_frozen(teacher):
    student = build(_sizes(), TASK, tiny.LABELS, teacher, 0)
    unused = student.freeze_unused(_batch(), Needs(hidden_states=frozenset({1})))
    assert {name.removeprefix("model.").split(".")[0] for name in unused} == {"bert", "classifier"}
    assert any("layer.1." in name for name in unused) and not any("layer.0." in name for name in unused)
    assert student.freeze_unused(_batch(), Needs(logits=True)) == []


def test_biases_and_norms_are_not_decayed(teacher):
    decayed, plain = build(_sizes(), TASK, tiny.LABELS, teacher, 0).parameter_groups(1e-3, 0.1)
    assert decayed["weight_decay"] == 0.1 and plain["weight_decay"] == 0.0
    assert all(p.ndim > 1 for p in decayed["params"]) and all(p.ndim == 1 for p in plain["params"])
