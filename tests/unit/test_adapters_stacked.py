"""An adapter of a language, learned without a task, below one of a task (MAD-X)."""

import copy
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from configs.adapters import AnyAdapter, Bottleneck, MixAndMatch, Prefix
from configs.data import Task
from distill import adapted_model, adapters
from distill.errors import ModelError
from distill.models import Loaded
from students.adapters.build import build
from tests.helpers.families import batch, draw, last_states, loaded, task_of

ACTIVE = f".{adapted_model.ACTIVE}."
TEXT = Task(kind="text")
LANGUAGE = Bottleneck(kind="bottleneck", place="pfeiffer", size=4)


def drawn(section: AnyAdapter, model: Loaded, task: Task) -> PeftModel:
    adapted = build(section, model, task)
    draw(adapted, std=0.5)
    return adapted


def same_body(kind: str) -> tuple[Loaded, Loaded]:
    """A model without a head, and one with a head around the same weights."""
    bare, headed = loaded(kind, task=TEXT), loaded(kind)
    headed.model.base_model.load_state_dict(bare.model.state_dict(), strict=False)
    return bare, headed


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_a_language_learned_without_a_head_serves_below_a_task(tmp_path: Path, kind: str) -> None:
    bare, headed = same_body(kind)
    language = drawn(LANGUAGE, bare, TEXT)
    adapters.save(language, tmp_path)
    alone = adapters.attach(copy.deepcopy(headed.model), tmp_path, "a test")
    assert torch.equal(last_states(alone, kind), last_states(language, kind))
    above = Bottleneck(kind="bottleneck", place="pfeiffer", size=4, on=(str(tmp_path),))
    stacked = drawn(above, headed, task_of(kind))
    assert not torch.allclose(last_states(stacked, kind), last_states(language, kind))
    below = [parameter for name, parameter in stacked.named_parameters() if ".below_0." in name]
    assert below and not any(parameter.requires_grad for parameter in below)


def test_what_was_learned_with_a_head_of_its_own_does_not_fit_a_model_without_one(tmp_path: Path) -> None:
    bare, headed = same_body("bert")
    adapters.save(drawn(LANGUAGE, headed, task_of("bert")), tmp_path)
    with pytest.raises(ModelError, match=r"a test: .*classifier"):
        adapters.attach(bare.model, tmp_path, "a test")


EMBEDDINGS = {"bert": "word_embeddings", "roberta": "word_embeddings", "llama": "embed_tokens"}


@pytest.mark.parametrize("kind", EMBEDDINGS)
def test_embeddings_a_language_trained_are_used_below_a_task_and_go_with_it(tmp_path: Path, kind: str) -> None:
    bare, headed = same_body(kind)
    plain = copy.deepcopy(headed.model)
    section = LANGUAGE.model_copy(update={"also": (EMBEDDINGS[kind],), "leave_out": (1,)})
    language = drawn(section, bare, TEXT)
    adapters.save(language, tmp_path / "language")
    above = Bottleneck(kind="bottleneck", place="pfeiffer", size=4, on=(str(tmp_path / "language"),))
    stacked = build(above, headed, task_of(kind))
    for parameter in stacked.parameters():  # of no effect, so that what is below shows
        torch.nn.init.zeros_(parameter) if parameter.requires_grad else None
    torch.testing.assert_close(last_states(stacked, kind), last_states(language, kind), atol=1e-6, rtol=0)
    below = [name for name, parameter in stacked.named_parameters() if parameter.requires_grad and "below_0" in name]
    assert below == []
    adapters.save(stacked, tmp_path / "task")
    attached = adapters.attach(copy.deepcopy(plain), tmp_path / "task", "a test")
    torch.testing.assert_close(last_states(attached, kind), last_states(language, kind), atol=1e-6, rtol=0)
    without = adapters.attach(copy.deepcopy(plain), tmp_path / "task", "a test", below=adapters.NONE)
    assert torch.equal(last_states(without, kind), last_states(plain, kind))
    with adapted_model.switched_off(stacked) as off:
        assert torch.equal(last_states(off, kind), last_states(plain, kind))
    torch.testing.assert_close(last_states(stacked, kind), last_states(language, kind), atol=1e-6, rtol=0)


def above(*folders: Path, **numbers: object) -> AnyAdapter:
    named = {"kind": "bottleneck", "place": "pfeiffer", "size": 4, "on": tuple(map(str, folders))}
    return Bottleneck.model_validate({**named, **numbers})


def silenced(model: PeftModel) -> PeftModel:
    """With networks that learn of no effect, so that what is below shows."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "modular" in name:
            torch.nn.init.zeros_(parameter)
    return model


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_what_stands_on_another_brings_it_along(tmp_path: Path, kind: str) -> None:
    task = task_of(kind)
    adapters.save(drawn(LANGUAGE, loaded(kind), task), tmp_path / "low")
    middle = drawn(above(tmp_path / "low"), loaded(kind), task)
    adapters.save(middle, tmp_path / "middle")
    top = silenced(build(above(tmp_path / "middle"), loaded(kind), task))
    torch.testing.assert_close(last_states(top, kind), last_states(middle, kind), atol=1e-6, rtol=0)
    adapters.save(top, tmp_path / "top")
    again = adapters.attach(loaded(kind).model, tmp_path / "top", "a test")
    torch.testing.assert_close(last_states(again, kind), last_states(middle, kind), atol=1e-6, rtol=0)
    assert adapters.stack(tmp_path / "top", "a test")[:2] == [tmp_path / "top" / f"below_{number}" for number in (0, 1)]
    adapters.save(drawn(LANGUAGE, loaded(kind, seed=3), task), tmp_path / "other")
    swapped = adapters.attach(loaded(kind).model, tmp_path / "top", "a test", below=str(tmp_path / "other"))
    by_hand = adapters.attach(loaded(kind).model, tmp_path / "middle", "a test", below=str(tmp_path / "other"))
    torch.testing.assert_close(last_states(swapped, kind), last_states(by_hand, kind), atol=1e-6, rtol=0)


def test_a_stack_takes_the_place_of_the_lowest(tmp_path: Path) -> None:
    task = task_of("bert")
    adapters.save(drawn(LANGUAGE, loaded("bert"), task), tmp_path / "low")
    adapters.save(drawn(above(tmp_path / "low"), loaded("bert"), task), tmp_path / "middle")
    adapters.save(silenced(build(above(tmp_path / "low"), loaded("bert"), task)), tmp_path / "top")
    middle = adapters.attach(loaded("bert").model, tmp_path / "middle", "a test")
    swapped = adapters.attach(loaded("bert").model, tmp_path / "top", "a test", below=str(tmp_path / "middle"))
    torch.testing.assert_close(last_states(swapped, "bert"), last_states(middle, "bert"), atol=1e-6, rtol=0)


def test_normalisations_go_on_from_those_of_the_adapter_below(tmp_path: Path) -> None:
    task = task_of("bert")
    low = drawn(above(place="houlsby"), loaded("bert"), task)
    adapters.save(low, tmp_path)
    top = silenced(build(above(tmp_path, place="houlsby"), loaded("bert"), task))
    torch.testing.assert_close(last_states(top, "bert"), last_states(low, "bert"), atol=1e-6, rtol=0)
    norms = [name for name, parameter in top.named_parameters() if parameter.requires_grad and "LayerNorm" in name]
    assert any("modules_to_save.default" in name for name in norms) and not any("below_0" in name for name in norms)


SHARING: dict[str, AnyAdapter] = {
    "prefix": Prefix(kind="prefix", tokens=3, width=8),
    "compacter": Bottleneck(kind="bottleneck", place="pfeiffer", size=8, kronecker=2),
    "mix and match": MixAndMatch(kind="mix_and_match", size=4, tokens=3, width=8),
}


@pytest.mark.parametrize("goes_on", [False, True], ids=["new", "goes on"])
@pytest.mark.parametrize("name", SHARING)
def test_what_the_layers_of_the_upper_share_learns_and_that_of_the_lower_does_not(
    tmp_path: Path, name: str, goes_on: bool
) -> None:
    low = SHARING["prefix" if name == "compacter" else "compacter"]
    adapters.save(drawn(low, loaded("bert"), task_of("bert")), tmp_path / "low")
    section = SHARING[name].model_copy(update={"on": (str(tmp_path / "low"),)})
    model = build(section, loaded("bert"), task_of("bert"))
    if goes_on:
        draw(model, std=0.3)
        adapters.save(model, tmp_path / "top")
        model = adapters.attach(loaded("bert").model, tmp_path / "top", "a test", trainable=True)
    shared = {key: weight for key, weight in model.named_parameters() if ".modular_shared." in key}
    upper = {key for key in shared if ACTIVE in key}
    assert upper and any(".below_0." in key for key in shared)
    assert {key for key, weight in shared.items() if weight.requires_grad} == upper
    before = {key: weight.detach().clone() for key, weight in shared.items()}
    optimiser = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=1.0)
    model.train()(**batch("bert")).loss.backward()
    optimiser.step()
    assert {key for key, weight in shared.items() if not torch.equal(weight, before[key])} == upper


@pytest.mark.parametrize("kind", ["bert", "llama", "gpt2"])
def test_a_prefix_on_a_prefix_is_one_of_both(tmp_path: Path, kind: str) -> None:
    lower = drawn(Prefix(kind="prefix", tokens=2, width=None), loaded(kind), task_of(kind))
    adapters.save(lower, tmp_path)
    stacked = build(Prefix(kind="prefix", tokens=3, width=None, on=(str(tmp_path),)), loaded(kind), task_of(kind))
    draw(stacked, std=0.5)
    one = build(Prefix(kind="prefix", tokens=5, width=None), loaded(kind), task_of(kind))
    learned = dict(stacked.named_parameters())
    with torch.no_grad():
        for name, whole in one.named_parameters():
            if name.endswith(f"{ACTIVE}prefix"):
                below = learned[name.replace(ACTIVE, ".below_0.")]
                whole.copy_(torch.cat((below, learned[name]), 1))
    torch.testing.assert_close(last_states(stacked, kind), last_states(one, kind), atol=1e-6, rtol=1e-5)
    assert not torch.allclose(last_states(stacked, kind), last_states(lower, kind), atol=1e-2)


def test_layers_left_out_keep_what_their_parts_stand_on(tmp_path: Path) -> None:
    """In a training as once they are pruned: nothing of an adapter below is left out, though it was trained so."""
    bare, headed = same_body("bert")
    adapters.save(drawn(LANGUAGE.model_copy(update={"drop": 1}), bare, TEXT), tmp_path)
    above = Bottleneck(kind="bottleneck", place="pfeiffer", size=4, drop=1, on=(str(tmp_path),))
    stacked = drawn(above, headed, task_of("bert"))
    whole = last_states(stacked, "bert")
    stacked.train()  # no dropout in these
    stacked.base_model.drop.leave_out(1, stacked.base_model.active_adapters)
    inputs = {name: tensor for name, tensor in batch("bert").items() if name != "labels"}
    with torch.no_grad():
        left_out = stacked(**inputs, output_hidden_states=True).hidden_states[-1]
    stacked.base_model.drop_lowest(adapted_model.ACTIVE, 1)
    assert torch.equal(last_states(stacked, "bert"), left_out) and not torch.equal(left_out, whole)


def test_an_adapter_draws_by_its_own_drop_alone(tmp_path: Path) -> None:
    bare, headed = same_body("bert")
    adapters.save(drawn(LANGUAGE.model_copy(update={"drop": 1}), bare, TEXT), tmp_path)
    above = Bottleneck(kind="bottleneck", place="pfeiffer", size=4, on=(str(tmp_path),))
    stacked = drawn(above, headed, task_of("bert"))
    for seed in range(8):
        torch.manual_seed(seed)
        stacked.base_model.begin_pass()
        assert stacked.base_model.drop.below == 0
