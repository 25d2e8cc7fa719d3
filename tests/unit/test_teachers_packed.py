import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from configs.adapters import Adapter
from distill.types import Needs
from students.adapters.build import build
from teachers.live import LiveTeacher
from teachers.packed import PackedLinear, settle
from tests.helpers import families

CPU = torch.device("cpu")


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Embedding(50, 48), nn.Linear(48, 64), nn.GELU(), nn.Linear(64, 32, bias=False))
    return made.eval().requires_grad_(False)


def _outputs(model, autocast):
    ids = torch.arange(40).reshape(4, 10)
    with torch.no_grad(), torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
        return model(ids)


@pytest.mark.parametrize(("autocast", "atol"), [(None, 1e-6), (torch.bfloat16, 0.0)])
def test_a_settled_model_computes_what_it_computed(model, autocast, atol):
    before = _outputs(model, autocast)
    settle(model, autocast, CPU)
    after = _outputs(model, autocast)
    assert after.dtype == before.dtype
    torch.testing.assert_close(after, before, atol=atol, rtol=0.0)


def test_linear_layers_are_packed_once_and_nothing_else_changes(model):
    settle(model, None, CPU)
    kinds = [type(layer) for layer in model]
    settle(model, None, CPU)
    assert [type(layer) for layer in model] == kinds == [nn.Embedding, PackedLinear, nn.GELU, PackedLinear]


def test_weights_autocast_would_cast_are_held_in_its_type_elsewhere_too(model):
    plain = copy.deepcopy(model)
    settle(model, torch.float16, torch.device("meta"))
    assert model[1].weight.dtype == model[1].bias.dtype == model[3].weight.dtype == torch.float16
    assert model[0].weight.dtype == torch.float32
    assert torch.equal(model[1].weight, plain[1].weight.half())


def test_no_weight_stays_in_the_file_it_came_from(model):
    storage = model[0].weight.untyped_storage().data_ptr()
    settle(model, None, CPU)
    assert model[0].weight.untyped_storage().data_ptr() != storage


def test_layers_of_one_weight_share_what_becomes_of_it(model):
    twin = nn.Linear(48, 64)
    twin.weight, twin.bias = model[1].weight, model[1].bias
    both = nn.ModuleList([model, nn.Sequential(twin)])
    settle(both, torch.bfloat16, CPU)
    assert both[1][0] is model[1]


ADAPTERS = [
    {"kind": "lora", "targets": "all"},
    {"kind": "lora", "dora": True},
    {"kind": "ia3"},
    {"kind": "bitfit"},
    {"kind": "top_layers", "layers": 1},
    {"kind": "prompt", "tokens": 2},
    {"kind": "prefix", "tokens": 2, "width": 4},
    {"kind": "bottleneck", "place": "houlsby", "size": 4},
    {"kind": "bottleneck", "place": "parallel", "size": 4, "invertible": 2},
    {"kind": "experts", "size": 4},
]


PROMPTS = {"kind": "peft", "method": "adaption_prompt", "options": {"adapter_len": 3, "adapter_layers": 1}}
CASES = [*(("bert", adapter) for adapter in ADAPTERS), ("llama", PROMPTS), ("gpt2", PROMPTS)]


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize(("kind", "adapter"), CASES, ids=str)
def test_an_adapted_teacher_says_what_it_said_before_it_was_made_ready(kind, adapter, autocast):
    task, given = families.task_of(kind), families.loaded(kind)
    adapted = build(TypeAdapter(Adapter).validate_python(adapter), given, task)
    for weight in adapted.parameters():
        if weight.requires_grad:
            nn.init.normal_(weight, std=0.3)
    teacher = LiveTeacher(replace(given, model=adapted), task, "", autocast=autocast)
    ask = partial(teacher, families.batch(kind), Needs(logits=True))
    with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
        before = ask().logits
        teacher.to(CPU)
        torch.testing.assert_close(ask().logits, before, atol=1e-6, rtol=0.0)
