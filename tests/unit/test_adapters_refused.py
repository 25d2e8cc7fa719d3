"""Names, layers and numbers of an adapter that match nothing in its model are refused, with what there is."""

from typing import Any

import pytest
import torch
from peft import PeftModel
from pydantic import TypeAdapter

from configs.adapters import Adapter
from distill.errors import ModelError
from distill.models import Loaded
from distill.types import Needs
from students.adapters.build import build
from students.student import Student
from tests.helpers import families
from tests.helpers.adapted import full_batch

BOTTLENECK: dict[str, Any] = {"kind": "bottleneck", "size": 4, "norms": False}
PREFIX: dict[str, Any] = {"kind": "prefix", "tokens": 3, "width": None}
VERA: dict[str, Any] = {"kind": "peft", "method": "vera"}
OFT: dict[str, Any] = {"kind": "peft", "method": "oft"}


def adapted(kind: str, section: dict[str, Any]) -> PeftModel:
    task = families.task_of(kind)
    return build(TypeAdapter(Adapter).validate_python(section), families.loaded(kind), task)


def by_name(**options: Any) -> dict[str, Any]:
    return {**VERA, "options": {"r": 4, **options}}


@pytest.mark.parametrize(
    ("kind", "section", "said"),
    [
        ("bert", by_name(target_modules=["query", "valeu"]), "options.target_modules: .*`valeu`; did you mean `value`"),
        (
            "bert",
            by_name(modules_to_save=["pooler.dence"]),
            "options.modules_to_save: .*`pooler.dence`; did you mean `pooler.dense`",
        ),
        (
            "bert",
            {**OFT, "options": {"exclude_modules": ["querry"]}},
            "options.exclude_modules: .*; did you mean `query`",
        ),
        (
            "bart",
            {**BOTTLENECK, "also": ["shared"]},
            "also: no pass goes through `shared`, .*; its weights are those of model.encoder.embed_tokens, model.dec",
        ),
        ("t5", {"kind": "lora", "also": ["shared"]}, "also: no pass goes through `shared`"),
        ("bert", {"kind": "ia3", "targets": ["valeu"]}, "targets: no module ends in `valeu`; did you mean `value`"),
        ("bert", {**BOTTLENECK, "leave_out": [11]}, "leave_out: the model has no layer 11; its layers are 0 to 1"),
        ("bert", {**BOTTLENECK, "leave_out": [0, 1]}, "leave_out: all 2 layers; one at least has to keep its parts"),
        ("t5", {**PREFIX, "leave_out": [2]}, "leave_out: the model has no layer 2; its layers are 0 to 1"),
        ("gpt2", {**BOTTLENECK, "drop": 2}, "drop: with 2 of 2 layers left out, .* at most 1 here"),
        ("gpt2", {**BOTTLENECK, "drop": 1, "leave_out": [1]}, "drop: with 1 of 2 layers left out, .* at most 0 here"),
        ("bert", {**PREFIX, "sides": ["cross"]}, "sides: bert has one stack, `encoder`, and no `cross`"),
        ("gpt2", {**PREFIX, "sides": ["encoder", "decoder"]}, "sides: gpt2 has one stack, `encoder`, and no `decoder`"),
    ],
)
def test_it_is_refused_at_set_up(kind: str, section: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=rf"^student\.adapter\.{said}"):
        adapted(kind, section)


def test_what_a_method_by_name_trains_whole_comes_beside_the_rest() -> None:
    first, second = ("transformer.layer.0.output_layer_norm", "transformer.layer.1.output_layer_norm")
    model = adapted("distilbert", {**by_name(modules_to_save=[second]), "also": [first]})
    learns = {name for name, value in model.named_parameters() if value.requires_grad}
    for part in ("pre_classifier", "classifier", first, second):
        assert any(f".{part}.modules_to_save.default." in name for name in learns), part


def test_a_prefix_is_on_all_sides_a_model_has_unless_it_says_which() -> None:
    for kind, sides, count in (("bert", None, 2), ("bert", ["encoder"], 2), ("t5", None, 4), ("t5", ["cross"], 1)):
        model = adapted(kind, {**PREFIX, "sides": sides})
        assert sum(name.endswith(".prefix") for name, _ in model.named_parameters()) == count, (kind, sides)


def test_with_all_layers_left_out_that_may_be_something_still_learns() -> None:
    student = Student(adapted("gpt2", {**BOTTLENECK, "drop": 1}), has_head=True, frozen_head=True).train()
    dropped = set()
    for seed in range(6):
        torch.manual_seed(seed)
        said = student(full_batch("gpt2"), Needs(logits=True)).logits
        assert isinstance(said, torch.Tensor)
        said.square().sum().backward()  # type: ignore[no-untyped-call]
        dropped.add(student.model.base_model.drop.below)  # type: ignore[union-attr]
    assert dropped == {0, 1}


@pytest.mark.parametrize("scaled", [True, False])
def test_vectors_go_before_no_tokens_that_the_model_scales_itself(scaled: bool) -> None:
    config = families.loaded("marian").model.config
    config.scale_embedding = scaled  # as OPUS-MT's are
    model = type(families.loaded("marian").model)(config)
    loaded = Loaded(model, None, "a tiny marian", trained_head=True)  # type: ignore[arg-type]
    section = TypeAdapter(Adapter).validate_python({"kind": "prompt", "tokens": 3})
    if not scaled:
        build(section, loaded, families.task_of("marian"))
        return
    with pytest.raises(ModelError, match=r"^student\.adapter\.kind: `prompt` hands vectors .*, and marian does to"):
        build(section, loaded, families.task_of("marian"))
