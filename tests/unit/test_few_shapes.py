"""Products in bf16 on CPUs have few shapes, and the values they would have without."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForSequenceClassification

from distill.few_shapes import CLOSEST, FewShapes, rounded, use_few_shapes
from distill.types import Needs
from students.student import Student
from teachers.packed import PackedLinear


class Products(TorchDispatchMode):
    """The shapes of all products of matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[torch.Size, ...]] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in {"mm", "addmm"}:
            self.shapes.add(tuple(tensor.shape for tensor in args if isinstance(tensor, torch.Tensor)))
        return func(*args, **kwargs or {})


@given(st.integers(1, 1 << 20))
def test_a_rounded_number_is_close(rows: int) -> None:
    found = rounded(rows)
    assert rows <= found == rounded(found)
    assert found - rows < max(CLOSEST, rows / 16)


def test_there_are_sixteen_of_them_between_two_powers_of_two() -> None:
    assert [len({rounded(rows) for rows in range(2**power + 1, 2 ** (power + 1) + 1)}) for power in (8, 11, 14)] == [
        16,
        16,
        16,
    ]
    assert rounded(0) == 0


def layers(bias: bool) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(24, 40, bias=bias), nn.Tanh(), nn.Linear(40, 8, bias=bias))
    few = copy.deepcopy(plain)
    use_few_shapes(few)
    return plain, few


def gradients(model: nn.Module, rows: torch.Tensor, dtype: torch.dtype | None) -> list[torch.Tensor]:
    """Return the output and the gradients of input and weights."""
    rows = rows.clone().requires_grad_()
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        found = model(rows)
    model.zero_grad()
    (found.float().sin().sum()).backward()
    return [found.detach(), rows.grad, *(weight.grad.clone() for weight in model.parameters())]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(37, 24), (5, 7, 24), (2, 3, 5, 24), (1, 24), (0, 24), (24,)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, None], ids=["bf16", "fp32"])
def test_values_and_gradients_are_those_of_plain_layers(shape, bias, dtype) -> None:
    plain, few = layers(bias)
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    expected, found = gradients(plain, rows, dtype), gradients(few, rows, dtype)
    assert [tensor.shape for tensor in found] == [tensor.shape for tensor in expected]
    assert [tensor.dtype for tensor in found] == [tensor.dtype for tensor in expected]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=0.0 if dtype is None else 2e-2, rtol=0.0)
    assert found[0].is_contiguous()


def test_what_a_layer_gives_may_be_changed_in_place() -> None:
    plain, few = (nn.Sequential(made[0], InPlace()) for made in layers(bias=True))
    rows = torch.randn(37, 24, generator=torch.Generator().manual_seed(1))
    for ours, theirs in zip(*(gradients(one, rows, torch.bfloat16) for one in (few, plain)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-2, rtol=0.0)


class InPlace(nn.Module):
    def forward(self, given: torch.Tensor) -> torch.Tensor:
        given += given.detach().flip(0)
        return given


def test_batches_of_many_sizes_share_their_products() -> None:
    counts = {}
    for name, model in zip(("plain", "few"), layers(bias=True), strict=True):
        with Products() as seen:
            for rows in range(500, 600):
                gradients(model, torch.ones(rows, 24), torch.bfloat16)
        counts[name] = len(seen.shapes)
    of_a_step = 2 + 2 + 2  # forward, gradients of weights and of inputs, in two layers
    assert counts["plain"] == 100 * of_a_step
    assert counts["few"] == len({rounded(rows) for rows in range(500, 600)}) * of_a_step


def test_in_fp32_nothing_is_rounded() -> None:
    """There the kernels are MKL's, for any shape."""
    _, few = layers(bias=True)
    with Products() as seen:
        few(torch.ones(37, 24))
    assert {shapes[1][0] for shapes in seen.shapes} == {37}


def test_nothing_but_plain_linear_layers_changes() -> None:
    class Own(nn.Linear):
        pass

    model = nn.ModuleList([nn.Linear(2, 3), Own(2, 3), nn.Embedding(4, 2)])
    names = [*model.state_dict()]
    use_few_shapes(model)
    assert [type(layer) for layer in model] == [FewShapes, Own, nn.Embedding]
    assert [*model.state_dict()] == names and repr(model[1]) == repr(Own(2, 3))


@pytest.mark.parametrize("adapter", [None, LoraConfig(r=4, target_modules=["query", "value"])], ids=["full", "lora"])
def test_a_students_batches_share_their_products(adapter) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    made = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("bert", vocab_size=40, **sizes))
    student = Student(made if adapter is None else get_peft_model(made, adapter), has_head=True)
    with Products() as products, torch.autocast("cpu", torch.bfloat16):
        for rows in (40, 41):
            ids = torch.ones(rows, 7, dtype=torch.long)
            student({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, Needs(logits=True))
    sizes = {size for shapes in products.shapes for shape in shapes for size in shape}
    assert {size for size in sizes if size > 250} == {rounded(280)} == {rounded(287)}


def test_a_packed_teachers_batches_share_their_products(monkeypatch) -> None:
    layer = PackedLinear(nn.Linear(24, 8).to(torch.bfloat16))
    given = []
    product = layer._product
    monkeypatch.setattr(layer, "_product", lambda rows: given.append(len(rows)) or product(rows))
    found = [layer(torch.ones(rows, 24)) for rows in (500, 501)]
    assert [len(rows) for rows in found] == [500, 501] and len(set(given)) == 1
