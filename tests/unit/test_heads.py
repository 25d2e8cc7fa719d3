"""A head a model came with is put into the order of the run's classes, or gives way to a new one."""

import pytest
import torch

from configs.data import Task
from distill import heads
from distill.errors import DataError
from distill.models import ModelSource, label_names, load
from distill.shells import outline
from tests.helpers import families, tiny

CLASSES = ("one", "two", "three")
OTHER = ("THREE", "One", "two")
"""The same in another order, and otherwise written."""
TASK = Task(labels=CLASSES)
WHERE = "teacher.model: there"
KINDS = [*families.ENCODERS, "bart", "t5", *families.CAUSAL]
ROWS = {"input_ids": torch.tensor([[5, 6, 7, 2]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}


def _named(kind: str, names: tuple[str, ...]):
    """A model that came with a head for these classes."""
    return families.loaded(kind, task=Task(labels=names))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("put", [heads.in_order, heads.to_train])
def test_outputs_are_put_into_the_order_of_the_run(kind, put):
    loaded = _named(kind, OTHER)
    before = loaded.model.eval()(**ROWS).logits
    found = put(loaded, TASK, CLASSES, WHERE)
    torch.testing.assert_close(found.model(**ROWS).logits, before[:, [1, 2, 0]])
    assert label_names(found.model.config) == CLASSES and found.trained_head
    assert found.model.config.label2id == {name: number for number, name in enumerate(CLASSES)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outputs", [2, 3])
def test_outputs_without_names_give_way_to_a_new_head(kind, outputs):
    loaded = _named(kind, tuple(f"LABEL_{number}" for number in range(outputs)))
    found = heads.to_train(loaded, TASK, CLASSES, WHERE)
    model, old = found.model.eval(), loaded.model.eval()
    assert label_names(model.config) == CLASSES and model(**ROWS).logits.shape == (1, 3)
    assert not found.trained_head and found.new == heads.head_weights(model) != ()
    for name, weight in model.base_model.state_dict().items():
        assert torch.equal(weight, old.base_model.state_dict()[name]), name
    for name in found.new:
        own, came = model.get_parameter(name), old.get_parameter(name)
        assert own.ndim == 1 or own.shape != came.shape or not torch.allclose(own, came), name


def test_outputs_that_are_the_runs_stay():
    loaded = _named("bert", ("LABEL_0", "LABEL_1"))
    before = loaded.model.eval()(**ROWS).logits
    found = heads.to_train(loaded, Task(labels=("LABEL_0", "LABEL_1")), ("LABEL_0", "LABEL_1"), WHERE)
    assert found.trained_head and torch.equal(found.model(**ROWS).logits, before)


@pytest.mark.parametrize("names", [("bad", "good"), ("one", "two"), ("one", "two", "three", "four")])
def test_outputs_for_other_classes_are_refused(names):
    with pytest.raises(DataError, match=f"{WHERE}: labels are matched by name: .*; to train the model for another"):
        heads.to_train(_named("bert", names), TASK, CLASSES, WHERE)


def test_a_regression_has_one_score_that_needs_no_name():
    scores = Task(kind="regression")
    kept = heads.to_train(families.loaded("bert", task=scores), scores, (), WHERE)
    assert kept.trained_head and kept.model.config.num_labels == 1
    new = heads.to_train(_named("bert", ("LABEL_0", "LABEL_1")), scores, (), WHERE)
    assert not new.trained_head and new.model.eval()(**ROWS).logits.shape == (1, 1)
    with pytest.raises(DataError, match="the outputs are called bad, good, and a regression has one score"):
        heads.to_train(_named("bert", ("bad", "good")), scores, (), WHERE)
    classes = families.loaded("bert", task=scores)
    assert not heads.to_train(classes, TASK, CLASSES, WHERE).trained_head


@pytest.mark.parametrize("take", [load, outline])
def test_a_model_that_comes_without_a_head_gets_one_of_the_run(take, tmp_path):
    source = ModelSource(str(tiny.model_folder(tmp_path, head=False)))
    found = heads.to_train(take(source, TASK, CLASSES, "here"), TASK, CLASSES, WHERE)
    assert not found.trained_head and label_names(found.model.config) == CLASSES


def test_a_model_without_weights_is_treated_as_one_with_them(tmp_path):
    source = ModelSource(str(tiny.model_folder(tmp_path)))
    turned = heads.to_train(outline(source, TASK, (), "here"), TASK, tiny.LABELS[::-1], WHERE)
    assert label_names(turned.model.config) == tiny.LABELS[::-1] and turned.model.device.type == "meta"
