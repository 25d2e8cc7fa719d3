"""A teacher in fewer bits: which weights are, what they then are, and what that takes."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from distill import quantised
from distill.errors import ModelError
from distill.models import Loaded, ModelSource, load
from distill.quantised import Quantised, footprint
from distill.types import Needs
from teachers.live import LiveTeacher
from tests.helpers import families, writers

pytest.importorskip("bitsandbytes", reason="the extra `quantised` is not installed")

BITS = ("int8", "nf4", "fp4")
NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""The quantiles of QLoRA, appendix E."""
BLOCK = 64


@pytest.fixture(scope="module", params=families.FAMILIES)
def family(request, tmp_path_factory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    families.loaded(request.param).model.save_pretrained(folder)
    writers.tokenizer().save_pretrained(folder)
    return request.param, folder


def _load(family: tuple[str, Path], bits: str | None) -> Loaded:
    kind, folder = family
    task = families.task_of(kind)
    held = None if bits is None else Quantised(bits, "cpu")  # type: ignore[arg-type]
    return load(ModelSource(str(folder)), task, task.labels or (), "teacher.model", quantised=held)


def _rounded(weight: Tensor, bits: str) -> Tensor:
    """Round in plain loops: int8 by rows, to multiples of their largest over 127; NF4 by blocks, to quantiles of it."""
    if bits == "int8":
        return torch.stack([_to_127ths(row, max(row.abs())) for row in weight.half().float()])
    flat, found = weight.flatten(), []
    for start in range(0, len(flat), BLOCK):
        block = flat[start : start + BLOCK]
        largest = max(block.abs())
        for value in block:
            nearest = min(NF4, key=lambda step: abs(float(value / largest) - step))
            found.append(nearest * float(largest))
    return torch.tensor(found).reshape(weight.shape)


def _rounded_rows(given: Tensor) -> Tensor:
    """Round what a layer is given, but for columns in which some value is 6 or more (LLM.int8(), §3.2)."""
    found = given.detach().half().float().flatten(0, -2)
    small = [column for column in range(found.shape[1]) if max(found[:, column].abs()) < 6]
    for row in found:
        row[small] = _to_127ths(row[small], max(value.abs() for value in row if value.abs() < 6))
    return found.reshape(given.shape)


def _to_127ths(values: Tensor, largest: Tensor) -> Tensor:
    return torch.tensor([round(float(value / largest * 127)) * float(largest) / 127 for value in values])


def _in_layers(model: nn.Module) -> dict[str, nn.Linear | Conv1D]:
    """Return the products of a model that lie in its layers, whose paths have a number."""
    every = {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear | Conv1D)}
    return {name: part for name, part in every.items() if any(step.isdigit() for step in name.split("."))}


@pytest.mark.parametrize(("bits", "tolerance"), [("int8", 2e-3), ("nf4", 1e-5)])
def test_each_layer_multiplies_by_rounded_weights(family, bits, tolerance):
    kind, plain, held = family[0], _load(family, None).model, _load(family, bits)
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    wanted = _quantised(plain)
    for name in wanted:
        keep = partial(seen.__setitem__, name)
        held.model.get_submodule(name).register_forward_hook(lambda _, x, y, keep=keep: keep((x[0].clone(), y)))
    LiveTeacher(held, families.task_of(kind), "")(families.batch(kind), Needs(logits=True))  # type: ignore[arg-type]
    assert seen.keys() == wanted.keys()
    for name, layer in wanted.items():
        given, found = seen[name]
        weight = layer.weight.detach().T if isinstance(layer, Conv1D) else layer.weight.detach()
        rows = _rounded_rows(given) if bits == "int8" else given
        _same(found, nn.functional.linear(rows, _rounded(weight, bits), layer.bias), tolerance)


def test_it_offers_what_any_teacher_does(family):
    """Logits, hidden states and attention scores are those of the same model with its layers' weights rounded."""
    kind, plain, held = family[0], _load(family, None), _load(family, "nf4")
    for layer in _quantised(plain.model).values():
        turn = isinstance(layer, Conv1D)
        rounded = _rounded(layer.weight.data.T if turn else layer.weight.data, "nf4")
        layer.weight.data = rounded.T.contiguous() if turn else rounded
    needs = Needs(logits=True, hidden_states=frozenset({2}), attentions=frozenset({1}))
    batch, task = families.batch(kind), families.task_of(kind)
    found, wanted = (LiveTeacher(loaded, task, "")(batch, needs) for loaded in (held, plain))  # type: ignore[arg-type]
    assert found.logits is not None and wanted.logits is not None
    _same(found.logits, wanted.logits, 1e-5)
    _same(found.hidden_states[2], wanted.hidden_states[2], 1e-5)
    _same(found.attentions[1], wanted.attentions[1], 1e-5)


def _quantised(plain: PreTrainedModel) -> dict[str, nn.Linear | Conv1D]:
    wide = set(plain._keep_in_fp32_modules or ())
    return {name: layer for name, layer in _in_layers(plain).items() if name.rpartition(".")[2] not in wide}


def _same(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    found, wanted = found.detach(), wanted.detach()
    finite = wanted.isfinite()
    assert float((found[finite] - wanted[finite]).norm() / wanted[finite].norm()) <= tolerance


@pytest.mark.parametrize("bits", BITS)
def test_what_lies_outside_of_layers_stays_as_it_is(family, bits):
    plain, held = _load(family, None).model, _load(family, bits).model
    layers = tuple(_in_layers(plain))
    weights = dict(held.named_parameters())
    outside = [name for name, _ in plain.named_parameters() if not name.startswith(layers)]
    assert outside
    for name, weight in plain.named_parameters():
        if name in outside:
            assert type(weights[name]) is nn.Parameter, name
            assert torch.equal(weights[name], weight), name


@pytest.mark.parametrize("bits", BITS)
def test_it_takes_what_is_planned(family, bits):
    plain, held = _load(family, None).model, _load(family, bits).model
    tensors = [*held.parameters(), *held.buffers()]
    tensors += [weight.SCB if bits == "int8" else weight.quant_state.absmax for weight in tensors if _is_held(weight)]
    assert footprint(plain, bits).held == sum(tensor.numel() * tensor.itemsize for tensor in tensors)


def _is_held(weight: Tensor) -> bool:
    return weight.dtype in (torch.int8, torch.uint8)


def test_a_classifier_stays_whole_though_its_bias_comes_last():
    """transformers' own list of what to leave out names `classifier.bias`, and quantises the classifier."""
    outline = families.loaded("bert").model
    assert "classifier" in quantised._outside(outline)
    assert "bert.pooler.dense" in quantised._outside(outline)


def test_an_adapter_is_merged_first(family, tmp_path):
    kind, folder = family
    (tmp_path / "adapter_config.json").write_text(f'{{"base_model_name_or_path": "{folder}"}}', encoding="utf-8")
    source, task = ModelSource(str(tmp_path)), families.task_of(kind)
    with pytest.raises(ModelError, match="is an adapter, which is not quantised; merge it first"):
        load(source, task, task.labels or (), "teacher.model", quantised=Quantised("nf4", "cpu"))


def test_the_package_is_asked_for(monkeypatch):
    monkeypatch.setattr(quantised, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"^teacher\.model: nf4 needs the package bitsandbytes, .*pip install"):
        quantised.options(Quantised("nf4", "cpu"), families.loaded("bert").model, "teacher.model")
