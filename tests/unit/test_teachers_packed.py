import copy

import pytest
import torch
from torch import nn

from teachers.packed import PackedLinear, settle

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
