"""What each variant adds, against its paper's formula in plain sums; and how it begins."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distill.types import Needs
from students.adapters.build import build
from students.adapters.modular.layer import ModularLayer
from students.student import Student
from tests.helpers import families
from tests.helpers.adapted import IMPOSSIBLE, adapted, full_batch, section

ALPHA = 16.0
AT = {"bert": "bert.encoder.layer.0.attention.self.query", "gpt2": "transformer.h.0.attn.c_attn"}
FED = {"bert": "bert.encoder.layer.0.output.dense", "gpt2": "transformer.h.0.mlp.c_proj"}


def matrix(layer: Any) -> Tensor:
    """The frozen weights [O D]; GPT-2's lie transposed."""
    weight: Tensor = layer.weight.detach()
    return weight if isinstance(layer, nn.Linear) else weight.T


def drawn(method: str, kind: str, at: str) -> tuple[Any, Tensor, Tensor]:
    """One adapted module with drawn weights, an input [B D] and what it makes of it [B O]."""
    student = adapted(method, kind)
    families.draw(student, std=0.5)
    layer = student.model.get_base_model().get_submodule(at).eval()
    torch.manual_seed(3)
    given = torch.randn(5, matrix(layer.base_layer).shape[1])
    with torch.no_grad():
        return layer, given, layer(given)


@pytest.mark.parametrize("kind", AT)
@pytest.mark.parametrize(("method", "scale"), [("LoRA", ALPHA / 4), ("LoRA+", ALPHA / 4), ("rsLoRA", ALPHA / 2)])
def test_low_rank_updates_are_scaled_as_they_say(method: str, scale: float, kind: str) -> None:
    """h = W x + b + s·B A x; s = α/r (Hu et al. 2022, section 4.1) or α/√r (Kalajdzievski 2023)."""
    layer, given, found = drawn(method, kind, AT[kind])
    low, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert low.shape[0] == 4
    base = layer.base_layer
    torch.testing.assert_close(found, given @ matrix(base).T + base.bias + scale * given @ low.T @ up.T)


@pytest.mark.parametrize("kind", AT)
def test_dora_learns_length_and_direction_apart(kind: str) -> None:
    """h = m · (W + s·B A)/‖W + s·B A‖ x + b, the length of each output's row (Liu et al. 2024, equation 5)."""
    layer, given, found = drawn("DoRA", kind, AT[kind])
    low, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    length = layer.lora_magnitude_vector["default"].weight
    turned = matrix(layer.base_layer) + ALPHA / 4 * up @ low
    expected = given @ (length.flatten()[:, None] * turned / turned.norm(dim=1, keepdim=True)).T + layer.base_layer.bias
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", AT)
def test_pissa_begins_with_the_largest_singular_values(kind: str) -> None:
    """A and B hold the r largest of W, the frozen rest the others (Meng et al. 2024, equations 2 to 4)."""
    original = matrix(families.loaded(kind).model.get_submodule(AT[kind]))
    left, values, right = torch.linalg.svd(original)
    largest = left[:, :4] @ values[:4].diag() @ right[:4]
    layer = adapted("PiSSA", kind).model.get_base_model().get_submodule(AT[kind])
    learnt = ALPHA / 4 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(learnt, largest, atol=1e-5, rtol=0)
    torch.testing.assert_close(matrix(layer.base_layer), original - largest, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", AT)
def test_adalora_weighs_each_rank(kind: str) -> None:
    """h = W x + b + α/r · P Λ Q x (Zhang et al. 2023, equation 3; their code's scale)."""
    layer, given, found = drawn("AdaLoRA", kind, AT[kind])
    low, up, weight = layer.lora_A["default"], layer.lora_B["default"], layer.lora_E["default"]
    update = ALPHA / 4 * given @ (low * weight).T @ up.T
    torch.testing.assert_close(
        found, given @ matrix(layer.base_layer).T + layer.base_layer.bias + update, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("kind", AT)
def test_ia3_stretches_what_comes_out_of_keys_and_what_goes_into_the_way_back(kind: str) -> None:
    """(IA)³, Liu et al. 2022, section 3.3: l_k ⊙ K, l_v ⊙ V, and W₂ (l_ff ⊙ γ(W₁ x))."""
    key = AT[kind].replace("query", "key")
    layer, given, found = drawn("(IA)³", kind, key)
    factors = layer.ia3_l["default"].flatten()
    base = layer.base_layer
    torch.testing.assert_close(found, factors * (given @ matrix(base).T + base.bias))
    layer, given, found = drawn("(IA)³", kind, FED[kind])
    factors, base = layer.ia3_l["default"].flatten(), layer.base_layer
    torch.testing.assert_close(found, (factors * given) @ matrix(base).T + base.bias)


def parts(method: str, kind: str = "bert") -> list[Any]:
    """The parts of a method that was just built."""
    model = build(section(method), families.loaded(kind), families.task_of(kind))
    layers = [module for module in model.modules() if isinstance(module, ModularLayer)]
    return [part for layer in layers for part in layer.modular_parts.values()]


@pytest.mark.parametrize(
    ("method", "scale"), [("parallel", 4.0), ("mix and match", 4.0), ("Houlsby", 1.0), ("Compacter", 1.0)]
)
def test_what_stands_beside_is_scaled_and_what_follows_is_not(method: str, scale: float) -> None:
    """s = 4: He et al. 2022, section 4.4."""
    found = [part.scale for part in parts(method) if hasattr(part, "scale")]
    assert found and set(found) == {scale}


@pytest.mark.parametrize("method", ["Houlsby", "Pfeiffer", "parallel"])
@pytest.mark.parametrize("scale", [None, 2.5])
def test_a_network_is_two_matrices_around_an_activation(method: str, scale: float | None) -> None:
    asked = section(method).model_copy(update={"activation": "relu", **({} if scale is None else {"scale": scale})})
    model = build(asked, families.loaded("bert"), families.task_of("bert"))
    families.draw(model, std=0.5)
    part = next(module for module in model.modules() if isinstance(module, ModularLayer)).modular_parts["default"]
    given = torch.randn(5, families.WIDTH)
    s = scale if scale is not None else 4.0 if method == "parallel" else 1.0
    inside = (given @ part.down.weight.T + part.down.bias).clamp(min=0)
    torch.testing.assert_close(part.change(given), s * (inside @ part.up.weight.T + part.up.bias))


def test_networks_begin_near_the_identity_and_parallel_ones_exactly_there() -> None:
    """Houlsby et al. 2019, section 2.1 and 3.6: N(0, 0.01²) cut at two deviations; He et al. 2022: as LoRA."""
    torch.manual_seed(0)
    asked = section("Houlsby").model_copy(update={"size": 512})
    model = build(asked, families.loaded("bert"), families.task_of("bert"))
    layers = [module.modular_parts["default"] for module in model.modules() if isinstance(module, ModularLayer)]
    weights = torch.cat([linear.weight.detach().flatten() for part in layers for linear in (part.down, part.up)])
    cut = 0.8796  # deviation of a normal one that is cut at ±2
    assert weights.std() == pytest.approx(0.01 * cut, rel=0.02) and weights.abs().max() <= 0.02
    assert not any(linear.bias.any() for part in layers for linear in (part.down, part.up))
    for part in parts("parallel"):
        assert not part.up.weight.any() and not part.up.bias.any()
        assert 0.2 < part.down.weight.abs().max() <= 1 / math.sqrt(families.WIDTH)


def test_compacters_matrices_are_sums_of_kronecker_products() -> None:
    """Karimi Mahabadi et al. 2021, equation 5; the rule begins as N(0, 0.0001²), the factors as Glorot."""
    found = parts("Compacter")
    rule = found[0].rule.weight
    assert all(part.rule is found[0].rule for part in found) and rule.shape == (2, 2, 2)
    assert 0 < rule.abs().max() < 5e-4
    families.draw(found[0].rule, std=0.5)
    for kronecker in (found[0].down, found[0].up):
        products = [
            torch.kron(a, left @ right) for a, left, right in zip(rule, kronecker.left, kronecker.right, strict=True)
        ]
        given = torch.randn(5, len(products[0]))
        torch.testing.assert_close(kronecker(given, rule), given @ sum(products) + kronecker.bias)
    lefts = torch.stack([part.down.left.detach() for part in found])  # [sites n D/n 1]
    assert lefts.std() == pytest.approx(math.sqrt(2 / (families.WIDTH // 2 + 1)), rel=0.2)


@pytest.mark.parametrize(("method", "original"), [("experts", 0.0), ("experts beside the original", 0.5)])
def test_experts_are_weighed_by_their_gate_and_mixed_with_the_original(method: str, original: float) -> None:
    (part,) = parts(method)
    families.draw(part, std=0.5)
    given = torch.randn(5, families.WIDTH)
    gates = (given @ part.gate.weight.T + part.gate.bias).softmax(-1)
    mixed = torch.zeros_like(given)
    for expert in range(2):
        own = slice(4 * expert, 4 * expert + 4)
        inside = nn.functional.gelu(given @ part.down.weight[own].T + part.down.bias[own])
        mixed += (gates[:, expert, None] * inside) @ part.up.weight[:, own].T
    torch.testing.assert_close(part.mixture(given), mixed + part.up.bias)
    assert part.original == original


@pytest.mark.parametrize(
    ("kind", "top"), [("bert", "bert.encoder.layer.1."), ("t5", "decoder.block.0."), ("gpt2", "transformer.h.1.")]
)
def test_the_uppermost_layers_are_those_that_train(kind: str, top: str) -> None:
    model = adapted("top layers", kind).model
    learns = [name for name, value in model.named_parameters() if value.requires_grad]
    assert learns and all(
        f"{top}modules_to_save." in name or name.startswith("base_model.model.classifier") for name in learns
    )


IN_BF16 = (
    "LoRA",
    "DoRA",
    "AdaLoRA",
    "(IA)³",
    "Houlsby",
    "Pfeiffer",
    "parallel",
    "Compacter",
    "prefix",
    "prompt tuning",
)
IN_BF16 = (
    *IN_BF16,
    "P-tuning",
    "mix and match",
    "experts",
    "BitFit",
    "LN tuning",
    "Houlsby, invertible",
    "VeRA",
    "OFT",
)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize(
    ("method", "kind"), [(m, k) for m in IN_BF16 for k in ("bert", "t5", "gpt2") if (m, k) not in IMPOSSIBLE]
)
def test_on_a_base_in_bf16_all_that_learns_is_in_fp32(method: str, kind: str, autocast: bool) -> None:
    loaded, batch = families.loaded(kind), full_batch(kind)
    loaded.model.to(torch.bfloat16)
    torch.manual_seed(1)
    student = Student(build(section(method), loaded, families.task_of(kind)), has_head=True).train()
    assert {value.dtype for value in student.parameters() if not value.requires_grad} == {torch.bfloat16}
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        student.freeze_unused(batch, Needs(logits=True))
        said = student(batch, Needs(logits=True)).logits
    assert said is not None
    said.float().square().mean().backward()  # type: ignore[no-untyped-call]
    learns = {name: value for name, value in student.named_parameters() if value.requires_grad}
    assert learns
    for name, value in learns.items():
        assert value.dtype == torch.float32, name
        assert value.grad is not None and value.grad.isfinite().all(), name
