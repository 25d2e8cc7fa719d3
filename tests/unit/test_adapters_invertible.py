"""An invertible adapter is undone before the vocabulary, wherever a model keeps the way back to it (MAD-X)."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForMaskedLM

from configs.adapters import Bottleneck
from configs.data import Task
from distill import adapters
from distill.models import Loaded
from students.adapters.build import build
from students.adapters.modular.invertible import Coupling, Inverse
from students.adapters.modular.layer import ModularLayer
from tests.helpers.families import VOCABULARY, WIDTH, batch, draw

TASK = Task(kind="masked_lm")
SECTION = Bottleneck(kind="bottleneck", place="pfeiffer", size=4, invertible=2)
SIZES = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
NARROW = ("albert", "electra")
"""Their embeddings may be narrower than their layers."""
KINDS = ("bert", "roberta", "xlm-roberta", "camembert", "deberta-v2", "mpnet", "modernbert", *NARROW)


def masked_model(kind: str) -> Loaded:
    sizes = {**SIZES, "embedding_size": 8} if kind in NARROW else SIZES
    config = AutoConfig.for_model(kind, vocab_size=VOCABULARY, max_position_embeddings=40, **SPECIAL, **sizes)
    torch.manual_seed(0)
    return Loaded(AutoModelForMaskedLM.from_config(config), None, kind, trained_head=True)  # type: ignore[arg-type]


def logits(model: torch.nn.Module) -> Tensor:
    inputs = {name: tensor for name, tensor in batch("bert").items() if name != "labels"}
    with torch.no_grad():
        found: Tensor = model.eval()(**inputs).logits
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_back_to_the_vocabulary_is_given_the_inverse(kind: str, tmp_path: Path) -> None:
    model = build(SECTION, masked_model(kind), TASK)
    draw(model, std=0.3)
    layers = [module for module in model.modules() if isinstance(module, ModularLayer)]
    (coupling,) = (part for layer in layers for part in layer.modular_parts.values() if isinstance(part, Coupling))
    (back,) = (layer for layer in layers if any(isinstance(part, Inverse) for part in layer.modular_parts.values()))
    assert back is model.get_base_model().get_output_embeddings()
    given: list[Tensor] = []
    back.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    back.get_base_layer().register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    said = logits(model)
    first, undone = given[0], given[-1]
    assert not torch.allclose(undone, first, atol=1e-2)
    torch.testing.assert_close(undone, coupling.inverse(first), atol=0, rtol=0)
    adapters.save(model, tmp_path)
    torch.testing.assert_close(logits(adapters.attach(masked_model(kind).model, tmp_path, "a test")), said)


@pytest.mark.parametrize("kind", ["bert", "deberta-v2"])
def test_of_two_that_stand_on_each_other_the_upper_is_undone_first(kind: str, tmp_path: Path) -> None:
    low = build(SECTION, masked_model(kind), TASK)
    draw(low, std=0.3)
    adapters.save(low, tmp_path)
    model = build(SECTION.model_copy(update={"on": (str(tmp_path),)}), masked_model(kind), TASK)
    draw(model, std=0.4)
    layers = [module for module in model.modules() if isinstance(module, ModularLayer)]
    (front,) = (layer for layer in layers if any(isinstance(part, Coupling) for part in layer.modular_parts.values()))
    back = model.get_base_model().get_output_embeddings()
    assert [type(part) for part in back.running()] == [Inverse, Inverse]
    mapped: list[Tensor] = []
    undone: list[Tensor] = []
    front.get_base_layer().register_forward_hook(lambda _, inputs, output: mapped.append(output))
    back.get_base_layer().register_forward_pre_hook(lambda _, inputs: undone.append(inputs[0]))
    front.register_forward_hook(lambda _, inputs, output: mapped.append(output))
    logits(model)
    with torch.no_grad():
        back(mapped[-1])
    before, after = mapped[0], mapped[-1]
    assert not torch.allclose(before, after, atol=1e-2)
    torch.testing.assert_close(undone[-1], before, atol=1e-5, rtol=0)


@pytest.mark.parametrize("width", [16, 31, 768])
def test_its_inverse_gives_back_what_went_in(width):
    torch.manual_seed(0)
    coupling = Coupling(width, 2, "relu")
    for weight in coupling.parameters():
        torch.nn.init.normal_(weight, std=0.5 / width**0.5)
    given = torch.randn(3, 7, width)
    mapped = coupling(given)
    assert (mapped - given).abs().max() > 0.1
    torch.testing.assert_close(coupling.inverse(mapped), given, atol=1e-6, rtol=0.0)
    torch.testing.assert_close(coupling(coupling.inverse(given)), given, atol=1e-6, rtol=0.0)
